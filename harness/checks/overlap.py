# SPDX-License-Identifier: GPL-2.0-only
"""Whether things that were meant to race did meet, told from a trace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, replace

from harness.contract import Contract
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.observe.trace import Counts, Event, address_range, returned

AGE = "kvm:kvm_age_hva"
TEST = "kvm:kvm_test_age_hva"
UNMAP = "kvm:kvm_unmap_hva_range"
# Is back when stage 2 has nothing any more of what such a notice names; and the other when that has
# left the host's table and may be mapped again.
UNMAP_BEGUN = "kvm_mmu_notifier_invalidate_range_start"
UNMAPPED = "kvm_mmu_notifier_invalidate_range_end"
# The host calls it for each page that it takes out of its table, between the two.
TAKE = "folio_remove_rmap_ptes"
FAULT = "kvm:kvm_guest_fault"
# What it looks its page up by: from Linux 6.13 on the second (virt/kvm/kvm_main.c).
LOOK_UP = ("__gfn_to_pfn_memslot", "__kvm_faultin_pfn")
# By which it maps that page, or gives a leaf more rights; and what it enters in their place in
# protected mode from 6.14 on (arch/arm64/kvm/pkvm.c), which those kernels show in every mode.
MAPS = ("kvm_pgtable_stage2_map", "kvm_pgtable_stage2_relax_perms")
PKVM_MAPS = ("pkvm_pgtable_stage2_map", "pkvm_pgtable_stage2_relax_perms")
# Unmaps what such a notice names from the stage 2 of one VM, and this all of a memslot that goes;
# both enter the last for each page that they find, with the MMU lock held for writing.
UNMAP_WALK = "kvm_unmap_gfn_range"
FLUSH_SLOT = "kvm_arch_flush_shadow_memslot"
UNMAP_CALLBACK = "stage2_unmap_walker"
# Lets go of a VM's stage 2, with the VM or with the memory of its owner.
RELEASE = "kvm_mmu_notifier_release"
# Within that: takes the tables from those who walk, and frees them.
FREE_TABLES = "kvm_free_stage2_pgd"
# Between the returns of these two a memslot comes, goes or gets other flags.
PREPARED = "kvm_arch_prepare_memory_region"
COMMITTED = "kvm_arch_commit_memory_region"
# Is back when all of a process's VMs have aged what page_idle asks for.
AGED = "__mmu_notifier_clear_young"
# Is back when the VMs of a process were asked whether a page is young, until one says so.
TESTED = "__mmu_notifier_test_young"
# Entered between the load of a stage-2 entry and the store that makes it old; and where it is only
# to be told whether an entry is young.
AGE_CALLBACK = "stage2_age_walker"
# Goes over the tables for one request, and returns whether it found a leaf young; its return comes
# after that of AGE_CALLBACK, and before the MMU lock is given back.
AGE_WALK = "kvm_pgtable_stage2_test_clear_young"
# An access fault enters it between its load of an entry and its store, as ATTR of an entry.
SET_FLAGS = "stage2_attr_walker"
# How a mark says that what begins is a read of the dirty log (docs/guest-protocol.md).
READ_LOG = 2
# Puts a page into the dirty log; a write fault calls it when it has mapped the page.
MARK_DIRTY = "mark_page_dirty_in_slot"


def walk_functions(contract: Contract, *others: str) -> tuple[str, ...]:
    """The functions that a race of aging records: the walk's callback, others, the fast path's."""
    fast = contract.fast_path.functions if contract.fast_path else ()
    return tuple(dict.fromkeys((AGE_CALLBACK, *others, *fast)))


def looking_up(absent: Container[str]) -> str | None:
    """What a fault of this kernel looks its page up by, None if that cannot be seen."""
    return next((name for name in LOOK_UP if returned(name) not in absent), None)


@dataclass(frozen=True)
class Window:
    """A range of host addresses to which a thread did something, and when (microseconds)."""

    pid: int
    begin: int
    end: int
    start_address: int
    end_address: int

    def lasts(self, event: Event) -> bool:
        """Whether another thread's event falls into it, for whatever address."""
        return event.pid != self.pid and self._is_open(event)

    def holds(self, event: Event) -> bool:
        """Whether another thread's event for an address of the range falls into it."""
        return self.lasts(event) and self._is_about(event)

    def holds_own(self, event: Event) -> bool:
        """Whether an event of its own thread for an address of the range falls into it."""
        return event.pid == self.pid and self._is_open(event) and self._is_about(event)

    def _is_open(self, event: Event) -> bool:
        return self.begin <= event.time <= self.end

    def _is_about(self, event: Event) -> bool:
        return event.fields["start"] < self.end_address and event.fields["end"] > self.start_address


