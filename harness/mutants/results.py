# SPDX-License-Identifier: GPL-2.0-only
"""What `kvm-harness mutants` records: the types of mutants.json (tests/mutants/README.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import Death
from harness.mutants.table import Kind, Mutant
from harness.results import Outcome
from harness.verdict import Verdict

SCHEMA = 1
NAMED = "only the checks that are named"
"""The note of a run that left all other checks out."""
NAMED_IN_PARTS = "in some parts only the checks that are named"
"""The note of a matrix of which some parts were such runs."""

Found = Literal["caught", "caught elsewhere", "missed", "pass", "known bug", "false alarm", "error"]
"""How a mutant or a control ended; "error" says nothing about the checks.

"known bug" is a control that failed by nothing but bugs that the kernel is known for.
"""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ran(_Model):
    """One cell with one seed, judged against the base kernel's."""

    cell: str
    seed: int
    folder: str
    """With its evidence, relative to mutants.json."""
    outcome: Outcome
    reason: str = ""
    death: Death | None = None
    checks: dict[str, Outcome]
    why: dict[str, str] = {}
    """What each check that failed said."""
    deaths: dict[str, Death] = {}
    """How the kernel died in a check, by the check."""
    control: tuple[str, ...] = ()
    """The checks that failed on the kernel that the mutant goes on as well, with the same seed."""
    known: dict[str, int] = {}
    """Of a control that failed by nothing else: the bugs that its kernel is known for, and how many
    reports there were of each."""
    seconds: float


class Build(_Model):
    """The kernel of a mutant."""

    build_id: str
    seconds: float
    """What the build took when it was made."""
    cached: bool


class Result(_Model):
    """One mutant, neutral mutant or control, and all cells that it ran in."""

    name: str
    kind: Kind | Literal["control"]
    breaks: str
    claim: int | None = None
    series: str | None = None
    check: str | None = None
    during: str | None = None
    deaths: tuple[Death, ...] = ()
    says: str | None = None
    debug: bool = False
    shown_by: str | None = None
    build: Build | None = None
    ran: tuple[Ran, ...] = ()
    found: Found | None = None
    """None for what is only listed."""
    why: str = ""
    """Why it is not what it should be, in a sentence."""


class Matrix(_Model):
    """mutants.json: all of it."""

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    harness: str
    harnesses: tuple[str, ...] = ()
    """Of a matrix of parts that were not all run by one and the same harness: each that ran any."""
    verdict: Verdict
    reason: str
    """Why it ended early, "" if it did not."""
    source: str
    version: str
    seeds: tuple[int, ...]
    started: str
    """UTC, ISO 8601."""
    seconds: float
    jobs: int
    """Cells at once."""
    notes: tuple[str, ...] = ()
    results: tuple[Result, ...]


def listed(name: str, mutant: Mutant) -> Result:
    """What is known of a mutant by its table alone."""
    return Result(
        name=name,
        kind=mutant.kind,
        breaks=mutant.breaks,
        claim=mutant.claim,
        series=mutant.series,
        check=mutant.check,
        during=mutant.during,
        debug=mutant.debug,
        shown_by=mutant.shown_by,
        deaths=mutant.deaths,
        says=mutant.says,
    )
