# SPDX-License-Identifier: GPL-2.0-only
"""What a patch in git's format touches, read from its text alone."""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass

_START = re.compile(rb"^(?:diff --git |--- [^\n]+\n\+\+\+ [^\n]+\n@@ )", re.MULTILINE)
_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_MODE = re.compile(rb"^(?:new file mode|new mode|index [0-9a-f]+\.\.[0-9a-f]+) (\d{6})\s*$")
_SYMLINK = b"120000"
_ESCAPES = {b"a": 7, b"b": 8, b"t": 9, b"n": 10, b"v": 11, b"f": 12, b"r": 13}


class DiffError(ValueError):
    """A diff that cannot be read or must not be applied; the message names file or line."""


@dataclass(frozen=True)
class FileDiff:
    """One file of a patch: its paths (old and new, where they differ), and the link it makes.

    `hunks` are the numbers of the first old line of each hunk, as in "@@ -12,7 +12,8 @@".
    """

    paths: tuple[str, ...]
    hunks: tuple[int, ...]
    link: str | None = None


def extract(body: bytes) -> bytes:
    """The diff in a mail's body, without the text before it and git's signature after it.

    Empty if there is none.
    """
    start = _START.search(body)
    if not start:
        return b""
    diff = body[start.start() :]
    signature = re.search(rb"\n-- ?\n[^\n]*\n*\Z", diff)
    diff = diff[: signature.start() + 1] if signature else diff
    return diff if diff.endswith(b"\n") else diff + b"\n"


def files(diff: bytes) -> tuple[FileDiff, ...]:
    """The files of a diff, in its order. DiffError if it is malformed or a path climbs out."""
    found: list[FileDiff] = []
    lines = diff.split(b"\n")
    i = 0
    while i < len(lines):
        if lines[i].startswith(b"diff --git ") or _is_plain_start(lines, i):
            file, i = _file(lines, i)
            found.append(file)
        else:
            i += 1
    return tuple(found)


def refuse_path(path: str) -> None:
    """DiffError if a path could name anything but a file of the tree."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or "\\" in path:
        raise DiffError(f"path {path!r} is not one inside the tree")
    for part in parts:
        if part in ("", ".", ".."):
            raise DiffError(f"path {path!r} climbs out of the tree")
        if part.lower() == ".git":
            raise DiffError(f"path {path!r} reaches into .git")


def _is_plain_start(lines: list[bytes], i: int) -> bool:
    return (
        lines[i].startswith(b"--- ")
        and i + 2 < len(lines)
        and lines[i + 1].startswith(b"+++ ")
        and lines[i + 2].startswith(b"@@ ")
    )


def _file(lines: list[bytes], i: int) -> tuple[FileDiff, int]:
    """Read one file's header and hunks from line `i`; return it and the line after it."""
    named: list[bytes] = []
    mode = b""
    git = lines[i].startswith(b"diff --git ")
    both = lines[i][len(b"diff --git ") :] if git else b""
    i += 1 if git else 0
    while i < len(lines) and not lines[i].startswith((b"@@ ", b"diff --git ", b"GIT binary patch")):
        line = lines[i]
        if line.startswith((b"--- ", b"+++ ")):
            named.append(_side(line[4:]))
        elif line.startswith((b"rename from ", b"rename to ", b"copy from ", b"copy to ")):
            named.append(b"x/" + _unquote(line.split(b" ", 2)[2]))
        elif found := _MODE.match(line):
            mode = mode or found[1]
        i += 1
        if line.startswith(b"+++ "):
            break
    paths = tuple(dict.fromkeys(_strip(p) for p in named if p != b"/dev/null"))
    if both:
        paths = paths or (_both_sides(both),)
    for path in paths:
        refuse_path(path)
    hunks, added, i = _hunks(lines, i)
    link = None
    if mode == _SYMLINK and added is not None:
        link = added.decode(errors="surrogateescape")
        _refuse_link(paths[-1], link)
    return FileDiff(paths, hunks, link), i


def _hunks(lines: list[bytes], i: int) -> tuple[tuple[int, ...], bytes | None, int]:
    """Skip the hunks from line `i` by their own line counts, so no content passes for a header."""
    starts: list[int] = []
    added: bytes | None = None
    while i < len(lines):
        counts = _HUNK.match(lines[i])
        if not counts:
            break
        starts.append(int(counts[1]))
        old, new = (int(counts[n]) if counts[n] is not None else 1 for n in (2, 4))
        i += 1
        while (old > 0 or new > 0) and i < len(lines):
            line = lines[i]
            if line[:1] == b"+":
                new -= 1
                added = line[1:]
            elif line[:1] == b"-":
                old -= 1
            elif line[:1] in (b" ", b"") or line == b"\r":
                old, new = old - 1, new - 1
            elif line[:1] != b"\\":
                raise DiffError(f"corrupt hunk at line {i + 1} of the diff")
            i += 1
        if old > 0 or new > 0:
            raise DiffError("the diff ends in the middle of a hunk")
        if i < len(lines) and lines[i][:1] == b"\\":
            i += 1
    return tuple(starts), added, i


def _side(text: bytes) -> bytes:
    """The file name of a "---" or "+++" line: quoted, or up to a tab and a time stamp."""
    return _unquote(text) if text.startswith(b'"') else text.split(b"\t")[0].rstrip(b"\r")


def _strip(name: bytes) -> str:
    """A path without its first component (a/, b/), as `git apply -p1` takes it."""
    _, slash, rest = name.partition(b"/")
    if not slash or name.startswith(b"/"):
        raise DiffError(f"path {name.decode(errors='replace')!r} has no a/ or b/ before it")
    try:
        return rest.decode()
    except UnicodeDecodeError:
        raise DiffError(f"path {rest!r} is not UTF-8") from None


def _both_sides(text: bytes) -> str:
    """The path in "a/X b/X" of a file that has no other header: a change of mode, say."""
    text = text.rstrip(b"\r")
    if text.startswith(b'"'):
        quoted = re.match(rb'"(?:[^"\\]|\\.)*"', text)
        return _strip(_unquote(quoted.group() if quoted else text))
    half = len(text) // 2
    old, new = text[:half], text[half + 1 :]
    if text[half : half + 1] != b" " or _strip(old) != _strip(new):
        raise DiffError(f"cannot tell the file in {text.decode(errors='replace')!r}")
    return _strip(old)


def _unquote(text: bytes) -> bytes:
    """Undo git's C-style quoting of a file name."""
    text = text.rstrip(b"\r")
    if not text.startswith(b'"'):
        return text
    inner = text[1 : text.rfind(b'"')]

    def one(match: re.Match[bytes]) -> bytes:
        code = match[1]
        return bytes([int(code, 8) & 255 if code.isdigit() else _ESCAPES.get(code, code[0])])

    return re.sub(rb"\\([0-7]{3}|.)", one, inner)


def _refuse_link(path: str, target: str) -> None:
    resolved = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118,PTH120
    if target.startswith("/") or resolved == ".." or resolved.startswith("../"):
        raise DiffError(f"{path} becomes a link out of the tree, to {target!r}")
