# SPDX-License-Identifier: GPL-2.0-only
"""The line to kvm-guest: commands out, replies back, each exchange bounded and written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.guest_errors import raise_error
from harness.guest_replies import Reply, shorten
from harness.hosts.protocols import Process

# Seconds that an exchange may take beyond the program's own limit: it kicks a hung vCPU for 2 s,
# and commands that run no vCPU (drain, flush, idle-read) have no limit of their own.
GRACE = 10.0

# Seconds that the program and its VM may take to be gone.
END_SECONDS = 30.0


class Line:
    """What a Guest and its program say to each other.

    After an answer that did not come, nothing more can be asked.
    """

    def __init__(
        self,
        process: Process,
        *,
        pages: int,
        timeout: float,
        slowdown: float,
        transcript: Path | None,
        deadline: Deadline | None,
    ) -> None:
        self._process = process
        self._reply_seconds = (timeout + GRACE) * slowdown
        self._end_seconds = END_SECONDS * slowdown
        self._transcript = transcript
        self._deadline = deadline
        self._broken: str | None = None
        self._closed = False
        self._pages = pages

    def greeting(self, command: str) -> str:
        """What the program says of itself, unasked, when it was started by this command."""
        text = self._receive(command)
        if text.startswith("error "):
            raise_error(Reply(command, text, self._pages))
        return text

    def ask(self, command: str, names: Sequence[str]) -> Reply:
        """One exchange; the reply's fields are exactly `names`."""
        return self.ask_all(((command, names),))[0]

    def ask_all(self, steps: Sequence[tuple[str, Sequence[str]]]) -> list[Reply]:
        """Several commands in one exchange, each with the names of its reply's fields."""
        command = ";".join(step for step, _ in steps)
        if self._broken is not None:
            raise InfraError(
                f"kvm-guest cannot be asked {shorten(command)!r}, since {self._broken}"
            )
        self._record(f"> {command}")
        self._process.send(command)
        parts = self._receive(command).split(";")
        replies: list[Reply] = []
        for (step, names), part in zip(steps, parts, strict=False):
            reply = Reply(step, part, self._pages)
            if part.startswith("error "):
                raise_error(reply)
            reply.expect(("ok",), names)
            replies.append(reply)
        if len(parts) != len(steps):
            replies[-1].bad(f"{len(parts)} replies to {len(steps)} commands")
        return replies

    def close(self) -> None:
        """End the program, and wait until it and its VM are gone; closing twice does nothing.

        Raises DeadlineExceeded if they do not go: what hangs in a VM's teardown must not pass.
        """
        if self._closed:
            return
        self._closed = True
        self._broken = self._broken or "it was closed"
        try:
            self._process.wait(Deadline(self._end_seconds))
        finally:
            self._process.close()

    def _receive(self, command: str) -> str:
        limit = self._reply_seconds
        deadline = self._deadline.within(limit) if self._deadline else Deadline(limit)
        what = f"kvm-guest's reply to {shorten(command)!r}"
        try:
            text = self._process.receive(deadline)
        except DeadlineExceeded:
            self._broken = f"{what} never came"
            self._record("! no reply in time")
            raise deadline.exceeded(what) from None
        except HostDied:
            self._broken = "its host died"
            raise
        except EOFError:
            self._broken = "it ended"
            self._record("! end of output")
            errors = self._process.stderr().strip()[-500:] or "nothing on standard error"
            raise InfraError(f"kvm-guest ended instead of {what}: {errors}") from None
        self._record(f"< {text}")
        return text

    def _record(self, line: str) -> None:
        """Append to the transcript; it is in the file before anything is done about it."""
        if self._transcript is not None:
            with self._transcript.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{line}\n")
