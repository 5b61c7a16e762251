# SPDX-License-Identifier: GPL-2.0-only
"""A shell on a machine that finds out what became of the machine when its connection is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts.protocols import Process, Result
from harness.hosts.ssh import SshShell


class WatchedShell:
    """The Shell protocol over connections, one after another.

    `again` is called with the trouble when one is lost. It returns a shell if the machine still
    runs the same kernel, and raises HostDied if not: a connection that broke alone is an InfraError
    of whoever used it, and the next one has the new connection.
    """

    def __init__(self, shell: SshShell, again: Callable[[InfraError], SshShell]) -> None:
        self._inner = shell
        self._again = again

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        """See Shell.run."""
        with self._watching():
            return self._inner.run(command, deadline, check=check)

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        """See Shell.read."""
        with self._watching():
            return self._inner.read(path, deadline)

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        """See Shell.write."""
        with self._watching():
            self._inner.write(path, text, deadline)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """See Shell.put."""
        with self._watching():
            self._inner.put(local, remote, mode=mode)

    def start(self, argv: Sequence[str]) -> Process:
        """See Shell.start."""
        with self._watching():
            return self._inner.start(argv)

    @contextlib.contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        except (DeadlineExceeded, HostDied):
            raise
        except InfraError as exc:
            if self._inner.connected:
                raise
            self._inner = self._again(exc)
            raise InfraError(
                f"{exc}; the machine can be reached again, and runs the same kernel"
            ) from exc
