# SPDX-License-Identifier: GPL-2.0-only
"""Write initramfs archives, and read what it wrote: cpio of the form "newc".

Documentation/driver-api/early-userspace/buffer-format.rst describes it.

Everything in them belongs to root, whoever builds them, and is the same byte for byte when built
again; device nodes need no privilege since they are only records here.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from dataclasses import dataclass

# Bytes before a member's name.
_HEAD = 110


@dataclass(frozen=True)
class Entry:
    """One member: `mode` holds type and permissions as in stat(2); `rdev` is major, minor."""

    path: str
    mode: int
    data: bytes = b""
    rdev: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """A folder that everybody may enter."""
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(path, stat.S_IFREG | mode, data)


def symlink(path: str, target: str) -> Entry:
    """A symbolic link to `target`."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def char_device(path: str, major: int, minor: int) -> Entry:
    """A character device that only root may use."""
    return Entry(path, stat.S_IFCHR | 0o600, rdev=(major, minor))


def _record(number: int, entry: Entry) -> bytes:
    name = entry.path.lstrip("/").encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    fields = (
        number,
        entry.mode,
        0,  # uid
        0,  # gid
        links,
        0,  # mtime
        len(entry.data),
        0,  # major and minor of the device that holds it
        0,
        *entry.rdev,
        len(name),
        0,  # checksum, unused in newc
    )
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return _padded(head) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of `entries`, with the folders above each added where they are missing.

    ValueError if a path has no name or climbs, or if two entries that are not folders share one.
    """
    seen: set[str] = set()
    records: list[bytes] = []

    def add(entry: Entry) -> None:
        path = entry.path.strip("/")
        if not path or {"", ".", ".."} & set(path.split("/")):
            raise ValueError(f"not a path for an archive: {entry.path!r}")
        parent = path.rpartition("/")[0]
        if parent and parent not in seen:
            add(directory(parent))
        if path in seen and not stat.S_ISDIR(entry.mode):
            raise ValueError(f"twice in one archive: {entry.path!r}")
        if path not in seen:
            seen.add(path)
            records.append(_record(len(seen), Entry(path, entry.mode, entry.data, entry.rdev)))

    for entry in entries:
        add(entry)
    records.append(_record(0, Entry("TRAILER!!!", 0)))
    whole = b"".join(records)
    return whole + b"\0" * (-len(whole) % 512)


def contents(data: bytes, path: str) -> bytes:
    """What the file at `path` holds in an archive that archive() made; KeyError if it has none."""
    at = 0
    while (head := data[at : at + _HEAD])[:6] == b"070701":
        size, length = (int(head[6 + 8 * field : 14 + 8 * field], 16) for field in (6, 11))
        name = data[at + _HEAD : at + _HEAD + length - 1].decode()
        start = _aligned(at + _HEAD + length)
        if name == path:
            return data[start : start + size]
        at = _aligned(start + size)
    raise KeyError(path)


def _aligned(at: int) -> int:
    return at + -at % 4
