# SPDX-License-Identifier: GPL-2.0-only
"""Go to a machine of the lab and look whether it is fit for test kernels."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import pins, probe
from harness.hosts.console_command import recorded
from harness.hosts.fitness import Finding, judge
from harness.hosts.protocols import Shell
from harness.hosts.route import open_shell
from harness.inventory import SshHost

CONTACT_SECONDS = 30.0
CONSOLE_SECONDS = 15.0
# Critical, so that a console which is told to be quiet shows it as well (kernel-parameters.txt).
_MARK = "echo '<2>kvm-harness: is this the console? {nonce}' > /dev/kmsg"


def examine(name: str, host: SshHost) -> tuple[Finding, ...]:
    """All that was found; errors as open_shell() and survey() raise them."""
    deadline = Deadline(CONTACT_SECONDS)
    known = pins.load(pins.pins_path())
    with open_shell(name, host, known, deadline, root=False) as shell:
        seen = probe.survey(shell, deadline)
    findings = judge(seen, host)
    if host.console is None or not seen.root:
        return findings
    with open_shell(name, host, known, Deadline(CONTACT_SECONDS)) as root:
        return (*findings, console_shows(root, host.console))


def console_shows(shell: Shell, argv: Sequence[str]) -> Finding:
    """Whether a line of the machine's kernel log comes out of the console command.

    One that shows another machine, or the right one too late, is worse than none.
    """
    what, nonce = "console command", secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix="kvm-harness-") as folder,
        recorded(argv, Path(folder) / "console.log") as console,
    ):
        shell.run(_MARK.format(nonce=nonce))
        try:
            console.wait_for(nonce, Deadline(CONSOLE_SECONDS))
        except InfraError as exc:
            words = f"{argv[0]} does not show what the kernel logs: {exc}"
            return Finding("missing", what, words)
    return Finding("ok", what, f"{argv[0]} shows what the kernel logs")
