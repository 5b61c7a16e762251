# SPDX-License-Identifier: GPL-2.0-only
"""The lines of guests/cost on a console: numbered in one row, each with its checksum."""

from __future__ import annotations

import re
import zlib

from harness.errors import HostDied, InfraError
from harness.printable import printable

# A boot says some hundreds; each has 200 bytes at most.
MAX_LINES = 10_000
MAX_LINE = 300
_PREFIX = "cost: "
_LINE = re.compile(r"cost: (0|[1-9][0-9]{0,4}) ([0-9a-f]{8}) ([ -~]+)")
# What guest programs say before they give up (guests/kvm-guest/reply.c).
_FATAL = "error fatal "


class Garbled(InfraError):
    """A console does not have all that the program said, word for word."""


class Gave(InfraError):
    """The program on the host gave up, and says why; the kernel under test may be the cause."""


def texts(console: str) -> tuple[str, ...]:
    """What the program said, from "begin" to "end".

    Gave if it could not do its work, HostDied if the machine was off before it had ended, Garbled
    if a line is missing, changed or too long.
    """
    found: list[str] = []
    for line in console.split("\n"):
        line = line.rstrip("\r")
        if line.startswith(_FATAL):
            raise Gave(f"the program on the host: {printable(line[len(_FATAL) :][:MAX_LINE])}")
        if _PREFIX in line:
            found.append(_text(line, len(found)))
    if not found or found[-1] != "end":
        why = f"the machine was off before the program had ended, after {len(found)} lines of it"
        raise HostDied("gone", why)
    failed = next((text for text in found if text.startswith("failed ")), None)
    if failed is not None:
        raise Gave(f"the program on the host: {failed}")
    return tuple(found)


def _text(line: str, number: int) -> str:
    if number >= MAX_LINES:
        raise Garbled(f"more than {MAX_LINES} lines")
    match = _LINE.fullmatch(line) if len(line) <= MAX_LINE else None
    if match is None:
        raise Garbled(f"line {number} is garbled: {printable(line[:MAX_LINE])}")
    if int(match[1]) != number:
        raise Garbled(f"line {number} is missing: {printable(line)} stands in its place")
    if zlib.crc32(f"{match[1]} {match[3]}".encode()) != int(match[2], 16):
        raise Garbled(f"line {number} has another checksum: {printable(line)}")
    return match[3]
