# SPDX-License-Identifier: GPL-2.0-only
"""Files of a run folder, read for a report: bounded, and none from outside of the folder.

A run may have come from another machine: its paths are whatever somebody wrote, and so are the
links in its folder.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.results import Cell, Check

Read = Callable[[str], str | None]
"""The text of a file by its path in the run folder; None if there is no such file in it."""

# Bytes that are read at either end of a file.
EDGE = 64 << 10
MAX_LINES = 12
MAX_FILES = 12
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# A line that says what went wrong, in a compiler's, a selftest's and a program's words.
_TELLING = re.compile(r"\berror\b|\bundefined reference\b|\bnot ok\b|\bassert|\bfailed\b", re.I)
_TOLD = ("ktap.txt", ".log")
_COMMON = ("before.txt", "after.txt", "changes.json", "dmesg.txt")
_TRACEBACK = "error.txt"


@dataclass(frozen=True)
class Excerpt:
    """The lines of one file that tell most, as they are in it, and at most MAX_LINES."""

    path: str
    lines: tuple[str, ...]


def reader(folder: Path) -> Read:
    """Read files of a run folder, at most EDGE bytes of each end; the text says what is left out.

    None for what is no regular file of the folder, whatever its path or a link says.
    """

    def read(path: str) -> str | None:
        with opened(folder, path) as handle:
            return None if handle is None else _ends(handle)

    return read


@contextlib.contextmanager
def opened(folder: Path, path: str) -> Iterator[int | None]:
    """A descriptor of a regular file in a folder, None if there is none: no link is followed."""
    handles: list[int] = []
    try:
        try:
            handles.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            for part in path.split("/"):
                if part in ("", ".", ".."):
                    raise OSError
                handles.append(os.open(part, _FLAGS, dir_fd=handles[-1]))
            regular = stat.S_ISREG(os.fstat(handles[-1]).st_mode)
        except (OSError, ValueError):
            # ValueError: a NUL in the path, or half of a surrogate pair.
            regular = False
        yield handles[-1] if regular else None
    finally:
        for handle in handles:
            os.close(handle)


def _ends(handle: int) -> str:
    size = os.fstat(handle).st_size
    if size <= 2 * EDGE:
        return os.pread(handle, 2 * EDGE, 0).decode(errors="replace")
    first, last = os.pread(handle, EDGE, 0), os.pread(handle, EDGE, size - EDGE)
    left_out = f"\n[{size - 2 * EDGE} bytes are left out here]\n"
    return first.decode(errors="replace") + left_out + last.decode(errors="replace")


def files(check: Check) -> list[str]:
    """The evidence of a check, what every check leaves behind those of its own."""
    return sorted(check.evidence, key=lambda path: path.rpartition("/")[2] in _COMMON)


def of_check(check: Check, cell: Cell | None, read: Read) -> Excerpt | None:
    """The shortest evidence of a check: what the kernel reported, else what a log says went wrong.

    None where no file says it in words: dumps and traces must be read whole, and what was
    observed in them stands in the record.
    """
    if check.splats and cell is not None and (found := _report(cell, read, check.splats[0].title)):
        return found
    for path in check.evidence[:MAX_FILES]:
        if path.endswith(f"/{_TRACEBACK}") and (found := _tail(path, read)):
            return found
    for path in check.evidence[:MAX_FILES]:
        if path.endswith(_TOLD) and (found := _from(path, read, _TELLING)):
            return found
    return None


def of_cell(cell: Cell, read: Read) -> Excerpt | None:
    """The shortest evidence of how a cell ended: the kernel's first report, else its last words."""
    if cell.splats and (found := _report(cell, read, cell.splats[0].title)):
        return found
    return _tail(f"cells/{cell.id}/console.log", read) if cell.death else None


def _report(cell: Cell, read: Read, title: str) -> Excerpt | None:
    return _from(cell.splat_file, read, re.compile(re.escape(title))) if cell.splat_file else None


def _from(path: str, read: Read, telling: re.Pattern[str]) -> Excerpt | None:
    """The first line of a file that matches, and those after it."""
    lines = _lines(path, read)
    at = next((at for at, line in enumerate(lines) if telling.search(line)), None)
    return None if at is None else Excerpt(path, tuple(lines[at : at + MAX_LINES]))


def _tail(path: str, read: Read) -> Excerpt | None:
    lines = _lines(path, read)
    return Excerpt(path, tuple(lines[-MAX_LINES:])) if lines else None


def _lines(path: str, read: Read) -> list[str]:
    """The lines of a file that are not empty, none if there is no file."""
    text = (read(path) or "").replace("\r", "\n").expandtabs()
    return [line.rstrip() for line in text.split("\n") if line.strip()]
