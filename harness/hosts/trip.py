# SPDX-License-Identifier: GPL-2.0-only
"""How far a machine has gone from its known-good kernel, and what its console says on the way."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import HostDied, InfraError
from harness.hosts.console_command import Recording, recording
from harness.hosts.machine import Running
from harness.inventory import SshHost
from harness.splatlog import FIRST_LINE

# Files in the cell's folder: the console on the way there, in the kernel that is tested, and on
# the way back.
BEFORE, CONSOLE, AFTER = "console-before.log", "console.log", "console-after.log"


@dataclass
class Trip:
    """How far a machine has gone from its known-good kernel."""

    good: Running
    jumped: bool = False
    cell: str = field(default_factory=lambda: secrets.token_hex(8))
    """The mark of this boot, which no other has."""

    def begun(self, console: str) -> bool:
        """Whether the kernel of this trip has said anything; before it, another shuts down."""
        return FIRST_LINE in console or self.cell in console

    def arrived(self, seen: Running) -> bool:
        """Whether a machine runs the kernel of this trip; HostDied if it has gone past it."""
        if seen.cell == self.cell:
            return True
        if seen.boot_id != self.good.boot_id:
            raise HostDied("gone", f"the machine is in another boot already, of {seen.release}")
        return False


class Tape:
    """What the machine's console says, in one file for each leg of the trip."""

    def __init__(self, folder: Path, recording: Recording | None) -> None:
        self._folder = folder
        self._recording = recording

    def next(self, name: str) -> Path:
        """Go on in another file; it stays empty where the inventory has no command.

        After an OSError nothing is recorded any more: it would be taken for the leg before.
        """
        path = self._folder / name
        try:
            path.touch()
            if self._recording is not None:
                self._recording.switch(path)
        except OSError:
            if self._recording is not None:
                self._recording.stop.set()
            raise
        return path

    def ended(self) -> InfraError | None:
        """Why nothing is recorded any more, if that is so."""
        return self._recording.ended() if self._recording is not None else None


@contextlib.contextmanager
def taped(host: SshHost, folder: Path) -> Iterator[Tape]:
    """Record the console of a host until the end of the block, if the inventory has a command."""
    if host.console is None:
        yield Tape(folder, None)
        return
    with recording(host.console, folder / BEFORE) as made:
        yield Tape(folder, made)
