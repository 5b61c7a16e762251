# SPDX-License-Identifier: GPL-2.0-only
"""What a series promises about page aging: which driver reaches KVM by which functions, and where.

docs/contract.md describes the file. A series without a contract is held to series/base.yaml, or to
the series/base-VERSION.yaml that is for its kernel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from harness.paths import PROJECT
from harness.yamlpos import load_yaml_model, problem_at

BASE = PROJECT / "series" / "base.yaml"

Mode = Literal["vhe", "nvhe", "protected"]
AfMode = Literal["hardware", "software"]
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

    @model_validator(mode="after")
    def _consistent(self) -> AgingPath:
        if self.pages == "each" and not self.enters:
            raise ValueError("a path that asks for pages must name the functions that it enters")
        if self.pages == "none" and self.enters:
            raise ValueError("a path that asks for no page cannot enter functions")
        if not self.enters and not self.never:
            raise ValueError("a path needs functions to observe")
        if both := _allowed(self) & set(self.never):
            raise ValueError(f"both entered and never entered: {', '.join(sorted(both))}")
        return self


class _Where(_Model):
    """Conditions on a situation; one that is not given always holds."""

    modes: tuple[Mode, ...] = get_args(Mode)
    stage1_af: AfMode | None = None
    stage2_af: AfMode | None = None


class Rule(_Where):
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


class LockRule(_Where):
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


class FlushRule(_Where):
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


class Counter(_Where):
    """A file in a VM's debugfs folder that counts the stage-2 leaves that aging made old.

    Where the conditions hold it counts each of them; everywhere else it stands still.
    """

    name: FileName


class CostPromise(_Where):
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
    modes: Annotated[tuple[Mode, ...], Field(min_length=1)]
    stage2_af: tuple[AfMode, ...] = get_args(AfMode)
    lru_gen_bit: Annotated[int, Field(gt=0, le=0x8000)] | None = None

    @model_validator(mode="after")
    def _bit_is_of_drivers(self) -> FastPath:
        # A path says who enters what whatever the bit is.
        if self.lru_gen_bit is not None and not self.drivers:
            raise ValueError("lru_gen_bit goes with drivers")
        return self


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


@dataclass(frozen=True)
class Situation:
    """What of a cell decides about aging.

    `stage1_af` is the host's own (FEAT_HAFDBS on all CPUs and CONFIG_ARM64_HW_AFDBM: bit 0x2 of
    lru_gen/enabled); `stage2_af` that of the guests (VTCR_EL2.HA on top of it).
    """

    mode: Mode
    stage1_af: AfMode
    stage2_af: AfMode


def situations() -> Iterator[Situation]:
    """All that exist: stage 2 is not managed by hardware that stage 1 lacks."""
    for mode in get_args(Mode):
        yield Situation(mode, "hardware", "hardware")
        yield Situation(mode, "hardware", "software")
        yield Situation(mode, "software", "software")


@dataclass(frozen=True)
class Expectation:
    """What must be seen while one driver ages the tested pages (of 4 KiB each) in one situation.

    Each step of `enters` is one function under names in order of preference: the first that
    stands in available_filter_functions is the evidence, none of them means unproven. No function
    of `never` may be entered; one that cannot be probed means unproven. `event` is the tracepoint
    whose addresses tell which pages KVM was asked for: each tested page (in events of one page),
    or, where `reaches_kvm` is false, none. It is None on a fast path, which the tracepoint of the
    base does not cover. `lru_gen_bit` must be set in lru_gen/enabled. `spares` is the rule's.
    Where there is one, what `otherwise` says will do as well. `fast_path` are the functions of the
    contract's fast path, each of which stands in `enters` or in `never`, unless the path has it
    as one that may be entered or not. Those of `never` that stand in `later` need not be in this
    kernel: what is not there cannot be entered.
    """

    reaches_kvm: bool
    enters: tuple[tuple[str, ...], ...]
    never: tuple[str, ...]
    event: str | None
    lru_gen_bit: int | None = None
    spares: Literal["young", "some"] = "young"
    otherwise: Expectation | None = None
    fast_path: tuple[str, ...] = ()
    later: tuple[str, ...] = ()

    @property
    def enters_fast_path(self) -> tuple[str, ...]:
        """Those of the fast path's functions that it enters."""
        return tuple(name for step in self.enters for name in step if name in self.fast_path)


