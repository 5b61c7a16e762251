# SPDX-License-Identifier: GPL-2.0-only
"""Parts of one tally: what runs of sound kernels showed, whichever command recorded them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.mutants.join import NAME as MUTANTS
from harness.repeat.results import NAME as REPEAT
from harness.results import Outcome

GOOD = ("pass", "skip")
NOT_RECORDED = "not recorded"

Flavor = Literal["plain", "debug", "not recorded"]
Tally = Counter[Outcome]


@dataclass(frozen=True)
class Subject:
    """A sound kernel and the checks that it met: what is counted by itself."""

    series: str
    """Its name, "" for the base kernel."""
    digest: str
    """Of its diffs, "" for none and for one that was not recorded."""
    source: str
    version: str
    """Of the base kernel; both "" where that was not recorded."""
    flavor: Flavor
    checks: str
    """In words, by their marks."""
    neutral: bool = False
    """Whether a neutral mutant is on top of it."""


@dataclass(frozen=True)
class Where:
    """Where a cell ran."""

    place: str
    """Host, KVM mode and boot variant."""
    af: str = ""
    """Who must set the stage-2 access flag there, "" where that was not recorded."""


OF_SERIES = Where("the series itself")

Kind = tuple[Subject, Where]


@dataclass(frozen=True)
class Mishap:
    """A check, or a cell by itself, that neither passed nor was skipped."""

    subject: Subject
    where: Where
    check: str
    """"" for the cell by itself."""
    outcome: Outcome
    seed: int | None
    """None where that was not recorded."""
    words: str
    times: int = 1


@dataclass(frozen=True)
class Part:
    """One record."""

    file: Path
    harness: str
    """Version and digests."""
    started: str
    seconds: float
    asked: str
    """To what it was narrowed, in words."""
    hosts: str
    """What kind they are of, in words."""
    emulators: tuple[str, ...]
    early: str
    """Why it ended early, "" if it did not."""
    ends: tuple[str, ...]
    """Runs that ended early: seed, verdict and reason of each."""
    cells: Mapping[Kind, Tally]
    """How they ended. Of what is checked of a series without a cell only what is not good."""
    checks: Mapping[str, Tally]
    count: int
    """Runs that ended."""
    runs: Mapping[Subject, int]
    """How many of them each kernel was in."""
    seeds: Mapping[Subject, frozenset[int]]
    mishaps: tuple[Mishap, ...]
    marks: frozenset[Hashable]
    """By what its runs are known, so that none is counted twice."""

    @property
    def name(self) -> str:
        """That of its folder, or of its file if that has got a name of its own."""
        given = self.file.name in (REPEAT, MUTANTS)
        return self.file.absolute().parent.name if given else self.file.stem


def odd(tallies: Iterable[Mapping[Outcome, int]]) -> Tally:
    """What neither passed nor was skipped of several counts, together."""
    found = total(tallies)
    return Counter({outcome: n for outcome, n in found.items() if n and outcome not in GOOD})


def total(tallies: Iterable[Mapping[Outcome, int]]) -> Tally:
    """The sum of several counts."""
    found: Tally = Counter()
    for tally in tallies:
        found.update(tally)
    return found
