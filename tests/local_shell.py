# SPDX-License-Identifier: GPL-2.0-only
"""A Shell of this machine: commands run in a real sh, so that scripts for hosts can be tested."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence

from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Result

SECONDS = 30.0


class LocalProcess:
    """A program of this machine that is talked to."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.ended = False
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
        except BrokenPipeError as exc:
            raise InfraError("it is gone") from exc

    def receive(self, deadline: Deadline) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line.rstrip("\n")
        raise EOFError

    def stderr(self) -> str:
        return ""

    def wait(self, deadline: Deadline) -> int:
        return self._process.wait(deadline.remaining())

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=20)
        self.ended = True


class LocalShell(UnaskedShell):
    """Runs commands, and programs that stay; nothing else is asked of it."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=(deadline or Deadline(SECONDS)).remaining(),
        )
        if check and done.returncode:
            raise InfraError(f"`{command}` exited {done.returncode}: {done.stderr}")
        return Result(command, done.returncode, done.stdout, done.stderr)

    def start(self, argv: Sequence[str]) -> LocalProcess:
        return LocalProcess(argv)
