# SPDX-License-Identifier: GPL-2.0-only
"""Drive a keeper: a process on the host that keeps the fd of a guest's VM when its owner has gone.

docs/guest-protocol.md describes it. A keeper must be there before the guest that gives to it, so
that the two share no memory.
"""

from __future__ import annotations

import re
import secrets
from types import TracebackType

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guest_replies import PROTOCOL
from harness.guests import END_SECONDS, PROGRAM, Guest
from harness.hosts.protocols import Process, Shell

# It ends by itself then, so that no VM stays behind; in seconds.
LIFE_SECONDS = 120
ANSWER_SECONDS = 15.0


class Keeper:
    """A running keeper; a context manager that ends it, and with it every VM that it keeps.

    Methods raise InfraError for an error or a malformed reply, DeadlineExceeded and HostDied.
    """

    def __init__(self, process: Process, name: str, slowdown: float = 1.0) -> None:
        self._process = process
        self._slowdown = slowdown
        self.name = name
        self._expect(
            "its greeting", rf"ready protocol={PROTOCOL} pid=[1-9][0-9]{{0,9}} keeper={name}"
        )

    @classmethod
    def start(cls, shell: Shell, slowdown: float = 1.0) -> Keeper:
        """Start one, under a name of its own, on a host `slowdown` times as slow as usual."""
        name = secrets.token_hex(8)
        argv = [PROGRAM, "--keeper", name, "--timeout", f"{LIFE_SECONDS * slowdown:g}"]
        process = shell.start(argv)
        try:
            return cls(process, name, slowdown)
        except BaseException:
            process.close()
            raise

    def keep(self, vm: Guest) -> None:
        """Have a guest hand over its VM's fd."""
        vm.give(self.name)
        self._ask("take", "ok kept=1")

    def drop(self) -> None:
        """Close what is kept: with it the VM ends, if its owner has gone."""
        self._ask("drop", "ok kept=0")

    def close(self) -> None:
        """End the process and wait until it has ended."""
        try:
            self._process.wait(Deadline(END_SECONDS * self._slowdown))
        finally:
            self._process.close()

    def __enter__(self) -> Keeper:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, command: str, reply: str) -> None:
        self._process.send(command)
        self._expect(f"its reply to {command!r}", reply)

    def _expect(self, what: str, pattern: str) -> None:
        deadline = Deadline(ANSWER_SECONDS * self._slowdown)
        try:
            text = self._process.receive(deadline)
        except EOFError:
            raise InfraError(f"the keeper ended instead of {what}") from None
        if not re.fullmatch(pattern, text, re.ASCII):
            raise InfraError(f"the keeper gave {text[:200]!r} for {what}")
