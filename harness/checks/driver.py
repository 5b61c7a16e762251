# SPDX-License-Identifier: GPL-2.0-only
"""Hold one driver of aging to the contract: which functions it entered, for which pages.

Only the task that ages is judged: the functions of mm/ that it goes by (walk_pud_range(),
lru_gen_look_around()) are entered by kswapd and by whoever reclaims memory for himself, those of
KVM for other VMs, whatever a series does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePosixPath

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.mglru import AGER
from harness.checks.pages import shorten, show_set
from harness.contract import Contract, Expectation
from harness.contract_file import Driver
from harness.guest_replies import PAGE_SIZE, Slot
from harness.guests import PROGRAM, Guest
from harness.hosts.protocols import Shell
from harness.observe import lru_gen
from harness.observe.trace import (
    ACCESS_FAULT,
    Counts,
    Event,
    Wanted,
    address_range,
    asked_pages,
    by_tasks,
    pages_by_ipa,
)
from harness.observe.tracefs import Session
from harness.observe.unproven import Unproven
from harness.situation import Situation

# kvm-guest marks the pages of page_idle itself, and is one process with its vCPUs.
GUEST = PurePosixPath(PROGRAM).name
# Access faults of our guests: another VM has pages at the same IPA.
FAULTS = Wanted((ACCESS_FAULT,), filters={ACCESS_FAULT: by_tasks(GUEST)})
# The tasks that age, by their names (mm/khugepaged.c; mm/damon/core.c, the first of its threads).
# What is over memory.high reclaims for itself, on its way out of the kernel: the guest's, too.
OURS: Mapping[Driver, tuple[str, ...]] = {
    "page_idle": (GUEST,),
    "mglru_walk": (AGER,),
    "eviction": (AGER, GUEST),
    "eviction_blocks": (AGER, GUEST),
    "classic": (AGER, GUEST),
    "khugepaged": ("khugepaged",),
    "damon": ("kdamond.0",),
    "damon_check": ("kdamond.0",),
}


def wanted(expectation: Expectation, *drivers: Driver) -> Wanted:
    """What must be recorded to decide about an expectation, and guests' access faults with it.

    It is about what these drivers do, or about all tasks if none is named.
    """
    ours = tuple(dict.fromkeys(task for driver in drivers for task in OURS[driver]))
    events, functions, never = dict.fromkeys((ACCESS_FAULT,)), list[str](), list[str]()
    for one in either(expectation):
        events |= dict.fromkeys((one.event,) if one.event else ())
        functions += [*(name for step in one.enters for name in step), *one.never]
        never += one.never
    return Wanted(
        tuple(events),
        tuple(dict.fromkeys(functions)),
        filters={name: by_tasks(*ours) for name in events if ours}
        | {ACCESS_FAULT: by_tasks(GUEST)},
        # Of which there are none where all is right, and exactly theirs otherwise.
        entries=tuple(dict.fromkeys(never)) if ours else (),
        ours=ours,
    )


def describe(expectation: Expectation) -> str:
    """The expectation in words."""
    if not expectation.reaches_kvm:
        return f"asks KVM for no page; never enters {', '.join(expectation.never)}"
    steps = " -> ".join(step[0] for step in expectation.enters)
    never = f"; never enters {', '.join(expectation.never)}" if expectation.never else ""
    return f"asks KVM for every tested page by {steps}{never}"


def functions_only(expectation: Expectation) -> Expectation:
    """The expectation without its word on pages, for memory that is not aged by pages of 4 KiB."""
    otherwise = expectation.otherwise
    return replace(expectation, event=None, otherwise=otherwise and functions_only(otherwise))


def situation(cell: CellSpec) -> Situation:
    """What of this cell decides about aging."""
    return Situation(cell.cell.kvm_mode, cell.host.af, cell.cell.af_mode)


def expected(contract: Contract, driver: Driver, cell: CellSpec) -> Expectation:
    """What the contract says of a driver in this cell."""
    return contract.expect(driver, situation(cell))


def reaching(contract: Contract, driver: Driver, cell: CellSpec) -> Expectation:
    """The contract's word on a driver; skips the check where that does not reach KVM."""
    expectation = expected(contract, driver, cell)
    if not all(one.reaches_kvm for one in either(expectation)):
        pytest.skip(f"by the contract, {driver} asks KVM for nothing here")
    return expectation


def either(expectation: Expectation) -> tuple[Expectation, ...]:
    """The expectation, and what will do as well if there is such."""
    otherwise = expectation.otherwise
    return (expectation,) if otherwise is None else (expectation, otherwise)


def promised(
    contract: Contract, driver: Driver, cell: CellSpec, shell: Shell, claim: Claim
) -> Expectation:
    """What the contract says of a driver here; stated on the claim."""
    expectation = expected(contract, driver, cell)
    words = describe(expectation)
    if expectation.otherwise is not None:
        words += f", or else {describe(expectation.otherwise)}"
    claim.expect(
        f"{driver} {words} (host AF at stage 1 by {cell.host.af}, at stage 2 by "
        f"{cell.cell.af_mode}, {cell.cell.kvm_mode})"
    )
    if expectation.lru_gen_bit is not None:
        enabled = lru_gen.parse_enabled(shell.read(lru_gen.ENABLED))
        assert enabled & expectation.lru_gen_bit, f"lru_gen/enabled is {int(enabled):#06x}"
    return expectation


