# SPDX-License-Identifier: GPL-2.0-only
"""Memory that guests have by two ways: each way is aged, and a touch by either makes it young.

A page has one idle bit and one place on the LRU lists, but may have an access flag in two memslots
of a VM (KVM goes over all of those that hold its host address), in two VMs of a process (each with
an MMU notifier of its own), or behind two mappings (each found by the reverse map). At each of
these steps the answers of all have to be put together, and nobody may be left out once a page was
found young: what is left out stays young, or mapped when the page is gone. And of a request that is
for more than a memslot has, that slot alone is meant, not what the guest has next to it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import situation, wanted
from harness.checks.evicting import check_kept, leave_all_behind, what_stays
from harness.checks.flushes import check_flushed, requests, with_flushing
from harness.checks.groups import grouped
from harness.checks.idle_ager import age_huge_page
from harness.checks.mglru import Memcg, memcg_of, zram_swap
from harness.checks.pages import (
    idle_tells,
    mark_idle,
    pick,
    populated,
    require_huge,
    shorten,
    show_set,
    whole_blocks,
)
from harness.contract import Contract
from harness.contract_file import Driver
from harness.guest_words import Advice, Backing, Second
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.collect import dump_stage2
from harness.observe.trace import Counts
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

PAGES = 512
BLOCK = 512
BLOCKS = 8
EVERYTHING = frozenset(range(PAGES))
WAYS = ("first", "second")

# Pages, by the first way and by the second.
Both = tuple[frozenset[int], frozenset[int]]


@pytest.mark.deep
@pytest.mark.parametrize(
    ("second", "backing"), [("slot", "anon"), ("slot", "memfd"), ("vm", "anon")]
)
def test_second(
    second: Second,
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Both ways to a page are aged, asked and unmapped, whatever the first of them said."""
    claim.expect(
        f"{PAGES} pages ({backing}) by a second {second}: all old by both ways after aging by "
        "page_idle, then young by each way exactly those that were touched by it, and not idle "
        "those that were touched by any; old by both when aged again; what is unmapped is gone "
        f"from both (seed {cell.seed})"
        + ("; pages that a vCPU copies as it writes are the other's as well" * (backing == "anon"))
    )
    counting = contract.expect_counters(situation(cell))
    vm = populated(guest(backing=backing, pages=PAGES, vcpus=2, second=second))
    vm.touch(EVERYTHING, write=False, vcpu=1)
    with counted(vm, shell, claim, counting), _counted_second(vm, shell, claim, counting):
        mark_idle(vm)
    _expect_young(vm, shell, claim, "aged", (frozenset(), frozenset()))
    vm.flush()
    touched = pick(rng, PAGES), pick(rng, PAGES)
    _read(vm, touched)
    _expect_young(vm, shell, claim, "touched", touched)
    idle_tells(vm, claim, touched[0] | touched[1])
    # Of pages that are young by one way alone, by the other alone, by both.
    with counted(vm, shell, claim, counting), _counted_second(vm, shell, claim, counting):
        mark_idle(vm)
    _expect_young(vm, shell, claim, "aged again", (frozenset(), frozenset()))

    vm.touch(pick(rng, PAGES), write=True, vcpu=1)
    gone = pick(rng, PAGES)
    away: Advice = "remove" if backing == "memfd" else "dontneed"
    vm.advise(away, gone)
    for way, mapped, _ in _seen(vm, shell, claim, "unmapped"):
        left = mapped & gone
        claim.observe(f"unmapped: {len(mapped)} pages by the {way} way")
        assert not left, f"{len(left)} are mapped by the {way} way still: {shorten(left)}"
        lost = EVERYTHING - gone - mapped
        assert not lost, f"{len(lost)} others are mapped by the {way} way no more: {shorten(lost)}"
    # Each load is held to what was last written by any way, or to zero.
    _read(vm, (EVERYTHING, EVERYTHING))
    vm.verify(EVERYTHING)
    if backing == "anon":
        _copy(vm)


