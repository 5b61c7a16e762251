# SPDX-License-Identifier: GPL-2.0-only
"""Go to a machine of the lab and look whether it is fit for test kernels."""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import grub_look, initrd_look, pins, probe, watchdog
from harness.hosts.console import Console
from harness.hosts.console_command import last_words, recorded
from harness.hosts.fitness import Finding, judge
from harness.hosts.lease import Place
from harness.hosts.leasing import MACHINE, look
from harness.hosts.machine import MARK
from harness.hosts.protocols import Shell
from harness.hosts.route import CONTACT_SECONDS, open_shell
from harness.inventory import SshHost

CONSOLE = "console command"
CONSOLE_SECONDS = 15.0
# Serial over LAN takes seconds to connect and shows nothing of before: so it is said again.
AGAIN_SECONDS = 1.0
POLL = 0.05
# Critical, so that a console which is told to be quiet shows it as well (kernel-parameters.txt).
_MARK = "echo '<2>kvm-harness: is this the console? {nonce}' > /dev/kmsg"


@dataclass(frozen=True)
class Examined:
    """What a machine said of itself, and what that and all else that was looked at means."""

    seen: probe.Survey
    findings: tuple[Finding, ...]


def examine(name: str, host: SshHost) -> Examined:
    """All that was found; errors as open_shell() and survey() raise them."""
    deadline = Deadline(CONTACT_SECONDS)
    known = pins.load(pins.pins_path())
    with open_shell(name, host, known, deadline, root=False) as shell:
        seen = probe.survey(shell, deadline)
    findings = (*judge(seen, host), *no_power(host))
    if seen.root:
        with open_shell(name, host, known, Deadline(CONTACT_SECONDS)) as root:
            findings += _as_root(root, host, seen.cmdline)
    return Examined(seen, findings)


def _as_root(root: Shell, host: SshHost, cmdline: str) -> tuple[Finding, ...]:
    """What only root can look at; `cmdline` is that of the running kernel."""
    findings = initrd_look.findings(root, host, cmdline)
    if host.boot == "grub":
        findings += grub_look.findings(grub_look.look(root))
    # A test kernel that was left stops it, as it is told.
    if host.watchdog and MARK not in cmdline and (why := watchdog.unfit(root)):
        findings += (Finding("missing", "watchdog", why),)
    if host.console is not None:
        findings += (console_of(root, host.console),)
    return findings


def no_power(host: SshHost) -> tuple[Finding, ...]:
    """The commands of its power switch that this controller does not have."""
    if host.power is None:
        return ()
    programs = {argv[0] for argv in (host.power.on, host.power.off, host.power.reset)}
    return tuple(
        Finding("missing", "power command", f"the controller has no program {program}")
        for program in sorted(programs)
        if shutil.which(program) is None
    )


def console_of(shell: Shell, argv: Sequence[str], place: Place = MACHINE) -> Finding:
    """What console_shows() finds, unless another tests kernels on the machine just now.

    The holder of a lease reads the kernel's log, and may have the only session of the console.
    """
    seen = look(shell, place)
    if seen.left:
        return Finding("note", CONSOLE, f"not tried: {seen.words()}")
    return console_shows(shell, argv)


def console_shows(shell: Shell, argv: Sequence[str]) -> Finding:
    """Whether a line of the machine's kernel log comes out of the console command.

    One that shows another machine, or the right one too late, is worse than none.
    """
    nonce = secrets.token_hex(8)
    with (
        tempfile.TemporaryDirectory(prefix="kvm-harness-") as folder,
        recorded(argv, Path(folder) / "console.log") as console,
    ):
        try:
            say_until_seen(shell, console, nonce)
        except _Unseen as exc:
            words = f"{argv[0]} does not show what the kernel logs: {exc}"
            return Finding("missing", CONSOLE, words)
    return Finding("ok", CONSOLE, f"{argv[0]} shows what the kernel logs")


class _Unseen(InfraError):
    """The console does not show what the kernel was given to log."""


def say_until_seen(shell: Shell, console: Console, nonce: str) -> None:
    """Wait until the console shows a line that the kernel was given to log; InfraError if not.

    An error of `shell` is raised as it is: it is none of the console's.
    """
    deadline, again = Deadline(CONSOLE_SECONDS), Deadline(0)
    while nonce not in console.text():
        try:
            console.check()
        except InfraError as exc:
            raise _Unseen(str(exc)) from exc
        if deadline.expired():
            why = console.hung(f"no {nonce!r} within {deadline.budget:.0f} s")
            words = last_words(console.path)
            raise _Unseen(f"{why}; it said: {words}" if words else str(why))
        if again.expired():
            shell.run(_MARK.format(nonce=nonce))
            again = Deadline(AGAIN_SECONDS)
        time.sleep(POLL)
