# SPDX-License-Identifier: GPL-2.0-only
"""Write down every command that a cell gives its host, with its time: commands.jsonl.

It is evidence (what was done to this kernel, in which order) and the script of the bare QEMU runs
that the benchmark compares with.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.hosts.protocols import Process, Result, Shell

# Characters of a line that are kept: a stage-2 dump in a reply is evidence elsewhere.
LONGEST = 1 << 16


class Journal:
    """An append-only file of JSON lines; `at` is in seconds since it was opened."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)
        self._start = time.monotonic()
        self._programs = 0

    def add(self, **fields: object) -> None:
        """Append one line; it is written before what it tells of is done."""
        at = round(time.monotonic() - self._start, 4)
        self._file.write(json.dumps({"at": at, **fields}) + "\n")

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
        self._journal.add(program=self._number, send=line[:LONGEST])
        self._inner.send(line)

    def receive(self, deadline: Deadline) -> str:
        """See Process.receive."""
        line = self._inner.receive(deadline)
        self._journal.add(program=self._number, received=line[:LONGEST])
        return line

    def stderr(self) -> str:
        """See Process.stderr."""
        return self._inner.stderr()

    def wait(self, deadline: Deadline) -> int:
        """See Process.wait."""
        self._journal.add(program=self._number, close=True)
        return self._inner.wait(deadline)

    def close(self) -> None:
        """See Process.close."""
        self._journal.add(program=self._number, close=True)
        self._inner.close()


class RecordedShell:
    """A Shell whose commands are written down."""

    def __init__(self, inner: Shell, journal: Journal) -> None:
        self._inner = inner
        self._journal = journal

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        """See Shell.run."""
        self._journal.add(run=command[:LONGEST])
        return self._inner.run(command, deadline, check=check)

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        """See Shell.read."""
        self._journal.add(read=path)
        return self._inner.read(path, deadline)

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        """See Shell.write."""
        self._journal.add(write=path, text=text[:LONGEST])
        self._inner.write(path, text, deadline)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """See Shell.put."""
        self._journal.add(put=remote)
        self._inner.put(local, remote, mode=mode)

    def start(self, argv: Sequence[str]) -> Process:
        """See Shell.start."""
        number = self._journal.program()
        self._journal.add(program=number, start=list(argv))
        return RecordedProcess(self._inner.start(argv), number, self._journal)
