# SPDX-License-Identifier: GPL-2.0-only
"""When each opponent of a race is at stage 2, and what must be recorded to tell."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from harness.checks.overlap import (
    AGED,
    COMMITTED,
    FLUSH_SLOT,
    FREE_TABLES,
    MARK_DIRTY,
    PREPARED,
    RELEASE,
    TAKE,
    UNMAP,
    UNMAP_CALLBACK,
    UNMAP_WALK,
    UNMAPPED,
    Window,
    acts,
    agings,
    between,
    by_address,
    meetings,
    slot_range,
    stays,
    unmaps,
    windows,
)
from harness.guest_words import Opponent
from harness.guests import Guest
from harness.observe.trace import (
    ACCESS_FAULT,
    MARK,
    PROBE_FULL,
    Counts,
    Event,
    address_range,
    returned,
)

ENTER, LEAVE = "kvm:kvm_entry", "kvm:kvm_exit"
# How often a probe looks up a symbol where a window is to be wider: 0.1 ms under emulation.
SLOWLY = 8
# The same on what is entered for each page of a range while the MMU lock is held.
SLOWLY_EACH = 4

Spans = Callable[[Counts, Guest], tuple[Window, ...]]


@dataclass(frozen=True)
class Also:
    """Something else that must have come about: `words` and `none` tell of it.

    `number` counts it, given what was recorded, the guest, and where agings of its pages began.
    """

    number: Callable[[Counts, Guest, Iterable[Event]], int]
    words: str
    none: str


@dataclass(frozen=True)
class Opposition:
    """When an opponent is at stage 2: `spans` from what is recorded, `words` what they are.

    The rest is as in trace.Wanted; what is slowed is a function's entry, or its return if it is one
    of `returns`. `any_page`: an aging meets it by whichever of the tested pages.
    """

    words: str
    spans: Spans
    events: tuple[str, ...] = ()
    entries: tuple[str, ...] = ()
    returns: tuple[str, ...] = ()
    slowed: Mapping[str, int] = field(default_factory=dict)
    any_page: bool = False
    also: Also | None = None


def opposition(opponent: Opponent, *, faulting: bool) -> Opposition:
    """The opponent's; `faulting` says that access faults set AF, and that agings have an event."""
    return GUEST_FAULTING if opponent == "guest" and faulting else OPPOSITIONS[opponent]


def _acts(counts: Counts, vm: Guest) -> tuple[Window, ...]:
    return acts(counts.events(MARK))


def _in_guest(counts: Counts, vm: Guest) -> tuple[Window, ...]:
    return stays(counts.events(ENTER), counts.events(LEAVE), *slot_range(vm))


def _unmaps(counts: Counts, vm: Guest) -> tuple[Window, ...]:
    return unmaps(counts)


def _removals(counts: Counts, vm: Guest) -> tuple[Window, ...]:
    return _calls(counts, FLUSH_SLOT, vm)


def _releases(counts: Counts, vm: Guest) -> tuple[Window, ...]:
    return _calls(counts, RELEASE, vm)


def _calls(counts: Counts, function: str, vm: Guest) -> tuple[Window, ...]:
    return stays(counts.events(function), counts.events(returned(function)), *slot_range(vm))


def _faults_within_agings(counts: Counts, vm: Guest, ages: Iterable[Event]) -> int:
    pages = range(vm.slot.pages)
    return meetings(agings(counts), by_address(counts.events(ACCESS_FAULT), vm, pages))


def _agings_within_insertions(counts: Counts, vm: Guest, ages: Iterable[Event]) -> int:
    begins, ends = (counts.events(returned(name)) for name in (PREPARED, COMMITTED))
    return meetings(between(begins, ends, *slot_range(vm)), ages)


def _marked_within_reads(counts: Counts, vm: Guest, ages: Iterable[Event]) -> int:
    # Switching the log on waits for faults under way, which is no race for it.
    reads = acts(counts.events(MARK), log_reads=True)
    return meetings(reads, counts.events(returned(MARK_DIRTY)), Window.lasts)


def _changes_within_unmaps(counts: Counts, vm: Guest, ages: Iterable[Event]) -> int:
    drops = windows(of_all_pages(counts.events(UNMAP), vm), counts.events(returned(UNMAPPED)))
    return meetings(drops, [mark for mark in counts.events(MARK) if mark.fields["begins"]])


def of_any_page(events: Iterable[Event], vm: Guest) -> list[Event]:
    """Events that may be for whichever of the tested pages."""
    start, end = slot_range(vm)
    return [replace(event, fields={"start": start, "end": end}) for event in events]


def of_all_pages(unmaps: Iterable[Event], vm: Guest) -> list[Event]:
    """The unmaps of all tested pages at once: of one alone, it may be the page of zeroes."""
    whole = slot_range(vm)
    return [one for one in unmaps if address_range(one) == whole]


_GUEST = Opposition("stays of vCPUs in the guest", _in_guest, events=(ENTER, LEAVE))
# An access to an old page comes to KVM, which then looks for the entry that is being aged.
GUEST_FAULTING = replace(
    _GUEST,
    events=(ENTER, LEAVE, ACCESS_FAULT),
    returns=(AGED,),
    also=Also(
        _faults_within_agings,
        "access faults came to a page that was being aged",
        "no access fault came to a page that was being aged",
    ),
)
_UNMAPS = Opposition(
    "unmaps in stage 2",
    _unmaps,
    events=(UNMAP,),
    returns=(UNMAP_WALK,),
    slowed={UNMAP_CALLBACK: SLOWLY_EACH},
)
_REMOVALS = Opposition(
    "removals of the slot from stage 2",
    _removals,
    entries=(FLUSH_SLOT,),
    returns=(FLUSH_SLOT,),
    slowed={UNMAP_CALLBACK: SLOWLY_EACH},
)
OPPOSITIONS: Mapping[Opponent, Opposition] = {
    "guest": _GUEST,
    "dontneed": _UNMAPS,
    # page_idle passes over what is isolated from its LRU, as these pages are when they go. They go
    # one by one.
    "pageout": replace(_UNMAPS, any_page=True, slowed={UNMAP_CALLBACK: PROBE_FULL // 2}),
    "split": Opposition("tries to split", _acts),
    "dirty-log": Opposition(
        "reads and switches of the log",
        _acts,
        returns=(MARK_DIRTY,),
        # A fault stays for long where its page is marked: it must be mapped by then.
        slowed={MARK_DIRTY: SLOWLY},
        also=Also(
            _marked_within_reads,
            "write faults came to the dirty log while it was read",
            "no write fault came to the log while it was read",
        ),
    ),
    "slot-delete": _REMOVALS,
    "slot-move": _REMOVALS,
    "slot-flags": _REMOVALS,
    "slot-unmap": Opposition(
        "changes of the slot",
        _acts,
        events=(UNMAP,),
        returns=(UNMAPPED,),
        # A drop of a few pages takes longer than the slot is let wait for before it changes.
        slowed={TAKE: 2 * PROBE_FULL},
        also=Also(
            _changes_within_unmaps,
            "changes began while all of these pages were being unmapped",
            "no slot changed while its pages were being unmapped",
        ),
    ),
    "vms": Opposition(
        "ends of a VM's stage 2",
        _releases,
        entries=(RELEASE,),
        returns=(RELEASE, PREPARED, COMMITTED),
        slowed={FREE_TABLES: 8 * PROBE_FULL},
        also=Also(
            _agings_within_insertions,
            "agings began while a VM got a slot",
            "no aging began while a VM got a slot",
        ),
    ),
}
