# SPDX-License-Identifier: GPL-2.0-only
"""A shell on a machine that finds out what became of the machine when its connection is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import ConnectionCut, DeadlineExceeded, HostDied, InfraError
from harness.hosts.protocols import Process, Result
from harness.hosts.ssh import SshShell

# For an answer of a machine that is well.
ANSWER_SECONDS = 5.0


class WatchedShell:
    """The Shell protocol over connections, one after another.

    `again` is called with the trouble when one is lost. It returns a shell if the machine still
    runs the same kernel, and raises HostDied if not: a connection that broke alone is ConnectionCut
    for whoever used it, and the next one has the new connection. One over which nothing comes, not
    even an answer to what is nothing to do, may be cut without anybody having been told.
    """

    def __init__(
        self, shell: SshShell, again: Callable[[Exception], SshShell], slowdown: float = 1.0
    ) -> None:
        self._inner = shell
        self._again = again
        self._slowdown = slowdown
        self._lock = threading.Lock()

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        """See Shell.run."""
        with self.watching(self._inner) as shell:
            return shell.run(command, deadline, check=check)

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        """See Shell.read."""
        with self.watching(self._inner) as shell:
            return shell.read(path, deadline)

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        """See Shell.write."""
        with self.watching(self._inner) as shell:
            shell.write(path, text, deadline)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """See Shell.put."""
        with self.watching(self._inner) as shell:
            shell.put(local, remote, mode=mode)

    def start(self, argv: Sequence[str]) -> Process:
        """See Shell.start."""
        with self.watching(self._inner) as shell:
            return _WatchedProcess(shell.start(argv), shell, self)

    @contextlib.contextmanager
    def watching(self, shell: SshShell) -> Iterator[SshShell]:
        """Find out what became of the machine if what is done over `shell` in the block fails."""
        try:
            yield shell
        except HostDied:
            raise
        except (InfraError, EOFError) as exc:
            told = isinstance(exc, InfraError) and not isinstance(exc, DeadlineExceeded)
            if shell.connected if told else self._answers(shell):
                raise
            with self._lock:
                # Another may have found out, and have the next connection already.
                if self._inner is shell:
                    self._inner = self._again(exc)
            raise ConnectionCut(
                f"{exc}; the machine can be reached again, and runs the same kernel"
            ) from exc

    def _answers(self, shell: SshShell) -> bool:
        """Asked on a channel of its own: others may be in use by other threads."""
        try:
            with contextlib.closing(shell.start(["true"])) as asked:
                return asked.wait(Deadline(ANSWER_SECONDS * self._slowdown)) == 0
        except HostDied:
            raise
        except InfraError:
            return False


class _WatchedProcess:
    """A Process over one of the connections."""

    def __init__(self, inner: Process, shell: SshShell, owner: WatchedShell) -> None:
        self._inner = inner
        self._shell = shell
        self._owner = owner

    def send(self, line: str) -> None:
        """See Process.send."""
        with self._owner.watching(self._shell):
            self._inner.send(line)

    def receive(self, deadline: Deadline) -> str:
        """See Process.receive."""
        with self._owner.watching(self._shell):
            return self._inner.receive(deadline)

    def stderr(self) -> str:
        """See Process.stderr."""
        return self._inner.stderr()

    def wait(self, deadline: Deadline) -> int:
        """See Process.wait."""
        with self._owner.watching(self._shell):
            return self._inner.wait(deadline)

    def close(self) -> None:
        """See Process.close."""
        self._inner.close()