def windows(unmaps: Iterable[Event], returns: Iterable[Event]) -> tuple[Window, ...]:
    """From each notice of an unmap until its thread is next back from the walk of stage 2.

    `unmaps` are events UNMAP, `returns` the returns of the function that walks, each in order of
    time; with AGE or TEST in their place it is how long an aging, or a question, takes. A notice
    for addresses that no memslot has is not followed by a walk: it counts until the same thread's
    next notice for nothing.
    """
    waiting: dict[int, Event] = {}
    found: list[Window] = []
    marks = [(event.time, 0, event) for event in unmaps]
    marks += [(event.time, 1, event) for event in returns]
    for time, is_return, event in sorted(marks, key=lambda mark: mark[:2]):
        if not is_return:
            waiting[event.pid] = event
        elif notice := waiting.pop(event.pid, None):
            start, end = address_range(notice)
            found.append(Window(event.pid, notice.time, time, start, end))
    return tuple(found)


def unmaps(counts: Counts) -> tuple[Window, ...]:
    """How long each unmap was at stage 2, of a trace with UNMAP and the returns of UNMAP_WALK."""
    return windows(counts.events(UNMAP), counts.events(returned(UNMAP_WALK)))


def agings(counts: Counts) -> tuple[Window, ...]:
    """How long each aging by page_idle took, of a trace with AGE and the returns of AGED."""
    return windows(counts.events(AGE), counts.events(returned(AGED)))


def entered(
    counts: Counts, functions: Collection[str]
) -> tuple[tuple[Window, frozenset[str]], ...]:
    """Each aging as agings() has it, with those of the recorded functions that it entered."""
    begun: dict[int, tuple[Event, set[str]]] = {}
    found: list[tuple[Window, frozenset[str]]] = []
    for event in counts.in_order(AGE, *functions, returned(AGED)):
        if event.name == AGE:
            begun[event.pid] = event, set()
        elif event.name != returned(AGED):
            if event.pid in begun:
                begun[event.pid][1].add(event.name)
        elif aging := begun.pop(event.pid, None):
            first, names = aging
            window = Window(event.pid, first.time, event.time, *address_range(first))
            found.append((window, frozenset(names)))
    return tuple(found)


def askings(counts: Counts) -> tuple[Window, ...]:
    """How long each question took whether a page is young: of one with TEST, returns of TESTED."""
    return windows(counts.events(TEST), counts.events(returned(TESTED)))


def in_first_vm(counts: Counts, event: str, back: str) -> tuple[Window, ...]:
    """How long each aging, or question, was in the first VM of the process that it came to.

    `event` and `back` are AGE and AGED, or TEST and TESTED. There is an event for each VM, of which
    the one that was made last comes first, and a return when all have had their turn.
    """
    begun: dict[int, Event | None] = {}
    found: list[Window] = []
    for one in counts.in_order(event, returned(back)):
        if first := begun.get(one.pid):
            found.append(Window(one.pid, first.time, one.time, *address_range(first)))
        if one.name != event:
            begun.pop(one.pid, None)
        else:
            begun[one.pid] = None if one.pid in begun else one
    return tuple(found)


def overlapping(spans: Iterable[Window], others: Iterable[Window]) -> int:
    """How many of the spans overlap one of the others, of another thread, whatever the address."""
    found = tuple(others)
    return sum(
        any(
            one.pid != span.pid and one.begin <= span.end and span.begin <= one.end for one in found
        )
        for span in spans
    )