def _copy(vm: Guest) -> None:
    """Have each vCPU write to pages that a child of the owner has as well, and the other one read.

    The vCPU's own thread makes each copy then, and tells all VMs that the page goes: it invalidates
    what another VM has cached in the middle of its own KVM_RUN, and has to come back from that. The
    VM that was made last is told first.
    """
    vm.snapshot()
    _read(vm, (EVERYTHING, EVERYTHING))
    for vcpu, pages in enumerate(
        (frozenset(range(PAGES // 2)), frozenset(range(PAGES // 2, PAGES)))
    ):
        vm.touch(pages, write=True, vcpu=vcpu)
        vm.touch(pages, write=False, vcpu=1 - vcpu)
    vm.verify(EVERYTHING)
    vm.look_at_snapshot()
    vm.drop_snapshot()


@pytest.mark.deep
def test_adjacent(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """A request that goes beyond a memslot ends at the slot, where another begins at once."""
    skew = rng.randrange(1, BLOCK)
    pages = 2 * BLOCK
    claim.expect(
        f"{pages} pages of huge memory from page {skew} of one on, in two memslots of which one is "
        "directly above the other: of each huge page that is aged alone, old are by both ways "
        f"exactly those pages of it that are the slots' (seed {cell.seed})"
    )
    vm = populated(guest(backing="thp", pages=pages, skew=skew, vcpus=2, second="above"))
    vm.touch(range(pages), write=False, vcpu=1)
    require_huge(vm)
    everything = frozenset(range(pages))
    mark_idle(vm)
    for unit in range(pages // BLOCK + 1):
        part = frozenset(page for page in everything if (page + skew) // BLOCK == unit)
        vm.flush()
        _read(vm, (everything, everything))
        _expect_young(vm, shell, claim, f"before-{unit}", (everything, everything))
        age_huge_page(vm, shell, part, skew)
        rest = everything - part
        _expect_young(vm, shell, claim, f"aged-{unit}", (rest, rest))
    vm.verify(everything)


@pytest.mark.parametrize(
    ("second", "backing"),
    grouped(
        [("slot", "anon"), ("slot", "memfd"), ("vm", "memfd"), ("slot", "thp"), ("vm", "thp")],
        stress=[("vm", "memfd")],
    ),
)
def test_second_evicted(
    second: Second,
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Eviction keeps what was touched by any way, takes all else, and takes it from both."""
    # A huge page is asked about by a notifier of its own, and goes or stays whole.
    unit = BLOCK if backing == "thp" else 1
    pages = BLOCKS * BLOCK if backing == "thp" else PAGES
    everything = frozenset(range(pages))
    driver: Driver = "eviction_blocks" if backing == "thp" else "eviction"
    eviction = contract.expect(driver, situation(cell))
    flushes = backing == "thp"
    claim.expect(
        f"{pages} pages ({backing}) by a second {second}, all old: eviction takes all of which "
        f"nothing was touched by either way, and {what_stays(eviction)}, in units of {unit}, and "
        f"takes them from both (seed {cell.seed})"
        + (
            "; of each young one that it asks about, the TLB is invalidated when both are old"
            * flushes
        )
    )
    vm = guest(backing=backing, pages=pages, vcpus=2, second=second)
    with zram_swap(shell), memcg_of(vm, shell) as memcg:
        populated(vm)
        vm.touch(everything, write=False, vcpu=1)
        if backing == "thp":
            require_huge(vm)
        # Linux 7.3 takes a page that was used once (LRU_REFS_FLAGS, include/linux/mmzone.h); from
        # the second use that the walk sees on, which is this one, it has PG_workingset.
        memcg.walk()
        # By both ways.
        leave_all_behind(vm, shell, memcg)
        touched = by_each_way(rng, pages, unit)
        _read(vm, touched)
        recorded = with_flushing(wanted(eviction, driver))
        with (
            tracing(shell, recorded) if flushes else nullcontext() as session,
            requests(vm, shell) as requested,
        ):
            counts = _evict(memcg, pages, session)
        kept = frozenset(vm.pfns())
        expected = whole_blocks(touched[0] | touched[1], unit)
        claim.observe(
            f"touched {len(touched[0])} and {len(touched[1])}; {pages - len(kept)} evicted"
        )
        check_kept(eviction, kept, expected)
        if counts is not None:
            claim.save("trace.txt", counts.raw)
            # Of two VMs each has a counter of its own, and who asks is not told which it was.
            alone = requested() if second == "slot" else None
            check_flushed(claim, vm, shell, counts, alone)
        for way, mapped, _ in _seen(vm, shell, claim, "evicted"):
            left = mapped - kept
            assert not left, f"{len(left)} are mapped by the {way} way still: {shorten(left)}"
        _read(vm, (everything, everything))
        vm.verify(everything)


def _evict(memcg: Memcg, pages: int, session: Session | None) -> Counts | None:
    """Have so many pages evicted, and what was recorded meanwhile, if it is."""
    if session is None:
        memcg.evict(pages)
        return None
    session.start()
    memcg.evict(pages)
    return session.stop()


def by_each_way(rng: random.Random, pages: int, unit: int) -> Both:
    """Pages in units that are touched by the first way alone, by the second alone, by both."""
    units = rng.sample(range(pages // unit), pages // unit)
    quarter = len(units) // 4
    both, first, second = (units[at * quarter : (at + 1) * quarter] for at in range(3))

    def some(chosen: list[int]) -> frozenset[int]:
        return frozenset(at * unit + rng.randrange(unit) for at in chosen)

    return some(both + first), some(both + second)


def _read(vm: Guest, both: Both) -> None:
    """Have the guest read pages by the first way and pages by the second."""
    for vcpu, pages in enumerate(both):
        vm.touch(pages, write=False, vcpu=vcpu)


def _seen(
    vm: Guest, shell: Shell, claim: Claim, name: str
) -> list[tuple[str, frozenset[int], frozenset[int]]]:
    """For each way its name, the pages that stage 2 maps by it and those that are young."""
    seen = []
    places = ((vm.vm_dir, vm.slot), (vm.second_dir, vm.second_slot))
    for way, (folder, slot) in zip(WAYS, places, strict=True):
        dump = dump_stage2(shell, folder)
        claim.save(f"stage2-{name.replace(' ', '-')}-{way}.txt", dump.raw)
        where = dump.ranges, slot.ipa, slot.pages
        seen.append((way, stage2.mapped(*where), stage2.young(*where)))
    return seen


def _counted_second(
    vm: Guest, shell: Shell, claim: Claim, counting: Mapping[str, bool]
) -> AbstractContextManager[None]:
    """counted() for the second VM, if that is the second way: it counts what is its own."""
    if vm.second_dir == vm.vm_dir:
        return nullcontext()
    return counted(vm, shell, claim, counting, second=True)


def _expect_young(vm: Guest, shell: Shell, claim: Claim, name: str, expected: Both) -> None:
    """Assert that exactly these pages are young by the first way and by the second."""
    seen = _seen(vm, shell, claim, name)
    for way, mapped, _ in seen:
        if len(mapped) != vm.slot.pages:
            raise Unproven(f"{len(mapped)} of {vm.slot.pages} pages are mapped by the {way} way")
    for (way, _, young), pages in zip(seen, expected, strict=True):
        words = f"{name}, by the {way} way: {show_set(pages, young)}"
        claim.observe(words)
        assert young == pages, words
