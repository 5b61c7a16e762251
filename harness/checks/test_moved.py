# SPDX-License-Identifier: GPL-2.0-only
"""Memory that its owner moves to other addresses while a guest has it (claims 5 and 13).

mremap(2), or userfaultfd(2), moves entries, or whole tables, from some addresses of the owner to
others, and KVM knows a page by the first (move_page_tables() in mm/mremap.c,
move_hugetlb_page_tables() in mm/hugetlb.c, move_pages() in mm/userfaultfd.c). It is told of the old
addresses: a guest that keeps what it had there writes to memory that is its owner's alone now. With
MREMAP_DONTUNMAP no unmapping follows that would tell KVM once more; without it one does, and so
these variants tell less.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.pages import (
    aging_is_exact,
    leaves,
    mark_idle,
    on_lists,
    pick,
    require_huge,
    shorten,
    shows_stage2,
)
from harness.checks.skips import NO_MOVE, or_skip
from harness.guest_words import Backing, MoveHow
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

UNIT = 512
PAGES = 3 * UNIT
EVERYTHING = frozenset(range(PAGES))
# A whole table of the owner's, or a huge page, with others on either side.
MIDDLE = frozenset(range(UNIT, 2 * UNIT))
# Entries of a table that stays, in runs of so many.
RUNS, LONGEST = 4, 24
BARRED = 4


@dataclass(frozen=True)
class Move:
    """What is moved, and what the guest has in its place: new memory, or nothing."""

    backing: Backing
    how: MoveHow

    @property
    def leave(self) -> bool:
        """Whether new memory is in their place."""
        return self.how != "away"

    @property
    def small(self) -> bool:
        """Whether single pages of it can be moved, and can be aged, all alike."""
        return self.backing in ("anon", "memfd")


MOVES: Mapping[str, Move] = {
    "left-anon": Move("anon", "leave"),
    "left-thp": Move("thp", "leave"),
    "uffd-anon": Move("anon", "uffd"),
    "away-memfd": Move("memfd", "away"),
    "away-hugetlb": Move("hugetlb", "away"),
}


@pytest.mark.parametrize("move", grouped(MOVES, stress=["away-memfd", "away-hugetlb"]))
def test_moved(
    move: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """The guest has no page that its owner has moved away, and has it again when it is back."""
    how = MOVES[move]
    place = (
        "the guest reads zeroes there and what it writes comes to new memory"
        if how.leave
        else "its stores there end KVM_RUN"
    )
    claim.expect(
        f"pages of {how.backing} memory, some of them aged, are moved to other addresses of their "
        f"owner: no leaf shows them, those beside them stay as they are; {place}; what was moved "
        f"stays what it was, and is the guest's again when it is moved back (seed {cell.seed})"
    )
    vm = guest(backing=how.backing, pages=PAGES)
    dump = shows_stage2(vm, shell, claim, "what the guest reads and its owner has")
    vm.populate()
    _age_some(vm, how, rng)
    # Where a mapping is split, KVM is told for another reason (test_mprotect).
    moved = MIDDLE | (_runs(rng) if how.small and how.leave else frozenset())
    before = leaves(vm, shell, claim, "before") if dump else ()
    or_skip(
        lambda: vm.move(how.how, moved),
        NO_MOVE,
        f"this kernel has {NO_MOVE}: CONFIG_USERFAULTFD of Linux 6.8 can",
    )
    claim.observe(f"{len(moved)} of {PAGES} pages moved")
    if dump:
        _none_left(vm, shell, claim, moved, before, others=how.small)
    _use(vm, claim, rng, moved, how)
    vm.look_at_moved()
    vm.move_back()
    if dump and how.leave:
        _none_left(vm, shell, claim, moved)
    # kvm-guest compares what the guest reads with what the pages hold.
    vm.touch(EVERYTHING, write=False)
    vm.touch(EVERYTHING, write=True)
    vm.verify(EVERYTHING)
    if dump and how.small:
        on_lists(vm)
        aging_is_exact(vm, shell, claim, rng, "afterwards")


def _age_some(vm: Guest, how: Move, rng: random.Random) -> None:
    """Have pages that are young, and that are old, where they can be aged (hugetlb: on no list)."""
    if how.backing == "hugetlb":
        return
    on_lists(vm)
    if how.backing == "thp":
        require_huge(vm)
    mark_idle(vm)
    vm.touch(pick(rng, PAGES), write=False)


def _runs(rng: random.Random) -> frozenset[int]:
    """Some pages behind the middle, a few at a time, none of them beside it."""
    step = UNIT // RUNS
    return frozenset(
        2 * UNIT + number * step + 1 + page
        for number in range(RUNS)
        for page in range(rng.randint(1, LONGEST))
    )


def _none_left(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    moved: frozenset[int],
    before: tuple[stage2.Range, ...] = (),
    *,
    others: bool = False,
) -> None:
    """Assert that no leaf maps a page that was moved; with `others`, all others are as before.

    (Of huge pages the host may split some, or make some, whenever it likes.)
    """
    ipa = vm.slot.ipa
    after = leaves(vm, shell, claim, "moved" if before else "back")
    left = moved & stage2.mapped(after, ipa, PAGES)
    claim.observe(f"{len(left)} of these are mapped still")
    assert not left, f"{len(left)} pages are mapped that were moved: {shorten(left)}"
    if others:
        changed = stage2.differing(before, after, ipa, PAGES, af=True) - moved
        assert not changed, f"leaves of others changed: {shorten(changed)}"


def _use(vm: Guest, claim: Claim, rng: random.Random, moved: frozenset[int], how: Move) -> None:
    """Have the guest use the place of what was moved, and other pages."""
    if how.leave:
        vm.touch(EVERYTHING, write=False)
        vm.touch(pick(rng, PAGES), write=True)
        vm.touch(moved, write=False)
        vm.verify(EVERYTHING)
        return
    # Few, as each ends KVM_RUN.
    barred = frozenset(rng.sample(sorted(moved), BARRED))
    vm.touch(barred | pick(rng, PAGES) - moved, write=True)
    refused = vm.refused()
    claim.observe(f"{len(refused)} of {len(barred)} stores there refused")
    wrong = refused ^ barred
    assert not wrong, f"stores were refused or not, unlike the host's: {shorten(wrong)}"
