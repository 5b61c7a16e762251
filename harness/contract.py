# SPDX-License-Identifier: GPL-2.0-only
"""What a series promises about page aging: which driver reaches KVM by which functions, and where.

Pure: harness/contract_load.py reads it from a series.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from harness.contract_file import (
    AccessFaults,
    AfFile,
    AgingPath,
    CostMetric,
    CostPromise,
    Counter,
    Driver,
    FastPath,
    FlushRule,
    Lock,
    Locker,
    LockRule,
    Rule,
    Variant,
)
from harness.situation import Situation


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
        rule = next(rule for rule in self.rules[driver] if rule.holds(situation))
        off = bit_off and self.lru_gen_bit is not None
        if fast and driver in fast.drivers and fast.is_for(situation) and not off:
            steps = tuple((name,) for name in functions)
            bit, spares = fast.lru_gen_bit, rule.spares
            return Expectation(True, steps, (), None, bit, spares, fast_path=functions)
        path = self.paths[rule.path]
        allowed = path.allowed
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
        return {counter.name: counter.holds(situation) for counter in self.counters}

    def expect_cost(self, situation: Situation) -> dict[CostMetric, str]:
        """What is promised of the cost in `situation`: "better" or "not-worse", by metric."""
        return {one.metric: one.promise for one in self.cost if one.holds(situation)}

    def expect_mmu_lock(self, situation: Situation) -> dict[Locker, LockRule]:
        """How access faults and aging take the MMU lock, of what is promised."""
        own = {
            who: next(rule for rule in rules if rule.holds(situation))
            for who, rules in self.mmu_lock.items()
        }
        if self.whole is None:
            return own
        whole = self.whole.expect_mmu_lock(situation)
        return {who: _either(own[who], whole[who]) for who in own if who in whole}

    def expect_flushes(self, situation: Situation) -> FlushRule | None:
        """How often aging may invalidate stage 2's TLB, None if nothing is promised."""
        own = next((rule for rule in self.aging_flushes if rule.holds(situation)), None)
        if self.whole is None or own is None:
            return own
        whole = self.whole.expect_flushes(situation)
        return own if whole is not None and own.flushes == "each" else whole

    def expect_access_faults(self, situation: Situation) -> Literal["none", "touched"]:
        """For which pages a guest that touches aged pages takes access faults."""
        if situation.stage2_af == "hardware":
            return self.access_faults.hardware
        return self.access_faults.software


def _either(one: LockRule, other: LockRule) -> LockRule:
    """The lock as the one or the other rule has it taken: what the stronger allows."""
    stronger = max(one, other, key=lambda rule: get_args(Lock).index(rule.takes))
    return LockRule(
        takes=stronger.takes,
        always=one.always and other.always,
        visits=max(one.visits, other.visits),
    )