@dataclass(frozen=True)
class Contract:
    """A series.yaml merged into the base: complete, each situation has exactly one path.

    `message_id` is that of the series' cover letter, and `base` says what it was posted against.
    With the first patches of a series alone, this is the contract of the base and `whole` that of
    the series: of the two, what either promises will do, as the methods tell.
    """

    kernel: str
    message_id: str | None
    base: str | None
    paths: Mapping[str, AgingPath]
    rules: Mapping[Driver, tuple[Rule, ...]]
    access_faults: AccessFaults
    mmu_lock: Mapping[Locker, tuple[LockRule, ...]]
    aging_flushes: tuple[FlushRule, ...]
    stage2_af_file: AfFile | None
    variants: tuple[Variant, ...]
    fast_path: FastPath | None
    counters: tuple[Counter, ...]
    cost: tuple[CostPromise, ...]
    whole: Contract | None = None

    @property
    def lru_gen_bit(self) -> int | None:
        """The bit of lru_gen/enabled that switches the fast path, if there is one."""
        return self.fast_path.lru_gen_bit if self.fast_path else None

    def applies_to(self, version: str) -> bool:
        """Whether it was written for this kernel version: "6.12" serves 6.12 and 6.12.117."""
        return version == self.kernel or version.startswith((f"{self.kernel}.", f"{self.kernel}-"))

    def expect(self, driver: Driver, situation: Situation, *, bit_off: bool = False) -> Expectation:
        """What `driver` must do in `situation`.

        With `bit_off` the bit of lru_gen/enabled that switches the fast path, if the series has
        one, is clear: then all go by the paths, and none enters the fast path.
        """
        own = self._expect(driver, situation, bit_off)
        if self.whole is None:
            return own
        return replace(own, otherwise=self.whole.expect(driver, situation, bit_off=bit_off))

    def _expect(self, driver: Driver, situation: Situation, bit_off: bool) -> Expectation:
        fast = self.fast_path
        functions = fast.functions if fast else ()
        rule = next(rule for rule in self.rules[driver] if _holds(rule, situation))
        off = bit_off and self.lru_gen_bit is not None
        if fast and driver in fast.drivers and _on_fast_path(fast, situation) and not off:
            steps = tuple((name,) for name in functions)
            bit, spares = fast.lru_gen_bit, rule.spares
            return Expectation(True, steps, (), None, bit, spares, fast_path=functions)
        path = self.paths[rule.path]
        allowed = _allowed(path)
        never = (*path.never, *(name for name in functions if name not in allowed))
        return Expectation(
            path.pages == "each", path.enters, never, path.event,
            spares=rule.spares, fast_path=functions,
        )  # fmt: skip

    def expect_nobody(self, *others: str, event: str | None) -> Expectation:
        """That no function of the fast path is entered, nor any of `others`.

        `event` tells that KVM is asked for no page at all; None where it may be by another path.
        """
        fast = (self.whole or self).fast_path
        functions = fast.functions if fast is not None else ()
        later = functions if self.whole is not None else ()
        never = (*others, *functions)
        return Expectation(False, (), never, event, fast_path=functions, later=later)

    def expect_counters(self, situation: Situation) -> dict[str, bool]:
        """Whether each of the series' counters counts in `situation`, by its name."""
        return {counter.name: _holds(counter, situation) for counter in self.counters}

    def expect_cost(self, situation: Situation) -> dict[CostMetric, str]:
        """What is promised of the cost in `situation`: "better" or "not-worse", by metric."""
        return {one.metric: one.promise for one in self.cost if _holds(one, situation)}

    def expect_mmu_lock(self, situation: Situation) -> dict[Locker, LockRule]:
        """How access faults and aging take the MMU lock, of what is promised."""
        own = {
            who: next(rule for rule in rules if _holds(rule, situation))
            for who, rules in self.mmu_lock.items()
        }
        if self.whole is None:
            return own
        whole = self.whole.expect_mmu_lock(situation)
        return {who: _either(own[who], whole[who]) for who in own if who in whole}

    def expect_flushes(self, situation: Situation) -> FlushRule | None:
        """How often aging may invalidate stage 2's TLB, None if nothing is promised."""
        own = next((rule for rule in self.aging_flushes if _holds(rule, situation)), None)
        if self.whole is None or own is None:
            return own
        whole = self.whole.expect_flushes(situation)
        return own if whole is not None and own.flushes == "each" else whole

    def expect_access_faults(self, situation: Situation) -> Literal["none", "touched"]:
        """For which pages a guest that touches aged pages takes access faults."""
        if situation.stage2_af == "hardware":
            return self.access_faults.hardware
        return self.access_faults.software


