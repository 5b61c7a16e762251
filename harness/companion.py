# SPDX-License-Identifier: GPL-2.0-only
"""Drive kvm-guest where it makes no VM but does something for others: one line, one reply.

docs/guest-protocol.md describes what it can do then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guest_line import END_SECONDS
from harness.guest_replies import PROTOCOL
from harness.guests import PROGRAM
from harness.hosts.protocols import Process, Shell
from harness.observe import page_idle

# It ends by itself then, so that nothing stays behind; in seconds.
LIFE_SECONDS = 120
ANSWER_SECONDS = 15.0


class Companion:
    """A running process; a context manager that ends it.

    Methods raise InfraError for an error or a malformed reply, DeadlineExceeded and HostDied, and
    Unproven where it needs page_idle and the kernel has none.
    """

    def __init__(self, process: Process, what: str, greeting: str, slowdown: float = 1.0) -> None:
        self._process = process
        self._what = what
        self._slowdown = slowdown
        self._expect("its greeting", rf"ready protocol={PROTOCOL} pid=[1-9][0-9]{{0,9}} {greeting}")

    @classmethod
    def start(
        cls,
        shell: Shell,
        options: Sequence[str],
        what: str,
        greeting: str,
        slowdown: float = 1.0,
        before: Sequence[str] = (),
    ) -> Companion:
        """Start one on a host `slowdown` times as slow as usual.

        `what` is what messages call it, `greeting` a pattern for what its greeting tells of it,
        `before` a command that runs it ("taskset", "-c", "1").
        """
        argv = [*before, PROGRAM, *options, "--timeout", f"{LIFE_SECONDS * slowdown:g}"]
        process = shell.start(argv)
        try:
            return cls(process, what, greeting, slowdown)
        except BaseException:
            process.close()
            raise

    def ask(self, command: str, reply: str) -> None:
        """Send a command, for a reply of that pattern."""
        ask_together([(self, command)], reply)

    def send(self, command: str) -> None:
        """Send a command; replied() must follow."""
        self._process.send(command)

    def replied(self, command: str, reply: str) -> re.Match[str]:
        """Wait for the reply to a command that was sent, which must be of that pattern."""
        return self._expect(f"its reply to {command[:40]!r}", reply)

    def close(self) -> None:
        """End the process and wait until it has ended."""
        try:
            self._process.wait(Deadline(END_SECONDS * self._slowdown))
        finally:
            self._process.close()

    def __enter__(self) -> Companion:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _expect(self, reply: str, pattern: str) -> re.Match[str]:
        deadline = Deadline(ANSWER_SECONDS * self._slowdown)
        try:
            text = self._process.receive(deadline)
        except EOFError:
            raise InfraError(f"the {self._what} ended instead of {reply}") from None
        page_idle.require(text)
        found = re.fullmatch(pattern, text, re.ASCII)
        if found is None:
            raise InfraError(f"the {self._what} gave {text[:200]!r} for {reply}")
        return found


def ask_together(asked: Sequence[tuple[Companion, str]], reply: str) -> None:
    """Send each its command before any is waited for, so that they do it at the same time."""
    for companion, command in asked:
        companion.send(command)
    for companion, command in asked:
        companion.replied(command, reply)
