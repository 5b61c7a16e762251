# SPDX-License-Identifier: GPL-2.0-only
"""Aging by DAMON, the only driver of aging for hugetlb (claims 8, 10 and 14).

Pages of hugetlb are on no LRU list: page_idle passes them over, and MGLRU's walk leaves out their
mappings. DAMON goes by virtual addresses and ages what lies there, whatever it is. It asks KVM for
a page's size from the sampled address on, which lies within the page, so that the request reaches
into the next page (Linux 6.12). What it asked for is recorded, and KVM is held to that: these
leaves are old, all others are as they were. Then DAMON asks for each sample whether it was
accessed: to ask is not to age (see test_young), and the answer must be right. The addresses are
DAMON's own random choice; the seed of the run decides only which pages are sampled.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.cell import CellSpec
from harness.checks import damon
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import GUEST, check_path, functions_only, promised, situation, wanted
from harness.checks.mglru import AGER, memcg_of
from harness.checks.overlap import AGE, TEST
from harness.checks.pages import (
    af_alone,
    leaves,
    populated,
    shorten,
    show_set,
)
from harness.contract import Contract, Expectation
from harness.guest_replies import PAGE_SIZE
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Counts, Event, Wanted, asked_pages, by_tasks, merged
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

BLOCK = 512
PAGES = {"anon": 128, "thp": 8 * BLOCK, "hugetlb": 8 * BLOCK}


@dataclass(frozen=True)
class Layout:
    """A slot's memory in units of one size, those of the host: pages or huge pages.

    `base` is the host address where the first of them begins, with a skew before the slot does.
    """

    base: int
    size: int
    number: int

    def unit(self, address: int) -> int:
        """The unit that holds an address."""
        return (address - self.base) // self.size


@pytest.mark.deep
@pytest.mark.parametrize(
    ("backing", "skewed"),
    [("anon", False), ("thp", False), ("hugetlb", False), ("hugetlb", True)],
    ids=["anon", "thp", "hugetlb", "hugetlb-skew"],
)
def test_damon(
    backing: Backing,
    skewed: bool,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """DAMON ages exactly what it asks KVM for, and is told exactly what was accessed since."""
    age = promised(contract, "damon", cell, shell, claim)
    look = promised(contract, "damon_check", cell, shell, claim)
    claim.expect(
        f"DAMON asks KVM once for each of its samples by {_steps(age)}; old are then exactly the "
        f"leaves that it asked for. Later it asks about each sample by {_steps(look)}, and is told "
        f"of exactly those whose leaf is young, none of which is made old by that ({_where(cell)})"
    )
    if (age.event, look.event) != (AGE, TEST):
        raise Unproven(f"the contract does not have DAMON's requests seen by {AGE} and {TEST}")
    pages, size = PAGES[backing], 1 if backing == "anon" else BLOCK
    skew = rng.randrange(1, BLOCK) if skewed else 0
    vm = _filled(guest(backing=backing, pages=pages, skew=skew), shell, claim, skew)
    base = vm.greeting.slot_hva - skew * PAGE_SIZE
    layout = Layout(base, size * PAGE_SIZE, -(-(pages + skew) // size))
    sampled = sorted(rng.sample(range(layout.number), layout.number // 2))
    starts = [layout.base + unit * layout.size for unit in sampled]
    plain = (wanted(age, "damon"), wanted(look, "damon_check"))
    recorded = merged(*plain, Wanted((damon.AGGREGATED,)))
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(tracing(shell, recorded))
        before = leaves(vm, shell, claim, "before")
        with counted(vm, shell, claim, contract.expect_counters(situation(cell))):
            session.start()
            finish = stack.enter_context(
                damon.sampling(shell, vm.greeting.pid, starts, layout.size, cell.slowdown)
            )
            aging = session.stop()
        claim.save("trace-aging.txt", aging.raw)
        # By pages of 4 KiB the contract can say nothing here.
        check_path(claim, functions_only(age), session, aging, vm)
        aged = leaves(vm, shell, claim, "aged")
        _check_aged(vm, claim, before, aged, layout, sampled, aging.events(AGE))

        vm.flush()
        touched = _some(rng, layout, sampled, vm, whole=skewed)
        vm.touch(touched, write=False)
        ready = leaves(vm, shell, claim, "touched")
        session.start()
        finish()
        looking = session.stop()
        claim.save("trace-looking.txt", looking.raw)
        check_path(claim, functions_only(look), session, looking, vm)
        _check_answers(vm, claim, ready, layout, sampled, touched, looking)
        changed = stage2.differing(
            ready, leaves(vm, shell, claim, "looked"), vm.slot.ipa, pages, af=True
        )
        claim.observe(f"to ask changed {len(changed)} pages of stage 2")
        assert not changed, f"to ask changed {len(changed)} pages of stage 2: {shorten(changed)}"
    vm.verify(range(pages))


def _steps(expectation: Expectation) -> str:
    return " -> ".join(step[0] for step in expectation.enters)


def _where(cell: CellSpec) -> str:
    return f"stage-2 AF by {cell.cell.af_mode}, {cell.cell.kvm_mode}, seed {cell.seed}"


def _filled(vm: Guest, shell: Shell, claim: Claim, skew: int) -> Guest:
    """All pages in stage 2: by blocks where the host's are huge, unless the slot is skewed."""
    pages, backing = vm.slot.pages, vm.greeting.backing
    if backing == "hugetlb":
        vm.populate()
    else:
        populated(vm)
    blocks = len(stage2.blocks(leaves(vm, shell, claim, "populated"), vm.slot.ipa, pages))
    if blocks != (0 if backing == "anon" or skew else pages):
        raise Unproven(f"stage 2 maps {blocks} of {pages} pages of {backing} memory by blocks")
    claim.observe(f"{blocks} of {pages} pages in blocks")
    return vm