def base_for(version: str, folder: Path = BASE.parent) -> Path:
    """The contract of the kernel without a series that is nearest to a kernel version.

    That is the newest which is not newer than it, else the oldest: how aging works stays from one
    version to the next unless it is known to change.
    """
    found = sorted(
        (_numbers(load_yaml_model(path, ContractFile).kernel), path)
        for path in folder.glob("base*.yaml")
    )
    older = [path for kernel, path in found if kernel <= _numbers(version)]
    return older[-1] if older else found[0][1]


def _numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: (6, 12, 0) of "6.12.0-rc3"."""
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("-")[0]))


def load(path: Path | None, base: Path | None = None) -> Contract:
    """The contract in a series.yaml, or the base's own where a series has none.

    `base` is the one for the kernel that is tested; without it, the one for the kernel that the
    series.yaml was written for. UsageError names file, line and key of what is wrong; among it a
    situation for which a driver has no rule, or more than one, and a rule whose path is not
    described.
    """
    if path is None:
        ground = load_yaml_model(base or BASE, ContractFile)
        return _merge(ground, base or BASE, ground, base or BASE)
    own = load_yaml_model(path, ContractFile)
    base = base or base_for(own.kernel)
    return _merge(own, path, load_yaml_model(base, ContractFile), base)


def load_step(whole: Path, base: Path) -> Contract:
    """What holds with the first patches of a series alone, of which `whole` is the contract.

    UsageError as load() raises it.
    """
    return replace(load(None, base), whole=load(whole, base))


def _either(one: LockRule, other: LockRule) -> LockRule:
    """The lock as the one or the other rule has it taken: what the stronger allows."""
    stronger = max(one, other, key=lambda rule: get_args(Lock).index(rule.takes))
    return LockRule(
        takes=stronger.takes,
        always=one.always and other.always,
        visits=max(one.visits, other.visits),
    )


def _merge(own: ContractFile, own_path: Path, ground: ContractFile, base: Path) -> Contract:
    paths = {**ground.paths, **own.paths}
    rules: dict[Driver, tuple[Rule, ...]] = {}
    for driver in get_args(Driver):
        mine: tuple[Rule, ...] | None = getattr(own.drivers, driver)
        inherited: tuple[Rule, ...] | None = getattr(ground.drivers, driver)
        where = own_path if mine is not None else base
        rules[driver] = _complete(driver, mine if mine is not None else inherited, paths, where)
    locks: dict[Locker, tuple[LockRule, ...]] = {}
    for who in get_args(Locker):
        own_rules: tuple[LockRule, ...] | None = getattr(own.mmu_lock, who)
        where = own_path if own_rules is not None else base
        rules_of_lock = own_rules if own_rules is not None else getattr(ground.mmu_lock, who)
        if rules_of_lock is not None:
            _check_one_holds(("mmu_lock", who), rules_of_lock, where)
            locks[who] = rules_of_lock
    flushes, where = own.aging_flushes, own_path
    if flushes is None:
        flushes, where = ground.aging_flushes or (), base
    if flushes:
        _check_one_holds(("aging_flushes",), flushes, where)
    faults = own.access_faults or ground.access_faults
    if faults is None:
        raise problem_at(base, ("access_faults",), "missing, and the base must have it")
    for key, names in (
        ("variants", [variant.name for variant in own.variants]),
        ("counters", [counter.name for counter in own.counters]),
    ):
        for index, name in enumerate(names):
            if name in names[:index]:
                raise problem_at(own_path, (key, index, "name"), f"{name} is given twice")
    for situation in situations():
        held = [one.metric for one in own.cost if _holds(one, situation)]
        if twice := [metric for metric in held if held.count(metric) > 1]:
            words = f"{twice[0]} is promised twice for mode {situation.mode}"
            raise problem_at(own_path, ("cost",), words)
    if own.fast_path is not None:
        _check_excluded(own.fast_path, rules, paths, own_path)
    return Contract(
        kernel=own.kernel,
        message_id=own.message_id,
        base=own.base,
        paths=paths,
        rules=rules,
        access_faults=faults,
        mmu_lock=locks,
        aging_flushes=flushes,
        stage2_af_file=own.stage2_af_file,
        variants=own.variants,
        fast_path=own.fast_path,
        counters=own.counters,
        cost=own.cost,
    )


def _check_excluded(
    fast: FastPath,
    rules: Mapping[Driver, tuple[Rule, ...]],
    paths: Mapping[str, AgingPath],
    where: Path,
) -> None:
    """Refuse a contract that contradicts itself: a path into the fast path where there is none."""
    for driver, alternatives in rules.items():
        for situation in situations():
            rule = next(rule for rule in alternatives if _holds(rule, situation))
            inside = _allowed(paths[rule.path]) & set(fast.functions)
            if inside and not _on_fast_path(fast, situation):
                raise problem_at(
                    where,
                    ("fast_path",),
                    f"{driver} enters {', '.join(sorted(inside))} by path {rule.path!r} in mode "
                    f"{situation.mode}, stage2_af {situation.stage2_af}, where nothing may",
                )


def _allowed(path: AgingPath) -> set[str]:
    """The functions that this path enters, and those that it may."""
    return {*(name for step in path.enters for name in step), *path.may}


def _complete(
    driver: Driver, rules: tuple[Rule, ...] | None, paths: Mapping[str, AgingPath], where: Path
) -> tuple[Rule, ...]:
    if rules is None:
        raise problem_at(where, ("drivers", driver), "missing, and the base must have it")
    for index, rule in enumerate(rules):
        if rule.path not in paths:
            at = ("drivers", driver, index, "path")
            raise problem_at(where, at, f"no path of the name {rule.path!r}")
    _check_one_holds(("drivers", driver), rules, where)
    return rules


def _check_one_holds(at: tuple[str, ...], rules: Sequence[_Where], where: Path) -> None:
    """Refuse rules of which none holds in some situation, or more than one."""
    for situation in situations():
        number = sum(_holds(rule, situation) for rule in rules)
        if number != 1:
            raise problem_at(
                where,
                at,
                f"{number} rules instead of one for mode {situation.mode}, "
                f"stage1_af {situation.stage1_af}, stage2_af {situation.stage2_af}",
            )


def _holds(where: _Where, situation: Situation) -> bool:
    return (
        situation.mode in where.modes
        and where.stage1_af in (None, situation.stage1_af)
        and where.stage2_af in (None, situation.stage2_af)
    )


def _on_fast_path(fast: FastPath, situation: Situation) -> bool:
    return situation.mode in fast.modes and situation.stage2_af in fast.stage2_af
