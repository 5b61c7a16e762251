# SPDX-License-Identifier: GPL-2.0-only
"""Excerpts of evidence files, for reports that people read without the run folder.

A summary may come from elsewhere, and what it names is hostile: only regular files inside the run
folder are read (evidence.py), never more than a bound of each and of all of them, and nothing is
shown raw.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from markupsafe import escape

from harness.printable import printable
from harness.report.evidence import opened

EACH = 16 << 10
TOTAL = 4 << 20
# Browsers show these as text. Others could run scripts of the host's, or start a program.
_LINKED = frozenset({"", ".csv", ".err", ".json", ".jsonl", ".log", ".txt"})
_NO_FILE = "no file of the run folder"
_NOT_TEXT = re.compile("[\x00-\x06\x0e-\x1a\x1c-\x1f\x7f\ufffd]")


@dataclass(frozen=True)
class Excerpt:
    """What a report shows of one file."""

    path: str
    """As the run names it."""
    href: str = ""
    """Relative to the run folder and quoted; "" for what must not be followed."""
    size: int | None = None
    """In bytes, None if there is no such file."""
    head: str = ""
    tail: str = ""
    """The end of a file that is longer than its head, "" if the head is all of it."""
    left_out: int = 0
    """Bytes between head and tail."""
    note: str = ""
    """Why nothing is shown."""


class Evidence:
    """Reads files of a run folder until `total` bytes of HTML are shown of them."""

    def __init__(self, folder: Path, total: int = TOTAL, each: int = EACH) -> None:
        self._folder = folder
        self._left = total
        self._each = each

    def link(self, path: str) -> Excerpt:
        """The name of a file and the way to it, no text."""
        with opened(self._folder, path) as handle:
            if handle is None:
                return Excerpt(path, note=_NO_FILE)
            return Excerpt(path, _href(path), os.fstat(handle).st_size)

    def excerpt(self, path: str) -> Excerpt:
        """A file, or its head and its tail, made printable."""
        with opened(self._folder, path) as handle:
            if handle is None:
                return Excerpt(path, note=_NO_FILE)
            size, parts = _read(handle, self._each)
        if any(_is_binary(part) for part in parts):
            return Excerpt(path, _href(path), size, note="not shown: binary")
        head, tail = (printable(part.decode("utf-8", "backslashreplace"), "") for part in parts)
        cost = len(escape(head + tail).encode())
        if cost > self._left:
            return Excerpt(path, _href(path), size, note="not shown: this report is long enough")
        self._left -= cost
        return Excerpt(path, _href(path), size, head, tail, size - sum(map(len, parts)))

    def text(self, path: str, limit: int) -> str:
        """A whole file of UTF-8; ValueError says why there is none, or that it is longer."""
        with opened(self._folder, path) as handle:
            if handle is None:
                raise ValueError(_NO_FILE)
            size, (data, _) = _read(handle, limit)
        if size > limit:
            raise ValueError(f"has {size} bytes, more than {limit}")
        return data.decode()


def _href(path: str) -> str:
    """A link that is relative whatever the path looks like, "" if a browser may run the file."""
    pure = PurePosixPath(path)
    return f"./{quote(str(pure))}" if pure.suffix.lower() in _LINKED else ""


def _read(handle: int, limit: int) -> tuple[int, tuple[bytes, bytes]]:
    """The size of a file, and all of it or so much of its head and its tail, in whole lines."""
    size = os.fstat(handle).st_size
    if size <= limit:
        return size, (os.pread(handle, limit, 0), b"")
    half = limit // 2
    head, tail = os.pread(handle, half, 0), os.pread(handle, half, size - half)
    return size, (head[: head.rfind(b"\n") + 1] or head, tail[tail.find(b"\n") + 1 :] or tail)


def _is_binary(data: bytes) -> bool:
    """Whether more than a tenth is no text: a log may well have a byte or two of noise."""
    return len(_NOT_TEXT.findall(data.decode("utf-8", "replace"))) * 10 > len(data)
