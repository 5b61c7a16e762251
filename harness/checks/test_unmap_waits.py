# SPDX-License-Identifier: GPL-2.0-only
"""Pages of a VM are dropped while others of it are aged without a pause: no drop waits for long.

Memory is taken from a guest by whoever is short of it, and each page that is aged meanwhile may
hold that up (claim 11). A time says little of it, least of all under emulation, so agings are
counted: those that began when KVM was told of a drop already, and ended before stage 2 was rid of
the page. With a lock that is given in turn these are few: one is under way and comes first. Where
aging takes no lock, a drop does not even wait for that: it is over before the aging is. A probe
keeps the ager in each page for a fifth of a millisecond and more (emulated), so that many drops
come while one is being aged.

With PREEMPT_RT the MMU lock, a rwlock_t, is not given in turn: who takes the rt_mutex in it may do
so before a waiter of the same priority that has been woken already (rt_mutex_steal(),
kernel/locking/rtmutex.c). An ager that comes back at once may overtake a drop again and again then,
of a sound kernel too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.driver import situation
from harness.checks.idle_ager import ager
from harness.checks.overlap import (
    AGE_CALLBACK,
    AGE_WALK,
    UNMAP,
    UNMAP_BEGUN,
    UNMAPPED,
    Window,
    slot_range,
    windows,
)
from harness.checks.pages import populated
from harness.checks.racing import added, kept, not_widened
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import preempt
from harness.observe.trace import PROBE_FULL, Counts, Event, Wanted, returned, slowed_return
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

# The host has a table for each half, with a lock of its own, for which nobody shall wait here.
PAGES = 1024
AGED = range(16)
# Apart, so that each is a drop of its own.
DROPPED = range(PAGES // 2, PAGES, 4)
# Drops that must have come while a page was being aged, and how often all are dropped for that.
MEETINGS = 16
ROUNDS = 24
# Agings by one ager that may come first, besides the one that is under way: one that begins before
# the drop stands in the queue, and one to spare. More overtake a drop whose CPU is taken from it on
# its way there, which is no matter of the lock; so not each drop is held to it, but half of them.
MOST = 2

WANTED = Wanted(
    (UNMAP,),
    returns={AGE_CALLBACK: "", AGE_WALK: "", UNMAP_BEGUN: "", UNMAPPED: ""},
    # The next drop comes when the next page is being aged.
    slowed={AGE_CALLBACK: PROBE_FULL, UNMAPPED: PROBE_FULL // 2},
)


@dataclass(frozen=True)
class Waits:
    """What agings by others did to drops.

    `beside` are the drops that came while a page was being aged; of these, `late` the ones that
    more than MOST agings overtook, and `free` those that were over before that one was aged.
    """

    drops: int = 0
    beside: int = 0
    late: int = 0
    free: int = 0

    def __add__(self, other: Waits) -> Waits:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        return (
            f"{self.beside} of {self.drops} drops came while a page was being aged: {self.free} "
            f"did not wait for that, and more than {MOST} further agings overtook {self.late}"
        )


def walks(events: Iterable[Event]) -> tuple[Window, ...]:
    """From a thread's return from AGE_CALLBACK to that from AGE_WALK, of events in order.

    Who ages under a lock has it for all of that time.
    """
    begun: dict[int, Event] = {}
    found: list[Window] = []
    for event in events:
        if event.name == returned(AGE_CALLBACK):
            begun.setdefault(event.pid, event)
        elif first := begun.pop(event.pid, None):
            found.append(Window(event.pid, first.time, event.time, 0, 0))
    return tuple(found)


def waits(drops: Sequence[Window], ages: Sequence[Window]) -> Waits:
    """What the walks of others did to drops, each from its notice until stage 2 is rid of it."""
    beside = late = free = 0
    for drop in drops:
        others = [one for one in ages if one.pid != drop.pid]
        ends = [one.end for one in others if one.begin < drop.begin < one.end]
        if ends:
            overtook = sum(drop.begin <= one.begin and one.end <= drop.end for one in others)
            beside += 1
            late += overtook > MOST
            free += drop.end < max(ends)
    return Waits(len(drops), beside, late, free)


def in_trace(counts: Counts, vm: Guest) -> Waits:
    """What a recording shows; Unproven if it cannot show walks or drops."""
    start, end = slot_range(vm)
    spans = windows(counts.events(UNMAP), counts.events(returned(UNMAP_BEGUN)))
    drops = [one for one in spans if one.start_address < end and one.end_address > start]
    return waits(drops, walks(counts.in_order(returned(AGE_CALLBACK), returned(AGE_WALK))))


def check_waits(found: Waits, claim: Claim, *, lockless: bool, realtime: bool) -> None:
    """Assert that half of the drops waited their turn at most; if `lockless`, a fourth not at all.

    Unproven if too few drops came while a page was being aged. Of a kernel that is `realtime`
    whose turn it is cannot be judged, but where aging takes no lock.
    """
    if found.beside < MEETINGS:
        raise Unproven(f"too few drops came while a page was being aged: {found.words()}")
    in_turn = lockless or not realtime
    if not in_turn:
        claim.not_judged("how many agings overtake a drop: with PREEMPT_RT no lock goes in turn")
    assert not in_turn or 2 * found.late <= found.beside, (
        f"{found.late} of {found.beside} drops waited while more than {MOST} pages were aged that "
        "came after them"
    )
    if lockless:
        assert 4 * found.free >= found.beside, (
            f"{found.beside - found.free} of {found.beside} drops waited for the aging of a page"
        )


@pytest.mark.deep
def test_unmap_waits(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec, contract: Contract
) -> None:
    """A drop is overtaken by the agings under way at most, and not held up by lockless ones."""
    promise = contract.expect_mmu_lock(situation(cell)).get("aging")
    lockless = promise is not None and promise.takes == "none"
    free = ", and a drop does not wait for the aging that is under way" if lockless else ""
    claim.expect(
        f"{len(DROPPED)} pages are dropped one by one while another process ages {len(AGED)} "
        f"others of the VM without end, by page_idle ({cell.cell.kvm_mode}): no more than {MOST} "
        f"agings that begin later overtake half of the drops{free}"
    )
    several(shell, "nobody ages while another unmaps")
    vm = populated(guest(pages=PAGES))
    pfns = vm.pfns()
    found = Waits()
    with tracing(shell, WANTED) as session, ager(vm, shell, [pfns[page] for page in AGED]):
        for number in range(ROUNDS):
            _, counts = kept(
                session, claim, f"trace{number}.txt", partial(vm.advise, "dontneed", DROPPED)
            )
            found += in_trace(counts, vm)
            if found.beside >= MEETINGS:
                break
            vm.touch(DROPPED, write=False)
    not_widened(claim, session.absent, *map(slowed_return, WANTED.slowed))
    claim.observe(found.words())
    check_waits(found, claim, lockless=lockless, realtime=preempt.is_realtime(shell))
