# SPDX-License-Identifier: GPL-2.0-only
"""What linux-guest-vmm, QEMU's monitor and the guest's only process say, as values.

All of it comes from lost territory: each is held to the form that docs/linux-guest.md gives it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from harness.errors import InfraError
from harness.linux_guest.machine import PAGE, RAM_BASE, GuestMachine

Kind = Literal["ready", "console", "qmp", "stderr", "alarm", "end", "error"]
KINDS: frozenset[str] = frozenset(
    ("ready", "console", "qmp", "stderr", "alarm", "end", "error"),
)
# What the guest's process says among the messages of its kernel.
GUEST = "@guest "
_RUN = re.compile(r"([0-9a-f]{1,8})([+-])([0-9a-f]{1,12})", re.ASCII)
_HVA = re.compile(r"Host virtual address for 0x[0-9a-f]+ \([^)]*\) is 0x([0-9a-f]{1,16})", re.ASCII)


@dataclass(frozen=True)
class Line:
    """One line of linux-guest-vmm: what it is, and the rest."""

    kind: Kind
    text: str


class _Numbers(BaseModel):
    major: int
    minor: int
    micro: int


class _Version(BaseModel):
    qemu: _Numbers
    package: str = Field(max_length=200)


class _Greeting(BaseModel):
    version: _Version


def parse_line(line: str) -> Line:
    """A line as its kind and text; InfraError for a kind that does not exist."""
    kind, _, text = line.partition(" ")
    if kind not in KINDS:
        raise InfraError(f"linux-guest-vmm said {line[:80]!r}")
    return Line(kind, text)  # type: ignore[arg-type]


def parse_fields(text: str, names: Iterable[str]) -> dict[str, int]:
    """The numbers of "name=1 other=2"; InfraError unless the names are exactly these in order."""
    wanted = list(names)
    fields = [word.partition("=") for word in text.split(" ")] if text else []
    if [name for name, _, _ in fields] != wanted or not all(
        re.fullmatch("[0-9]{1,10}", value, re.ASCII) for _, _, value in fields
    ):
        raise InfraError(f"the guest said {text[:80]!r}, expected were {' '.join(wanted)}")
    return {name: int(value) for name, _, value in fields}


def parse_frames(text: str, machine: GuestMachine) -> tuple[int, ...]:
    """For each tested page the index of its page in the guest's RAM.

    `text` has runs of frames that rise (COUNT+FIRST) or fall (COUNT-FIRST), in hexadecimal.
    InfraError unless there is one frame for each page, all different, all in RAM.
    """
    frames: list[int] = []
    for run in text.removeprefix("frames=").split(","):
        match = _RUN.fullmatch(run)
        if match is None:
            raise InfraError(f"not a run of page frames: {run[:40]!r}")
        count, first = int(match[1], 16), int(match[3], 16)
        if not 0 < count <= machine.pages - len(frames):
            raise InfraError(f"page frames for more than {machine.pages} pages")
        step = 1 if match[2] == "+" else -1
        frames += range(first, first + step * count, step)
    pages = tuple(frame - RAM_BASE // PAGE for frame in frames)
    inside = all(0 <= page < machine.ram_pages for page in pages)
    if len(pages) != machine.pages or len(set(pages)) != len(pages) or not inside:
        raise InfraError(f"the guest's page frames do not fit its machine: {text[:80]!r}")
    return pages


def format_set(pages: Iterable[int], size: int) -> str:
    """A set of tested pages as the guest takes it: a digit for each four pages."""
    bits = [0] * (-(-size // 4))
    for page in pages:
        if not 0 <= page < size:
            raise ValueError(f"not a tested page: {page}")
        bits[page // 4] |= 1 << page % 4
    return "".join(f"{digit:x}" for digit in bits)


def parse_qmp(text: str) -> Mapping[str, object]:
    """A message of QEMU's monitor; InfraError if it is none."""
    try:
        message = json.loads(text)
    except ValueError as exc:
        raise InfraError(f"QEMU's monitor said {text[:80]!r}") from exc
    if not isinstance(message, dict):
        raise InfraError(f"QEMU's monitor said {text[:80]!r}")
    return message


def parse_greeting(message: Mapping[str, object]) -> str:
    """QEMU's version and package, as its monitor's first message has them.

    For example "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)". InfraError if it does not say.
    """
    try:
        version = _Greeting.model_validate(message["QMP"]).version
    except ValidationError as exc:
        raise InfraError(f"QEMU's monitor does not name its version: {str(message)[:80]}") from exc
    numbers = version.qemu
    words = f"{numbers.major}.{numbers.minor}.{numbers.micro}"
    return f"{words} ({version.package})" if version.package else words


def parse_hva(text: str) -> int:
    """The address in QEMU of what `gpa2hva` was asked for; InfraError if it did not say."""
    match = _HVA.search(text)
    if match is None:
        raise InfraError(f"QEMU does not say where the guest's RAM is: {text[:120]!r}")
    return int(match[1], 16)