def _some(
    rng: random.Random, layout: Layout, sampled: list[int], vm: Guest, *, whole: bool
) -> frozenset[int]:
    """Pages of half of the sampled units and of half of the others: one of each unit, or all."""
    others = [unit for unit in range(layout.number) if unit not in sampled]
    units = {*rng.sample(sampled, len(sampled) // 2), *rng.sample(others, len(others) // 2)}
    hva = vm.greeting.slot_hva
    inside = [
        [page for page in range(vm.slot.pages) if layout.unit(hva + page * PAGE_SIZE) == unit]
        for unit in sorted(units)
    ]
    return frozenset(page for part in inside for page in (part if whole else [rng.choice(part)]))


def _check_aged(
    vm: Guest,
    claim: Claim,
    before: tuple[stage2.Range, ...],
    aged: tuple[stage2.Range, ...],
    layout: Layout,
    sampled: list[int],
    events: tuple[Event, ...],
) -> None:
    """Assert one request for each region, and that just what they ask for was made old."""
    pages, ipa = vm.slot.pages, vm.slot.ipa
    units = sorted(layout.unit(event.fields["start"]) for event in events)
    assert units == sampled, f"samples in {len(units)} units of memory, {len(sampled)} expected"
    asked = stage2.by_leaf(aged, ipa, pages, asked_pages(events, vm.greeting.slot_hva, pages))
    young = stage2.young(before, ipa, pages)
    if len(young) != pages:
        raise Unproven(f"{len(young)} of {pages} pages are young before any aging")
    hva = vm.greeting.slot_hva
    beyond = sum(layout.unit(hva + page * PAGE_SIZE) not in sampled for page in asked)
    claim.observe(
        f"KVM was asked once for each of {len(sampled)} of {layout.number} units of memory: for "
        f"{len(asked)} pages, {beyond} of them in units that were not sampled"
    )
    seen = stage2.young(aged, ipa, pages)
    claim.observe(f"then {show_set(young - asked, seen)}")
    assert seen == young - asked, f"after aging: {show_set(young - asked, seen)}"
    af_alone(vm, before, aged)


def _check_answers(
    vm: Guest,
    claim: Claim,
    ranges: tuple[stage2.Range, ...],
    layout: Layout,
    sampled: list[int],
    touched: frozenset[int],
    looking: Counts,
) -> None:
    """Assert that DAMON counts an access for just the samples whose leaf in stage 2 is young."""
    hva = vm.greeting.slot_hva
    young = stage2.young(ranges, vm.slot.ipa, vm.slot.pages)
    addresses = [event.fields["hva"] for event in looking.events(TEST)]
    asked = {layout.unit(address): address for address in addresses}
    claim.observe(f"then KVM was asked about {len(asked)} of {len(sampled)} samples")
    stray = asked.keys() - set(sampled)
    assert not stray, f"KVM was asked about {len(stray)} units of memory without a sample"
    assert len(addresses) == len(asked), f"KVM was asked {len(addresses)} times"
    # Of what the host itself knows to be accessed, KVM need not be asked.
    by_host = {layout.unit(hva + page * PAGE_SIZE) for page in touched}
    unasked = set(sampled) - asked.keys() - by_host
    assert not unasked, f"KVM was not asked about {len(unasked)} samples that nobody touched"
    regions = damon.results(looking.events(damon.AGGREGATED))
    found = {layout.unit(region.start): bool(region.accesses) for region in regions}
    if sorted(found) != sampled or any(one.end - one.start != layout.size for one in regions):
        raise Unproven(f"DAMON tells of {len(regions)} regions, not of those it was given")
    expected = {
        unit: unit not in asked or (asked[unit] - hva) // PAGE_SIZE in young for unit in sampled
    }
    claim.observe(
        f"it found {sum(found.values())} accessed, {sum(expected.values())} have a young leaf"
    )
    wrong = {unit for unit in sampled if found[unit] != expected[unit]}
    assert not wrong, f"the answer is wrong for {len(wrong)} samples: {sorted(wrong)[:8]}"


@pytest.mark.deep
def test_hugetlb_off_lru(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec
) -> None:
    """Neither page_idle nor MGLRU's walk ages hugetlb, and neither asks KVM for it."""
    pages = PAGES["hugetlb"]
    claim.expect(
        f"none of {pages} pages of hugetlb is on an LRU list; page_idle marks none, MGLRU walks "
        f"past them, KVM is asked for none, stage 2 stays as it is ({cell.cell.kvm_mode})"
    )
    vm = guest(backing="hugetlb", pages=pages)
    with (
        memcg_of(vm, shell) as memcg,
        tracing(shell, Wanted((AGE,), filters={AGE: by_tasks(GUEST, AGER)})) as session,
    ):
        _filled(vm, shell, claim, 0)
        vm.drain()
        flags = vm.flags()
        claim.observe(f"{flags['huge']} pages of hugetlb, {flags['lru']} on an LRU list")
        if flags["huge"] != pages or flags["lru"]:
            raise Unproven("the memory is not what it should be")
        before = leaves(vm, shell, claim, "before")
        session.start()
        mark = vm.idle_mark()
        memcg.walk()
        counts = session.stop()
        after = leaves(vm, shell, claim, "after")
    claim.save("trace.txt", counts.raw)
    asked = asked_pages(counts.events(AGE), vm.greeting.slot_hva, pages)
    claim.observe(f"page_idle passed over {len(mark.unmarked)}; KVM asked for {len(asked)}")
    assert len(mark.unmarked) == pages, f"page_idle marked {mark.marked} pages of hugetlb"
    assert not asked, f"KVM was asked for {len(asked)} pages that are on no list"
    changed = stage2.differing(before, after, vm.slot.ipa, pages, af=True)
    assert not changed, f"stage 2 changed in {len(changed)} pages"
