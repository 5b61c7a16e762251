# SPDX-License-Identifier: GPL-2.0-only
"""Two unmaps of a VM's pages under way at once, and guest accesses to the pages of the longer one.

Between the moment that KVM has unmapped a page and the one that the host has taken it away, a fault
finds it in the host's table still, and must not map it. KVM counts the unmaps that are under way
for that: one that ends must not end the others. The guest knows what must be in each of its words
(docs/guest-protocol.md, "A race"), so it knows a page that is mapped still although it is gone. To
make that time long, many pages before them go with the long drop, and a kprobe slows each down.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.evidence import Evidence
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    FAULT,
    TAKE,
    UNMAP,
    UNMAP_BEGUN,
    UNMAPPED,
    Window,
    by_address,
    meetings,
    slot_range,
)
from harness.checks.racing import SECONDS, added, kept, not_widened, show
from harness.deadline import Deadline
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, Event, Wanted, returned, slowed_entry
from harness.observe.tracefs import Session, tracing

# Few, so that a page that should not be there is soon touched.
PAGES = 16
# Pages before them that a long drop takes away first. The host has these in another table of its
# own, and so under another lock, all but the first page of the slot.
SKEW = 511
# One on each CPU that a race uses.
VCPUS = 2
# Each has four long drops. Few, as a debug kernel takes half a minute for eight on a busy machine.
ROUNDS = 4
# Races with other seeds until so many long drops were met, and the seconds after which no further
# one is begun.
MEETINGS = 16
RACES = 6
RACES_SECONDS = 30.0


@pytest.mark.deep
def test_race_two_drops(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """Of two unmaps at once none ends the other: no page is mapped that is gone; no splat."""
    claim.expect(
        f"{VCPUS} vCPUs that read and write {PAGES} random pages find what they wrote, or zero "
        "after a drop, while half of the pages and more are dropped at once, and single others "
        f"again and again (seed {cell.seed}); no splat; faults came to pages of a long drop when a "
        "short one had ended within it"
    )
    before = splats(shell)
    met, evidence = Met(), Evidence()
    wanted = Wanted(
        events=(UNMAP, FAULT),
        functions=(TAKE,),
        returns={UNMAP_BEGUN: "", UNMAPPED: ""},
        slowed={TAKE: 1},
    )
    with tracing(shell, wanted) as session:
        vm = guest(pages=PAGES, skew=SKEW, vcpus=VCPUS, timeout=SECONDS)
        limit = Deadline(RACES_SECONDS * cell.slowdown)
        for number in range(RACES):
            counts = _race(vm, session, claim, rng.randrange(1 << 31), number)
            more = evidence.read(partial(_met, counts, vm), Met())
            claim.observe(evidence.unseen or more.words())
            met += more
            if met.met >= MEETINGS or evidence.unseen or limit.expired():
                break
    not_widened(claim, session.absent, TAKE, slowed_entry(TAKE))
    assert_none_new(shell, claim, before)
    evidence.prove("" if met.met else f"what should race did not meet: {met.words()}")


@dataclass(frozen=True)
class Met:
    """How often what should race did.

    `long` unmaps are the opponent's, which begin before the slot; `beside` those within which one
    of a page behind it ended; `met` are the ones of which a page was faulted on after that,
    `faults` how often.
    """

    unmaps: int = 0
    long: int = 0
    beside: int = 0
    met: int = 0
    faults: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        return (
            f"{self.unmaps} unmaps, {self.long} of them long; one of a page behind it ended within "
            f"{self.beside} of these, and {self.faults} faults came to pages of {self.met} of them "
            "after that"
        )


def _race(vm: Guest, session: Session, claim: Claim, seed: int, number: int) -> Counts:
    """One race's trace; GuestDataLost if a vCPU read what it must not."""
    result, counts = kept(
        session,
        claim,
        f"trace{number}.txt",
        lambda: vm.race(seed, rounds=ROUNDS, agers=0, opponent="two-drops"),
    )
    claim.observe(f"race {seed}: {show(result)}")
    return counts


def _met(counts: Counts, vm: Guest) -> Met:
    events = counts.in_order(UNMAP, returned(UNMAP_BEGUN), returned(UNMAPPED))
    return met_in(events, counts.events(FAULT), vm)


def met_in(events: Iterable[Event], faults: Iterable[Event], vm: Guest) -> Met:
    """What met, by the events that unmaps() takes, and FAULT."""
    spans = unmaps(events, *slot_range(vm))
    first = vm.greeting.slot_hva - SKEW * PAGE_SIZE
    many = [span for span in spans if span.start_address == first]
    rests = [rest for span in many for rest in after_another(span, spans)]
    found = tuple(by_address(faults, vm, range(vm.slot.pages)))
    times = [meetings([rest], found) for rest in rests]
    return Met(len(spans), len(many), len(rests), sum(map(bool, times)), sum(times))


def unmaps(events: Iterable[Event], start: int, end: int) -> tuple[Window, ...]:
    """From when KVM has unmapped pages until they may be mapped again, as they end.

    `events` are UNMAP and the returns of UNMAP_BEGUN and UNMAPPED, in order of time; `start` and
    `end` are the host addresses of the memslot: KVM takes no part in what is unmapped elsewhere.
    """
    notices: dict[int, Event] = {}
    begun: dict[int, Window] = {}
    found: list[Window] = []
    for event in events:
        if event.name == UNMAP:
            notices[event.pid] = event
            # Its end was missed: a thread unmaps one thing after the other.
            begun.pop(event.pid, None)
        elif event.name == returned(UNMAP_BEGUN):
            if notice := notices.pop(event.pid, None):
                first, last = notice.fields["start"], notice.fields["end"]
                if first < end and last > start:
                    begun[event.pid] = Window(event.pid, event.time, event.time, first, last)
        elif window := begun.pop(event.pid, None):
            found.append(replace(window, end=event.time))
    return tuple(found)


def after_another(span: Window, spans: Iterable[Window]) -> tuple[Window, ...]:
    """What is left of an unmap once another thread's, of pages behind it, has ended within it."""
    ends = [
        one.end
        for one in spans
        if one.pid != span.pid
        and one.start_address >= span.end_address
        and span.begin < one.end < span.end
    ]
    return (replace(span, begin=min(ends)),) if ends else ()
