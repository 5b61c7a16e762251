# SPDX-License-Identifier: GPL-2.0-only
"""What a build says while it runs: kept in a file up to a limit, and counted.

harness/kernel/buildlog.py knows what its lines mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.kernel import cache
from harness.kernel.buildlog import BuildProgress, step

LOG_LIMIT = 64 << 20  # bytes; a patch decides what its build prints
# Steps of a build before the cache has seen one of its kind.
_DEFAULT_STEPS = {
    "full": 1560,
    "incremental": 60,
    "full-machine": 6000,
    "incremental-machine": 500,
    "full-x86_64": 1000,
    "incremental-x86_64": 60,
}


class Log:
    """Appends a build's output to a file, up to a limit."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: bytes) -> None:
        """Append a line, unless the limit is reached."""
        if self._file.tell() < LOG_LIMIT:
            self._file.write(line[:LOG_LIMIT])


class Counter:
    """Counts a build's steps and reports them."""

    def __init__(self, kind: str, progress: Callable[[BuildProgress], None]) -> None:
        self.done = 0
        self._expected = expected_steps(kind)
        self._started = time.monotonic()
        self._progress = progress

    def add(self, line: bytes) -> None:
        """Count a line of output, if it announces a step."""
        current = step(line)
        if current is None:
            return
        self.done += 1
        seconds = time.monotonic() - self._started
        self._progress(BuildProgress(self.done, max(self._expected, self.done), seconds, current))


def lines_of(log: Path) -> Iterator[str]:
    """What a Log has kept."""
    with log.open(errors="replace") as handle:
        yield from handle


def expected_steps(kind: str) -> int:
    """How many steps the last build of this kind took here, or a usual number."""
    try:
        return int((cache.folder("steps") / kind).read_text())
    except (FileNotFoundError, ValueError):
        return _DEFAULT_STEPS[kind]


def keep_steps(kind: str, steps: int) -> None:
    """Have expected_steps() know how many steps a build took."""
    (cache.folder("steps") / kind).write_text(f"{steps}\n")
