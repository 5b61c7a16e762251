# SPDX-License-Identifier: GPL-2.0-only
"""What `kvm-harness repeat` records: the types of repeat.json (docs/summary.md)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt

from harness.inventory import AfMode, KvmMode
from harness.results import Host, Kernel, KernelLabel, Outcome
from harness.verdict import Verdict

SCHEMA = 1
NAME = "repeat.json"

Counts = dict[Outcome, NonNegativeInt]
"""Outcome -> how often it was."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Repetition(_Model):
    """One of the runs: its seed, its folder beside repeat.json ("" if there is none), its end."""

    seed: int
    folder: str
    verdict: Verdict
    reason: str = ""


class Place(_Model):
    """What a cell is: as in summary.json."""

    kernel: KernelLabel
    host: str
    kvm_mode: KvmMode
    af_mode: AfMode
    variant: str = ""


class Trouble(_Model):
    """What neither passed nor was skipped, with its words in a line each, cut if they are long."""

    seed: int
    cell: str
    name: str
    """The check, "" for the cell itself where none of its checks tells why it did not pass."""
    outcome: Outcome
    observed: str = ""
    reason: str = ""


class Repeat(_Model):
    """repeat.json: all runs so far (docs/summary.md).

    What has the name of a key of Summary is that, and the same in all runs. All with a default is
    absent in a record from before there was `started`.
    """

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    harness: str = ""
    harness_digests: tuple[str, ...] = ()
    """Several if it was changed while runs went on."""
    count: int
    """Runs that were asked for."""
    reason: str
    """Why there are fewer, "" if there are not."""
    series: str = ""
    series_digest: str = ""
    debug: bool = False
    only: tuple[str, ...] = ()
    marks: str = ""
    """The expression of -m, as it was given."""
    names: str = ""
    """That of -k."""
    own_checks: bool = False
    """Whether the checks were those of --checks, not those of the harness."""
    selftests: bool = False
    linux_guest: bool = False
    """Whether these checks were asked for as well."""
    started: str = ""
    """UTC, ISO 8601."""
    seconds: float = 0.0
    """Of all runs together."""
    emulated: bool = False
    emulators: tuple[str, ...] = ()
    kernels: tuple[Kernel, ...] = ()
    """As the first run had them."""
    hosts: tuple[Host, ...] = ()
    seeds: tuple[int, ...]
    runs: tuple[Repetition, ...]
    verdict: Verdict
    """The worst of them."""
    places: dict[str, Place] = {}
    """Cell -> what it is."""
    cells: dict[str, Counts]
    """Cell -> outcomes."""
    checks: dict[str, dict[str, Counts]]
    """Name of a check -> cell -> outcomes."""
    troubles: tuple[Trouble, ...] = ()