def acts(marks: Iterable[Event], *, log_reads: bool = False) -> tuple[Window, ...]:
    """What a race's opponent did, from the marks that it wrote into the trace, in order of time.

    A mark that begins something is followed by the same thread's mark that ends it; an act that
    the trace has only one end of is none. With `log_reads` its reads of the dirty log alone.
    """
    begun: dict[int, Event] = {}
    found: list[Window] = []
    for mark in marks:
        if begins := mark.fields["begins"]:
            if begins == READ_LOG or not log_reads:
                begun[mark.pid] = mark
        elif first := begun.pop(mark.pid, None):
            start, end = first.fields["start"], first.fields["end"]
            found.append(Window(mark.pid, first.time, mark.time, start, end))
    return tuple(found)


def stays(
    entries: Iterable[Event], leavings: Iterable[Event], start: int, end: int
) -> tuple[Window, ...]:
    """When each thread was where it can do something to a range of host addresses.

    That may be the guest, or a function of the kernel, from its entry to its return.
    """
    entered: dict[int, int] = {}
    found: list[Window] = []
    marks = [(event.time, 0, event) for event in entries]
    marks += [(event.time, 1, event) for event in leavings]
    for time, leaves, event in sorted(marks, key=lambda mark: mark[:2]):
        if not leaves:
            entered[event.pid] = time
        elif (since := entered.pop(event.pid, None)) is not None:
            found.append(Window(event.pid, since, time, start, end))
    return tuple(found)


def between(
    begins: Iterable[Event], ends: Iterable[Event], start: int, end: int
) -> tuple[Window, ...]:
    """From a thread's last event of `begins` to each of its `ends`, for a range of addresses."""
    begun = tuple(begins)
    found: list[Window] = []
    for event in ends:
        times = [one.time for one in begun if one.pid == event.pid and one.time <= event.time]
        if times:
            found.append(Window(event.pid, max(times), event.time, start, end))
    return tuple(found)


def meetings(
    spans: Iterable[Window],
    events: Iterable[Event],
    meets: Callable[[Window, Event], bool] = Window.holds,
) -> int:
    """How many events fall into a window: for an address of its range, in another thread."""
    return sum(
        any(meets(window, event) for window in begun) for event, begun in _by_time(spans, events)
    )


def most_threads(
    spans: Iterable[Window],
    events: Iterable[Event],
    meets: Callable[[Window, Event], bool] = Window.holds,
) -> int:
    """How many threads have an event in one window, as meetings() has it, at most."""
    pids: dict[Window, set[int]] = {}
    for event, begun in _by_time(spans, events):
        for window in begun:
            if meets(window, event):
                pids.setdefault(window, set()).add(event.pid)
    return max(map(len, pids.values()), default=0)


def _by_time(
    spans: Iterable[Window], events: Iterable[Event]
) -> Iterator[tuple[Event, Iterator[Window]]]:
    """Each event with the windows that have begun by then, less most of those that are over."""
    open_at = sorted(spans, key=lambda window: window.begin)
    first = 0
    for event in sorted(events, key=lambda event: event.time):
        while first < len(open_at) and open_at[first].end < event.time:
            first += 1
        yield event, _begun(open_at[first:], event.time)


def _begun(spans: list[Window], time: int) -> Iterator[Window]:
    for window in spans:
        if window.begin > time:
            return
        yield window


def slot_range(vm: Guest) -> tuple[int, int]:
    """Where the tested pages begin and end in the guest program's memory."""
    start = vm.greeting.slot_hva
    return start, start + vm.slot.pages * PAGE_SIZE


def by_address(faults: Iterable[Event], vm: Guest, pages: Container[int]) -> Iterator[Event]:
    """The events FAULT on some of the tested pages, with the host's address of the page."""
    for fault in faults:
        page = (fault.fields["ipa"] - vm.slot.ipa) // PAGE_SIZE
        if page in pages:
            at = vm.greeting.slot_hva + page * PAGE_SIZE
            yield replace(fault, fields={"start": at, "end": at + PAGE_SIZE})
