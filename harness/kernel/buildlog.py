# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel build says as it runs: how far it is, and what went wrong first."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# kbuild's short lines: two spaces, the tool in capitals, the file.
_STEP = re.compile(rb"^  ([A-Z][A-Z0-9_+]*)(?: \[[A-Z]\])? +(\S+)")
_COMPILER = re.compile(
    r"^(?:/src/|\.\./)?(?P<where>[^\s:]+:\d+(?::\d+)?): (?:fatal )?error: (?P<m>.+)$"
)
_LINKER = re.compile(r"(undefined reference to|multiple definition of|relocation truncated)")
_OTHER = re.compile(r"^(?:ERROR: |Error: |.*\bError: |error: )(?P<m>.+)$")
_MAKE = re.compile(r"^make(?:\[\d+\])?: \*\*\* (?P<m>.+)$")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_MEMORY = re.compile(
    r"Killed signal terminated program|out of memory allocating|virtual memory exhausted"
    r"|Cannot allocate memory"
)


@dataclass(frozen=True)
class BuildProgress:
    """How far a build is: steps done, steps expected (an estimate), seconds so far."""

    done: int
    expected: int
    seconds: float
    current: str


def step(line: bytes) -> str | None:
    """The step that a line of output announces ("CC mm/vmscan.o"), or None."""
    found = _STEP.match(line)
    return f"{found[1].decode()} {found[2].decode(errors='replace')}" if found else None


def first_error(lines: Iterable[str]) -> str | None:
    """The first error in a build's log as "file:line: message", or as its tool words it.

    What a compiler or linker says comes before what make says of it.
    """
    from_make: str | None = None
    for line in (raw.rstrip() for raw in lines):
        if found := _COMPILER.match(line):
            return f"{found['where']}: {found['m']}"
        if _LINKER.search(line):
            return line.removeprefix("/src/")
        if (found := _MAKE.match(line)) and from_make is None:
            from_make = found["m"]
        elif (found := _OTHER.match(line)) and from_make is None:
            return line
    return from_make


def ran_out(lines: Iterable[str]) -> str | None:
    """ "disk" or "memory" if the log says that the machine ran out of it, else None."""
    for line in lines:
        if _FULL.search(line):
            return "disk"
        if _MEMORY.search(line):
            return "memory"
    return None