def check_path(
    claim: Claim,
    expectation: Expectation,
    session: Session,
    counts: Counts,
    vm: Guest | None,
    present: frozenset[int] | None = None,
    *,
    partly: bool = False,
) -> Expectation:
    """Assert that what was recorded is what the contract promises, and say what held.

    `vm` is needed where the path has an event for each page. `present` are the tested pages that
    KVM can be asked for, all if not given; `partly` if it need not be asked for each. Unproven
    where a function cannot be seen in this kernel or events were lost.
    """
    try:
        _check_path(claim, expectation, session, counts, vm, present, partly)
    except (AssertionError, Unproven) as exc:
        if expectation.otherwise is None:
            raise
        claim.observe(f"{exc}, as it was without the series; so it must be as with all of it")
        whole = expectation.otherwise
        return check_path(claim, whole, session, counts, vm, present, partly=partly)
    return expectation


def _check_path(
    claim: Claim,
    expectation: Expectation,
    session: Session,
    counts: Counts,
    vm: Guest | None,
    present: frozenset[int] | None,
    partly: bool,
) -> None:
    entered = []
    unseen: list[str] = []
    see_fast_path(claim, expectation.fast_path, counts)
    for step in expectation.enters:
        if (name := _visible(step, session)) is None:
            reasons = "; ".join(f"{name}: {session.absent[name]}" for name in step)
            unseen.append(f"no function of a step can be observed ({reasons})")
            continue
        number, others = counts.of(name), counts.of_others(name)
        entered.append(f"{name} {number}{_beside(others)}")
        if number <= 0 and others:
            unseen.append(f"{name} was entered {others} times, but by none of {_tasks(counts)}")
            continue
        assert number > 0, f"{name} was never entered; entered were: {', '.join(entered)}"
    claim.observe(f"entered: {', '.join(entered) or 'nothing'}")
    for name in expectation.never:
        if name in session.absent:
            if name not in expectation.later:
                unseen.append(f"{name} cannot be observed: {session.absent[name]}")
            continue
        number, others = counts.of(name), counts.of_others(name)
        if others:
            claim.observe(f"{name} was entered {others} times, by others than {_tasks(counts)}")
        assert number == 0, f"{name} was entered {number} times, and never must be here"
    if expectation.event is not None:
        if vm is None:
            raise TypeError("events for each page are those of a VM's pages")
        tested = frozenset(range(vm.slot.pages)) if present is None else present
        _check_pages(claim, expectation, counts, vm, tested, partly)
    # At the end: what is wrong outranks what cannot be seen.
    if unseen:
        raise Unproven("; ".join(unseen))


def see_fast_path(claim: Claim, functions: tuple[str, ...], counts: Counts) -> None:
    """Say whether a fast path of these functions was entered, whatever is right here.

    Nothing is said of one that cannot be seen whole, unless a part of it was entered.
    """
    seen = [_entered(counts, name) for name in functions]
    if any(seen):
        claim.fast_path = True
    elif seen and None not in seen:
        claim.fast_path = claim.fast_path or False


def _entered(counts: Counts, name: str) -> bool | None:
    """Whether a function was seen to be entered, by a task of ours; None if that is not told."""
    probe = counts.probes.get(name)
    if probe is None:
        return None
    try:
        return counts.of(name) > 0
    except Unproven:
        # Of all tasks' entries, those that were not missed are enough.
        return True if probe.hits and not counts.wanted.ours else None


def _beside(others: int) -> str:
    return f" and {others} by others" if others else ""


def _tasks(counts: Counts) -> str:
    return ", ".join(counts.wanted.ours)


def _visible(step: tuple[str, ...], session: Session) -> str | None:
    """The first of a step's names that this kernel can show, if there is one."""
    return next((name for name in step if name not in session.absent), None)


def _check_pages(
    claim: Claim,
    expectation: Expectation,
    counts: Counts,
    vm: Guest,
    present: frozenset[int],
    partly: bool,
) -> None:
    """The tested pages that KVM was asked for, by the host's virtual addresses of the event."""
    assert expectation.event is not None
    pages = vm.slot.pages
    events = counts.events(expectation.event)
    asked = asked_pages(events, vm.greeting.slot_hva, pages)
    expected = present if expectation.reaches_kvm else frozenset()
    claim.observe(f"{expectation.event} for {len(asked)} of {len(present)} tested pages")
    missing = frozenset() if partly else expected - asked
    assert not missing, f"KVM was not asked for {len(missing)} pages: {shorten(missing)}"
    extra = asked - expected
    assert not extra, f"KVM was asked for {len(extra)} pages: {shorten(extra)}"
    large = [event for event in events if _size(event) > PAGE_SIZE]
    several = sum(bool(asked_pages([event], vm.greeting.slot_hva, pages)) for event in large)
    assert not several, f"{several} events cover more than one page of 4 KiB"


def _size(event: Event) -> int:
    start, end = address_range(event)
    return end - start


def check_faults(
    claim: Claim, promised: str, counts: Counts, slot: Slot, touched: frozenset[int]
) -> None:
    """Assert that guests took access faults for exactly the pages that the contract names.

    Also tells who set the access flag: nobody but hardware can, where no fault is taken.
    """
    faulted = pages_by_ipa(counts.events(ACCESS_FAULT), slot.ipa, slot.pages)
    claim.observe(f"access faults for {len(faulted)} of {len(touched)} touched pages")
    if faulted in (frozenset(), touched):
        claim.af_observed = "software" if faulted else "hardware"
    expected = touched if promised == "touched" else frozenset()
    words = show_set(expected, faulted, "faulted")
    assert faulted == expected, f"access faults: {words}"
