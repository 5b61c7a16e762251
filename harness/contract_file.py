# SPDX-License-Identifier: GPL-2.0-only
"""A series.yaml as it is written: its keys, what each may hold, and the situations each is for.

docs/contract.md describes the file; harness/contract_load.py makes a contract of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness.inventory import AfMode, KvmMode
from harness.situation import Situation

CostMetric = Literal[
    "cost-idle",
    "cost-walk",
    "cost-access",
    "cost-notifier",
    "cost-reclaim",
    "cost-damon",
    "cost-damon-check",
    "cost-khugepaged",
    "calls-idle",
    "calls-walk",
    "calls-reclaim",
    "calls-damon",
    "calls-damon-check",
    "calls-khugepaged",
    "faults-access",
]
Lock = Literal["none", "read", "write"]
Locker = Literal["access_fault", "aging"]
Driver = Literal[
    "page_idle",
    "mglru_walk",
    "eviction",
    "eviction_blocks",
    "classic",
    "khugepaged",
    "damon",
    "damon_check",
]

# These reach a host's tracefs, debugfs and command line: no white space, no slash, no quotes.
Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=128)]
Tracepoint = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+:[a-z0-9_]+$", max_length=128)]
FileName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+$", max_length=64)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=32)]
Parameter = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+(=[A-Za-z0-9_.,:-]*)?$", max_length=128)
]
MessageId = Annotated[str, StringConstraints(pattern=r"^[^<>\s]+@[^<>\s]+$", max_length=256)]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]+\.[0-9]+(\.[0-9]+)?$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class AgingPath(_Model):
    """One way from a driver into KVM.

    `may` are functions of the fast path that other memory of the guest can enter meanwhile, of
    which nothing is said.
    """

    pages: Literal["each", "none"]
    event: Tracepoint
    enters: tuple[Annotated[tuple[Symbol, ...], Field(min_length=1)], ...] = ()
    never: tuple[Symbol, ...] = ()
    may: tuple[Symbol, ...] = ()

    @property
    def allowed(self) -> set[str]:
        """The functions that this path enters, and those that it may."""
        return {*(name for step in self.enters for name in step), *self.may}

    @model_validator(mode="after")
    def _consistent(self) -> AgingPath:
        if self.pages == "each" and not self.enters:
            raise ValueError("a path that asks for pages must name the functions that it enters")
        if self.pages == "none" and self.enters:
            raise ValueError("a path that asks for no page cannot enter functions")
        if not self.enters and not self.never:
            raise ValueError("a path needs functions to observe")
        if both := self.allowed & set(self.never):
            raise ValueError(f"both entered and never entered: {', '.join(sorted(both))}")
        return self


class Where(_Model):
    """Conditions on a situation; one that is not given always holds."""

    modes: tuple[KvmMode, ...] = get_args(KvmMode)
    stage1_af: AfMode | None = None
    stage2_af: AfMode | None = None

    def holds(self, situation: Situation) -> bool:
        """Whether all of them hold in `situation`."""
        return (
            situation.mode in self.modes
            and self.stage1_af in (None, situation.stage1_af)
            and self.stage2_af in (None, situation.stage2_af)
        )


class Rule(Where):
    """The path that a driver takes where the conditions hold.

    `spares` tells which pages eviction must leave: all that are young, or only some of them.
    """

    path: Name
    spares: Literal["young", "some"] = "young"


class Drivers(_Model):
    """The rules of each driver; one left out keeps those of the base.

    khugepaged does not age: it asks whether pages are young, and must leave them as they are. DAMON
    does both, one after the other: `damon` ages an address of each region, `damon_check` asks
    whether it was accessed since. `eviction` and `eviction_blocks` are MGLRU's, of pages that a
    page table maps and of huge pages; `classic` is the classic LRU's, of the former.
    """

    page_idle: tuple[Rule, ...] | None = None
    mglru_walk: tuple[Rule, ...] | None = None
    eviction: tuple[Rule, ...] | None = None
    eviction_blocks: tuple[Rule, ...] | None = None
    classic: tuple[Rule, ...] | None = None
    khugepaged: tuple[Rule, ...] | None = None
    damon: tuple[Rule, ...] | None = None
    damon_check: tuple[Rule, ...] | None = None


class AccessFaults(_Model):
    """The pages for which guests take access faults, by who manages AF at stage 2."""

    hardware: Literal["none", "touched"]
    software: Literal["none", "touched"]


class LockRule(Where):
    """How the MMU lock is taken where the conditions hold: once at most, and no stronger.

    `always`: once each time, so that who takes no lock at all is wrong. `visits` is how many
    entries of stage 2 may be visited while it is held once: by default those of a huge page that is
    mapped by pages.
    """

    takes: Lock
    always: bool = False
    visits: Annotated[int, Field(gt=0)] = 512

    @model_validator(mode="after")
    def _something(self) -> LockRule:
        if self.always and self.takes == "none":
            raise ValueError("what takes no lock cannot take it always")
        return self


class MmuLock(_Model):
    """How each access fault, and each call of a notifier of aging, takes the MMU lock.

    What is left out is the base's, and if that says nothing, nothing is asked.
    """

    access_fault: tuple[LockRule, ...] | None = None
    aging: tuple[LockRule, ...] | None = None


class FlushRule(Where):
    """How often stage 2's TLB may be invalidated for each call of a notifier that ages.

    `each`: once. What is asked for with the flush, by clear_flush_young, is not meant.
    """

    flushes: Literal["none", "each"]


class AfFile(_Model):
    """A file in a VM's debugfs folder that tells who manages AF at stage 2, and its two texts."""

    name: FileName
    hardware: str
    software: str


