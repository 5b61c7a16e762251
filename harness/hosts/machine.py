# SPDX-License-Identifier: GPL-2.0-only
"""A machine of the lab: how it is reached, and which kernel it runs.

A kernel of the harness has a word on its command line that no other has, so one that was left
behind by a run that is dead is told from the machine's own, even if they are the same build.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts import bootargs, ssh
from harness.hosts.pins import pin_name
from harness.hosts.protocols import Shell
from harness.hosts.route import Alive, open_shell, way_to
from harness.hosts.ssh import HostKeyChanged, SshShell
from harness.inventory import SshHost

MARK = "kvm_harness.cell="
# A forwarded port may take a connection and stay silent for as long as the machine boots, so an
# attempt is given up soon; later ones get more, for machines that are slow to let anybody in.
FIRST_SECONDS, LONGEST_SECONDS = 4.0, 30.0
PAUSE_SECONDS = 0.3

_ASK = """\
cat /proc/sys/kernel/random/boot_id
uname -srv
sha256sum < /sys/kernel/notes
cat /proc/cmdline"""
_ANSWER = re.compile(
    r"(?P<boot_id>[0-9a-f-]{36})\n(?P<release>[ -~]{1,400})\n(?P<notes>[0-9a-f]{64}) [^\n]*\n"
    rf"(?P<cmdline>[ -~]{{0,{bootargs.LONGEST}}})\n",
    re.ASCII,
)


@dataclass(frozen=True)
class Running:
    """The kernel that a machine runs."""

    boot_id: str
    release: str
    """What uname(1) says: name, release, version."""
    notes: str
    """SHA-256 of its ELF notes: with the build id among them, that of one build alone."""
    cmdline: str

    @property
    def cell(self) -> str:
        """The mark that a kernel of the harness has on its command line, "" for any other."""
        words = [word for word in self.cmdline.split() if word.startswith(MARK)]
        return words[-1].removeprefix(MARK) if words else ""

    def same_build(self, other: Running) -> bool:
        """Whether both are boots of one kernel."""
        return (self.release, self.notes) == (other.release, other.notes)


def running(shell: Shell, deadline: Deadline | None = None) -> Running:
    """Ask a machine; InfraError if its answer makes no sense."""
    text = shell.run(_ASK, deadline).stdout
    found = _ANSWER.fullmatch(text)
    if found is None:
        raise InfraError(f"the host answered nonsense when asked for its kernel: {text[:200]!r}")
    return Running(**found.groupdict())


class NotBooted(DeadlineExceeded):
    """A machine does not run the kernel that was waited for."""

    def __init__(self, message: str, seen: Running | None) -> None:
        super().__init__(message)
        self.seen = seen
        """What it ran at the last attempt, None if it did not answer."""


@dataclass(frozen=True)
class Machine:
    """A machine of the inventory, with the host keys that are pinned."""

    name: str
    host: SshHost
    pins: Mapping[str, str]
    say: Callable[[str], None] = print
    """Told what is done to the machine, as it is done."""

    @property
    def host_key(self) -> str:
        """The pinned one, "" for none: the same machine has the same."""
        return self.pins.get(pin_name(way_to(self.host)), "")

    def shell(
        self, deadline: Deadline, alive: Alive = ssh.nothing, slowdown: float = 1.0
    ) -> AbstractContextManager[SshShell]:
        """A root's shell on it (see open_shell())."""
        return open_shell(self.name, self.host, self.pins, deadline, alive, slowdown=slowdown)

    @contextlib.contextmanager
    def booted(
        self,
        wanted: Callable[[Running], bool],
        deadline: Deadline,
        alive: Alive = ssh.nothing,
        slowdown: float = 1.0,
    ) -> Iterator[tuple[SshShell, Running]]:
        """A shell on it once it runs a kernel that is `wanted`, and which one that is.

        Until then it may be in another boot, or nowhere. NotBooted says what was seen last;
        HostKeyChanged, UsageError and what `alive` raises are raised at once.
        """
        with contextlib.ExitStack() as stack:
            while True:
                alive()
                seen = None
                try:
                    shell, seen = self._attempt(stack, deadline, alive, slowdown)
                    if wanted(seen):
                        break
                    why = f"it is in the boot {seen.boot_id} of {seen.release}"
                except (HostDied, HostKeyChanged):
                    raise
                except InfraError as exc:
                    # What `alive` has to say comes before what follows from it.
                    alive()
                    why = str(exc)
                stack.close()
                if deadline.expired():
                    within = f"{self.name} was not booted within {deadline.budget:.0f} s"
                    raise NotBooted(f"{within}: {why}", seen)
                time.sleep(PAUSE_SECONDS)
            yield shell, seen

    def _attempt(
        self, stack: contextlib.ExitStack, deadline: Deadline, alive: Alive, slowdown: float
    ) -> tuple[SshShell, Running]:
        # The last one as well: a few seconds more, but not a vain one.
        attempt = Deadline(min(LONGEST_SECONDS, FIRST_SECONDS + deadline.elapsed() / 4) * slowdown)
        shell = stack.enter_context(self.shell(attempt, alive, slowdown))
        return shell, running(shell, attempt)
