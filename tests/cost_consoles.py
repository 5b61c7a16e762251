# SPDX-License-Identifier: GPL-2.0-only
"""Consoles of hosts that count: those that were saved, and any that a test makes up.

A file's name says where, and with which series if with one: HOST-MODE or HOST-MODE-SERIES. That of
a base kernel is made by

    kvm-harness cost --base-only --host HOST --mode MODE --layouts 1 --no-neutral
    gzip -9n <RUN/cost/HOST-MODE/base-reference/console.log >tests/data/cost/HOST-MODE.console.gz
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

DATA = Path(__file__).parent / "data/cost"
_END = ".console.gz"
NAMES = sorted(path.name.removesuffix(_END) for path in DATA.glob(f"*{_END}"))
BUILD_ID = "45896c99079d9ac94a6ea2289440cd3af6dd0b00"
LOCKLESS_BUILD_ID = "08d0f0681f1f2eabfb9d4f6d597bed5b19ba4337"
CONFIG_SHA256 = "83bdcf71970b03c8fc14c60d2e7f7a0e17b554eeba17fe1bd407852056453ca2"


def saved(name: str) -> str:
    """The console of a boot, from its first byte to its last."""
    return gzip.decompress((DATA / f"{name}{_END}").read_bytes()).decode()


BASE = saved("n1-vhe")
LOCKLESS = saved("n1-vhe-lockless")


def framed(texts: Sequence[str]) -> str:
    """As guests/cost/say.c writes them."""
    lines = []
    for number, text in enumerate(texts):
        crc = zlib.crc32(f"{number} {text}".encode())
        lines.append(f"cost: {number} {crc:08x} {text}\r\n")
    return "".join(lines)


def edited(console: str, old: str, new: str) -> str:
    """The console with another text in all lines of the program, each with its right checksum."""
    said = [line.split(" ", 3)[3] for line in console.splitlines() if line.startswith("cost: ")]
    kernel = [line for line in console.splitlines() if not line.startswith("cost: ")]
    kept = [text.replace(old, new) for text in said]
    return "\r\n".join(kernel) + "\r\n" + framed([text for text in kept if text])