class Variant(_Model):
    """A way to boot the patched kernel besides the plain one."""

    name: Name
    cmdline: Annotated[tuple[Parameter, ...], Field(min_length=1)]
    stage2_af: AfMode | None = None

    def differs_on(self, af: AfMode) -> bool:
        """Whether it makes a difference to a host whose access flag is set like that without it."""
        return self.stage2_af != af


class Counter(Where):
    """A file in a VM's debugfs folder that counts the stage-2 leaves that aging made old.

    Where the conditions hold it counts each of them; everywhere else it stands still.
    """

    name: FileName


class CostPromise(Where):
    """What becomes of a cost (docs/cost.md) where the conditions hold; all others are only told."""

    metric: CostMetric
    promise: Literal["better", "not-worse"]


class FastPath(_Model):
    """Functions that are entered in these cells and nowhere else.

    `drivers` enter all of them, and nothing else is said of their way. With none, the paths say
    who enters which.
    """

    functions: Annotated[tuple[Symbol, ...], Field(min_length=1)]
    drivers: tuple[Driver, ...] = ()
    modes: Annotated[tuple[KvmMode, ...], Field(min_length=1)]
    stage2_af: tuple[AfMode, ...] = get_args(AfMode)
    lru_gen_bit: Annotated[int, Field(gt=0, le=0x8000)] | None = None

    @model_validator(mode="after")
    def _bit_is_of_drivers(self) -> FastPath:
        # A path says who enters what whatever the bit is.
        if self.lru_gen_bit is not None and not self.drivers:
            raise ValueError("lru_gen_bit goes with drivers")
        return self

    def is_for(self, situation: Situation) -> bool:
        """Whether cells in `situation` are among these."""
        return situation.mode in self.modes and situation.stage2_af in self.stage2_af


class ContractFile(_Model):
    """A series.yaml as it is written; what it leaves out is the base's."""

    kernel: Version
    message_id: MessageId | None = None
    base: str | None = None
    paths: Mapping[Name, AgingPath] = Field(default_factory=dict)
    drivers: Drivers = Drivers()
    access_faults: AccessFaults | None = None
    mmu_lock: MmuLock = MmuLock()
    aging_flushes: tuple[FlushRule, ...] | None = None
    stage2_af_file: AfFile | None = None
    variants: tuple[Variant, ...] = ()
    fast_path: FastPath | None = None
    counters: tuple[Counter, ...] = ()
    cost: tuple[CostPromise, ...] = ()
