# SPDX-License-Identifier: GPL-2.0-only
"""A partition table of the UEFI Specification, 2.10, section 5, for an image of a disk."""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from pathlib import Path

SECTOR = 512
ENTRIES, ENTRY = 128, 128
# The table itself, at each end of the disk; in sectors.
_TABLE = 1 + ENTRIES * ENTRY // SECTOR
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
LINUX_ROOT_ARM64 = uuid.UUID("b921b045-1df0-41c3-af44-4c6f280d3fae")


@dataclass(frozen=True)
class Partition:
    """Of `kind`, from byte `start` on, `size` bytes long."""

    kind: uuid.UUID
    id: uuid.UUID
    start: int
    size: int


def write(path: Path, disk: uuid.UUID, parts: tuple[Partition, ...]) -> None:
    """Write the table, both copies, to an image that has its full length."""
    sectors = path.stat().st_size // SECTOR
    entries = b"".join(
        struct.pack(
            "<16s16sQQQ72x",
            part.kind.bytes_le,
            part.id.bytes_le,
            part.start // SECTOR,
            (part.start + part.size) // SECTOR - 1,
            0,
        )
        for part in parts
    ).ljust(ENTRIES * ENTRY, b"\0")
    last = sectors - 1
    with path.open("r+b") as image:
        image.seek(446)
        whole = min(last, 0xFFFFFFFF)
        image.write(struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff" * 3, 1, whole))
        image.seek(510)
        image.write(b"\x55\xaa" + _header(disk, 1, last, 2, entries) + entries)
        image.seek((sectors - _TABLE) * SECTOR)
        image.write(entries + _header(disk, last, 1, sectors - _TABLE, entries))


def _header(disk: uuid.UUID, own: int, other: int, table: int, entries: bytes) -> bytes:
    usable = (1 + _TABLE, max(own, other) - _TABLE)
    checksum = zlib.crc32(entries)
    fields = (own, other, *usable, disk.bytes_le, table, ENTRIES, ENTRY, checksum)

    def packed(crc: int) -> bytes:
        return struct.pack("<8s4sIIIQQQQ16sQIII", b"EFI PART", b"\0\0\1\0", 92, crc, 0, *fields)

    return packed(zlib.crc32(packed(0))).ljust(SECTOR, b"\0")
