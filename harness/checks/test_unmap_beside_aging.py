# SPDX-License-Identifier: GPL-2.0-only
"""Pages are unmapped while somebody else makes them old: what was taken away stays away.

An ager that stores to an entry which it loaded before the unmap brings back a page that the host
has given away; an unmap that passes over an entry since it is not what it was leaves one there.
Either way the guest reads what is no longer its own (claim 4). A probe keeps the one or the other
for milliseconds between its load and its store, page after page, and its opponent comes meanwhile.
The table of which the last entry goes must go then too: not under the ager that is in it (claim 5,
which KASAN tells), and not later because of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.idle_ager import beside, later, reached
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE_CALLBACK,
    UNMAP,
    UNMAP_CALLBACK,
    UNMAP_WALK,
    meetings,
    unmaps,
)
from harness.checks.pages import on_lists, require_huge
from harness.checks.pages import shorten as short
from harness.checks.racing import Shows, Tally, entering, entries, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import (
    PROBE_FULL,
    Counts,
    address_range,
    slowed_entry,
)
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# Half of them or all are dropped: who is kept is at each for two milliseconds and more under
# emulation, longer together than two processes need to get going. With all of a table the table
# goes as well, with half of it what is left there is seen.
PAGES = 32
SLOWED = 8 * PROBE_FULL
ROUNDS, ENOUGH = 16, 4
# In milliseconds, by turns: who comes second is to find the first at work, whatever either takes
# to get going.
AFTER = (8, 2, 32)


@dataclass(frozen=True)
class _Memory:
    """What the host has it as, in `parts` of so many pages that have one entry each."""

    backing: Backing
    parts: int
    size: int
    slowed: int

    @property
    def pages(self) -> int:
        """All of them."""
        return self.parts * self.size

    def ready(self, vm: Guest) -> None:
        """All is on the LRU lists, and of huge pages where it should be."""
        on_lists(vm)
        if self.size > 1:
            require_huge(vm)

    def read(self, vm: Guest) -> None:
        """The guest reads in each part, which is held to what must be there.

        Where a part was dropped a read would map the huge zero page, of which a later write may
        make small pages; so another page of the part is written first.
        """
        if self.size > 1:
            vm.touch(range(0, self.pages, self.size), write=True)
        vm.touch(range(self.size - 1, self.pages, self.size), write=False)


_SMALL = _Memory("anon", PAGES, 1, SLOWED)
# All of the blocks have one table, the one above the last level. Nobody comes to more than the one
# at which the ager is while all of them go, so it is kept there for longer.
_BLOCKS = _Memory("thp", 16, 512, 2 * SLOWED)


@pytest.mark.deep
def test_unmap_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A page that was dropped while it was being aged is gone, and the guest reads zero there."""
    _dropped(guest, shell, claim, cell, contract, _AGING, _SMALL)


@pytest.mark.deep
def test_unmap_blocks_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A block that was dropped while it was being aged is gone, and so is the table of all."""
    _dropped(guest, shell, claim, cell, contract, _AGING, _BLOCKS)


@pytest.mark.deep
def test_aged_while_unmapped(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A page that was aged while it was being dropped is gone, and the guest reads zero there."""
    _dropped(guest, shell, claim, cell, contract, _UNMAP, _SMALL)


def _into_aging(counts: Counts, shows: Shows, vm: Guest, gone: range) -> int:
    """How many unmaps of these pages came while one of them was aged."""
    start = vm.greeting.slot_hva
    whole = (start, start + len(gone) * PAGE_SIZE)
    drops = [one for one in counts.events(UNMAP) if address_range(one) == whole]
    return meetings(shows.lasting(counts, vm), drops)


def _into_unmap(counts: Counts, shows: Shows, vm: Guest, _: range) -> int:
    """1 if one of the pages, or more, began to be aged while they were unmapped, else 0."""
    return min(meetings(unmaps(counts), shows.agings(counts, vm)), 1)


@dataclass(frozen=True)
class _Slow:
    """Who takes long and comes first, so that the other comes meanwhile."""

    function: str
    """It is entered between its load of an entry and its store."""
    returns: tuple[str, ...]
    ager_first: bool
    met: Callable[[Counts, Shows, Guest, range], int]
    """How many drops met an aging, of a trace of one drop."""
    words: str


_AGING = _Slow(AGE_CALLBACK, (), True, _into_aging, "came while one of their pages was being aged")
_UNMAP = _Slow(
    UNMAP_CALLBACK,
    (UNMAP_WALK,),
    False,
    _into_unmap,
    "were under way when one of their pages was aged",
)


def _dropped(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
    slow: _Slow,
    memory: _Memory,
) -> None:
    by = entering(contract, cell)
    shows = Shows.of(contract, by, cell)
    half, what = memory.parts // 2, "pages" if memory.size == 1 else "blocks"
    claim.expect(
        f"{half} or {memory.parts} of {memory.parts} young {what} are aged by {by} and dropped at "
        f"the same time, by turns ({cell.cell.kvm_mode}): the guest reads zero in each of them, of "
        "a page that the host has, and in the others what it wrote; of all that were dropped no "
        f"table is left; no splat; drops {slow.words}"
    )
    several(shell, "nobody unmaps while another ages")
    before = splats(shell)
    wanted = shows.wanted(
        contract,
        slow.function,
        events=(UNMAP,),
        returns=slow.returns,
        slowed={slow.function: memory.slowed},
    )
    tally, entered = Tally(ENOUGH), 0
    first = tables.at_first(shell, claim)
    vm = guest(backing=memory.backing, pages=memory.pages)
    empty = None if first is None or tables.of_el2(shell, vm.vm_dir) else tables.count(shell)
    with reached(by, vm, shell), tracing(shell, wanted) as session:
        vm.populate()
        for number in range(ROUNDS):
            memory.ready(vm)
            gone = range((memory.parts if number % 2 else half) * memory.size)
            pfns = vm.pfns()
            frames = [pfns[page] for page in gone[:: memory.size]]
            wait = AFTER[number % len(AFTER)]
            # In milliseconds, of the ager and of the drop.
            waits = (0, wait) if slow.ager_first else (wait, 0)
            drop = partial(later, waits[1], partial(vm.advise, "dontneed", gone))
            with beside(vm, shell, frames, by, waits[0]) as both:
                _, counts = kept(session, claim, f"trace{number}.txt", partial(both, drop))
            if empty is not None and len(gone) == memory.pages:
                left = tables.above(shell, claim, empty, cell.slowdown)
                assert not left, f"all was dropped, and {left} pages of tables are left"
            memory.read(vm)
            # Of a huge page the last: where the host has none to give, hardly another is there.
            read = frozenset(range(memory.size - 1, memory.pages, memory.size))
            absent = read - vm.pfns().keys()
            assert not absent, f"the guest reads pages that the host does not have: {short(absent)}"
            entered += entries(counts, shows.fast)
            if tally.over(partial(slow.met, counts, shows, vm, gone)):
                break
            vm.touch(range(0, memory.pages, memory.size), write=True)
    not_widened(claim, session.absent, slowed_entry(slow.function))
    claim.observe(f"{tally.met} of {number + 1} drops {slow.words}")
    assert_none_new(shell, claim, before)
    tally.prove(f"none of the drops {slow.words}")
    if missing := never_entered(shows.fast, entered):
        raise Unproven(missing)
