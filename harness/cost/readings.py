# SPDX-License-Identifier: GPL-2.0-only
"""What a host that counts instructions said in one boot: text in, typed values out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.cost.framing import Garbled, texts
from harness.hosts.proof import MAX_CONFIG, MAX_NOTES

PROTOCOL = "begin 1"
_NAME = r"([a-z]+(?:-[a-z]+)*)"
_NUMBER = r"([0-9]{1,18})"
_PASS = re.compile(
    rf"pass {_NAME} pages={_NUMBER} pass={_NUMBER} units={_NUMBER} "
    rf"instructions=(-?[0-9]{{1,18}})"
)
_FAULTS = re.compile(rf"faults {_NAME} pages={_NUMBER} pass={_NUMBER} exits={_NUMBER}")
_CALLS = re.compile(
    rf"calls {_NAME} pages={_NUMBER} function=([A-Za-z0-9_.]{{1,64}}) "
    rf"hits={_NUMBER}"
)


@dataclass(frozen=True)
class Pass:
    """One measurement: what it took the kernel to do something to so many units (pages)."""

    metric: str
    pages: int
    """Tested pages of the process that made it."""
    number: int
    """0 for the first pass of that process."""
    units: int
    instructions: int


@dataclass(frozen=True)
class Faults:
    """Exits of the guest while it touched its pages, but for the one by which it parks."""

    pages: int
    number: int
    count: int


@dataclass(frozen=True)
class Calls:
    """How often a notifier was called; its name may be cut to 30 characters by the kernel."""

    metric: str
    pages: int
    function: str
    hits: int


@dataclass(frozen=True)
class Readings:
    """All of one boot."""

    notes: bytes
    config: bytes
    """/proc/config.gz."""
    release: str
    has_kvm: bool
    passes: tuple[Pass, ...]
    faults: tuple[Faults, ...]
    calls: tuple[Calls, ...]


def parse(console: str) -> Readings:
    """What a console shows of a boot; Garbled or Gave if that is not all of it."""
    said = texts(console)
    if said[0] != PROTOCOL:
        raise Garbled(f"it begins with {said[0]!r}, not {PROTOCOL!r}")
    rest = [text for text in said[1:-1] if not text.startswith(("notes ", "config "))]
    passes, faults, calls = [], [], []
    words: dict[str, str] = {}
    for text in rest:
        if found := _PASS.fullmatch(text):
            passes.append(Pass(found[1], *map(int, found.groups()[1:])))
        elif found := _FAULTS.fullmatch(text):
            exits = int(found[4])
            faults.append(Faults(int(found[2]), int(found[3]), exits - 1))
        elif found := _CALLS.fullmatch(text):
            calls.append(Calls(found[1], int(found[2]), found[3], int(found[4])))
        elif found := re.fullmatch(r"(release|kvm) (\S+)", text):
            words[found[1]] = found[2]
        else:
            raise Garbled(f"it said what nobody knows: {text!r}")
    if set(words) != {"release", "kvm"}:
        raise Garbled("it did not say which kernel it is")
    return Readings(
        notes=_bytes(said, "notes", MAX_NOTES),
        config=_bytes(said, "config", MAX_CONFIG),
        release=words["release"],
        has_kvm=words["kvm"] == "yes",
        passes=tuple(passes),
        faults=tuple(faults),
        calls=tuple(calls),
    )


def _bytes(said: Sequence[str], name: str, limit: int) -> bytes:
    """What lines of hex digits make together; the last of them tells how much it is."""
    found = [text.removeprefix(f"{name} ") for text in said if text.startswith(f"{name} ")]
    if not found:
        raise Garbled(f"it said no {name}")
    *lines, end = found
    try:
        data = bytes.fromhex("".join(lines))
    except ValueError as exc:
        raise Garbled(f"{name}: {exc}") from exc
    if end != f"end {len(data)}" or len(data) > limit:
        raise Garbled(f"{name}: {len(data)} bytes came, where it says {end!r}")
    return data
