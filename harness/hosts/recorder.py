# SPDX-License-Identifier: GPL-2.0-only
"""Write down every command that a cell gives its host, with its time: commands.jsonl.

It is evidence (what was done to this kernel, in which order, and what came of it), the script of
the bare QEMU runs that the benchmark compares with, and that of reproducers (harness/reproduce/).

A host that has died, or let a wait run out, is asked nothing more: what hangs in its kernel may
hold any lock, and each further wait would cost its whole deadline.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied
from harness.hosts.protocols import Process, Result, Shell

# Characters of a line that are kept: a stage-2 dump in a reply is evidence elsewhere.
LONGEST = 1 << 16


class Journal:
    """An append-only file of JSON lines; `at` is in seconds since it was opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1, encoding="utf-8")
        self._start = time.monotonic()
        self._programs = 0
        self._trouble: DeadlineExceeded | HostDied | None = None

    def add(self, **fields: object) -> None:
        """Append one line."""
        at = round(time.monotonic() - self._start, 4)
        self._file.write(json.dumps({"at": at, **fields}) + "\n")

    @contextlib.contextmanager
    def asking(self, **fields: object) -> Iterator[None]:
        """Append one line, then do what it tells of; raise the trouble that there was before."""
        if self._trouble is not None:
            raise self._trouble
        if fields:
            self.add(**fields)
        try:
            yield
        except (DeadlineExceeded, HostDied) as exc:
            self._trouble = exc
            raise

    def program(self) -> int:
        """A number for a program that is started."""
        self._programs += 1
        return self._programs - 1

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class RecordedProcess:
    """A Process whose lines are written down."""

    def __init__(self, inner: Process, number: int, journal: Journal) -> None:
        self._inner = inner
        self._number = number
        self._journal = journal

    def send(self, line: str) -> None:
        """See Process.send."""
        with self._journal.asking(program=self._number, send=line[:LONGEST]):
            self._inner.send(line)

    def receive(self, deadline: Deadline) -> str:
        """See Process.receive."""
        with self._journal.asking():
            line = self._inner.receive(deadline)
        self._journal.add(program=self._number, received=line[:LONGEST])
        return line

    def stderr(self) -> str:
        """See Process.stderr."""
        return self._inner.stderr()

    def wait(self, deadline: Deadline) -> int:
        """See Process.wait."""
        with self._journal.asking(program=self._number, close=True):
            return self._inner.wait(deadline)

    def close(self) -> None:
        """See Process.close."""
        self._inner.close()


class RecordedShell:
    """A Shell whose commands are written down, and what they say unless it is too long.

    `own` tells of a command that what it says is kept elsewhere.
    """

    def __init__(
        self, inner: Shell, journal: Journal, own: Callable[[str], bool] = lambda _: False
    ) -> None:
        self._inner = inner
        self._journal = journal
        self._own = own

    def mark(self, check: str) -> None:
        """Write down that a check begins: what follows is its work, or nobody's with ""."""
        self._journal.add(check=check)

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        """See Shell.run."""
        with self._journal.asking(run=command[:LONGEST]):
            result = self._inner.run(command, deadline, check=check)
        if not self._own(command):
            self._said(result.stdout + result.stderr, result.status)
        return result

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        """See Shell.read."""
        with self._journal.asking(read=path):
            text = self._inner.read(path, deadline)
        self._said(text, 0)
        return text

    def _said(self, text: str, status: int) -> None:
        if len(text) < LONGEST:
            self._journal.add(output=text, status=status)

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        """See Shell.write."""
        with self._journal.asking(write=path, text=text[:LONGEST]):
            self._inner.write(path, text, deadline)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """See Shell.put."""
        with self._journal.asking(put=remote):
            self._inner.put(local, remote, mode=mode)

    def start(self, argv: Sequence[str]) -> Process:
        """See Shell.start."""
        number = self._journal.program()
        with self._journal.asking(program=number, start=list(argv)):
            return RecordedProcess(self._inner.start(argv), number, self._journal)
