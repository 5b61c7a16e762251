# SPDX-License-Identifier: GPL-2.0-only
"""A block takes the place of a table while somebody ages the pages that the table maps.

Without a dirty log KVM maps huge memory by blocks; with one, a write takes its block apart and maps
one page, unless all of them were split when the log was switched on. The first fault of another
page when the log is off again makes it a block, and the table is freed in which an ager that holds
no MMU lock may still be (claim 5).

A third vCPU reads what the first writes, so that a block is young, or gets its access flag, while
it is taken apart. Who stores to an entry that has changed since it was loaded is found out: by a
WARN, if the entry was locked; by a table that is never freed, if it was there already (claim 4).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import ager
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    FAULT,
    SET_FLAGS,
    agings,
    by_address,
    meetings,
    walk_functions,
)
from harness.checks.pages import (
    mark_idle,
    old_pages,
    pick,
    populated,
    require_huge,
    shorten,
    whole_blocks,
    young_pages,
)
from harness.checks.racing import (
    added,
    apart,
    entries,
    fast_functions,
    kept,
    never_entered,
    not_widened,
)
from harness.checks.test_eager_split import split_eagerly
from harness.checks.test_split import age_and_touch
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list, stage2
from harness.observe.trace import Counts, Event, Wanted, slowed_entry
from harness.observe.tracefs import tracing

BLOCK = 512
PAGES = 2 * BLOCK
EVERYTHING = frozenset(range(PAGES))
ROUNDS = 12
# Ends the walk that frees a table which a block took the place of, whoever calls it and when.
FREE = "kvm_pgtable_stage2_free_unlinked"
# The fault status code in ESR_EL2 less its level, and what it is if only the access flag was
# clear (Arm ARM, D24.2.40, "DFSC").
LEVELS, ACCESS_FLAG = 0x3C, 0x08
# At most, until a fault has come at the right time.
RACES = 12
WRITER, JOINER, READER = 0, 1, 2
VCPUS = 3
# Who takes an entry away invalidates it between its two stores. With nVHE that is at EL2.
INVALIDATE = "__kvm_tlb_flush_vmid_ipa"
SLOWED = {AGE_CALLBACK: 8, SET_FLAGS: 24, INVALIDATE: 8}
# A block that was split whole has 512 entries, and an ager that is as slow at each holds the MMU
# lock for 40 ms: few agings, which whoever is to meet them waits for.
SLOWED_EAGERLY = SLOWED | {AGE_CALLBACK: 2}


@pytest.mark.deep
def test_race_join(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Blocks are split and joined under a guest while they are aged: nothing lost, no splat."""

    def start() -> Guest:
        return guest(backing="thp", pages=PAGES, vcpus=VCPUS)

    # Pages that were not written have no entry by then.
    _race(start, shell, claim, rng, cell, contract, joined_by="read", slowed=SLOWED)


@pytest.mark.stress
def test_race_eager_split(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """As test_race_join, where each block is split whole, in the place where an ager may be."""

    def start() -> Guest:
        return split_eagerly(guest, vcpus=VCPUS)

    # All pages have an entry, which is read-only unless they were written.
    _race(start, shell, claim, rng, cell, contract, joined_by="write", slowed=SLOWED_EAGERLY)


def _race(
    start: Callable[[], Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
    *,
    joined_by: Literal["read", "write"],
    slowed: Mapping[str, int],
) -> None:
    claim.expect(
        f"a dirty log is switched on and off {ROUNDS} times while one vCPU writes to some of "
        f"{PAGES} pages of huge memory, another reads those, one {joined_by}s the others and a "
        f"process ages them (seed {cell.seed}): the log names exactly what was written, no content "
        "lost, no splat, no table left when the VM is gone; aging is exact afterwards; tables were "
        "replaced by blocks, and faults that do that came while their block was aged"
    )
    baseline = tables.at_first(shell, claim)
    before = splats(shell)
    later = apart(rng)
    fast = fast_functions(contract, cell)
    entered = 0
    wanted = Wanted(
        events=(AGE, FAULT),
        functions=walk_functions(contract, FREE, SET_FLAGS, INVALIDATE),
        returns={AGED: ""},
        slowed=slowed,
    )
    vm = populated(start())
    require_huge(vm)
    last = cpu_list.last(shell)
    heads = [vm.pfns()[first] for first in range(0, PAGES, BLOCK)]
    met, evidence = Met(), Evidence()

    def rounds() -> frozenset[int]:
        written = pick(rng, PAGES, BLOCK // 8)
        with ager(vm, shell, heads):
            # The others are on another CPU.
            vm.pin(READER, last)
            vm.spin(written, write=True, vcpu=WRITER)
            vm.spin(written, write=False, vcpu=READER)
            for _ in range(ROUNDS):
                vm.dirty_log(True)
                # Each of its pages is written since then.
                vm.spin_wait(len(written), vcpu=WRITER)
                logged = vm.dirty()
                assert logged == written, f"logged are {shorten(logged)}, not {shorten(written)}"
                vm.dirty_log(False)
                vm.touch(EVERYTHING - written, write=joined_by == "write", vcpu=JOINER)
            vm.spin_stop(WRITER)
            vm.spin_stop(READER)
        return written

    with tracing(shell, wanted) as session:
        for number in range(RACES):
            written, counts = kept(session, claim, f"trace{number}.txt", rounds)
            met += evidence.read(partial(_met, counts, vm, written), Met())
            entered += entries(counts, fast)
            if met.together or evidence.unseen:
                break
    vm.verify(EVERYTHING)
    claim.observe(met.words())
    not_widened(claim, session.absent, *map(slowed_entry, slowed))
    if joined_by == "write":
        # A flush would split them as well, and make them young.
        vm.dirty_log(True)
        age_and_touch(vm, shell, claim, later, "split", logging=True)
    else:
        _exact_as_it_is(vm, shell, claim, later)
    assert_none_new(shell, claim, before)
    tables.assert_none_left(vm, shell, claim, baseline, cell.slowdown)
    evidence.prove("" if met.together else f"what should race did not meet: {met.words()}")
    evidence.prove(never_entered(fast, entered))


@dataclass(frozen=True)
class Met:
    """How often what should race did."""

    agings: int = 0
    freed: int = 0
    joins: int = 0
    together: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        return (
            f"{self.freed} tables freed, {self.agings} agings; {self.together} of "
            f"{self.joins} faults that make a block came while it was being aged"
        )


def _met(counts: Counts, vm: Guest, written: frozenset[int]) -> Met:
    spans = agings(counts)
    made = tuple(joins(counts.events(FAULT), vm, written))
    return Met(len(spans), counts.of(FREE), len(made), meetings(spans, made))


def joins(faults: Iterable[Event], vm: Guest, written: frozenset[int]) -> Iterator[Event]:
    """The faults that make blocks, with the host's address.

    They are those of pages that are touched when the log is off alone, but for access faults.
    """
    made = (fault for fault in faults if fault.fields["esr"] & LEVELS != ACCESS_FLAG)
    return by_address(made, vm, EVERYTHING - written)


def _exact_as_it_is(vm: Guest, shell: Shell, claim: Claim, rng: random.Random) -> None:
    """By blocks, or what is left of it by pages."""
    mark_idle(vm)
    aged = old_pages(vm, shell, claim)
    vm.flush()
    touched = pick(rng, PAGES, BLOCK)
    vm.touch(touched, write=False)
    young = (
        stage2.by_leaf(aged, vm.slot.ipa, PAGES, touched) if aged else whole_blocks(touched, BLOCK)
    )
    young_pages(vm, shell, claim, young)
