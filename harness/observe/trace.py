# SPDX-License-Identifier: GPL-2.0-only
"""Events and function entries by tracefs, in an instance of our own.

Sources: Documentation/trace/{ftrace,events,kprobetrace}.rst. A function counts as observable only
if its name stands exactly once in available_filter_functions: a function that was inlined
everywhere has no entry there, and a name that two functions share does not say which ran.
EL2 code under nVHE and pKVM is never there.

A count is evidence only if nothing was absent and nothing was lost, so `Counts.of` raises
Unproven instead of returning a number otherwise.

Entries of functions are counted by kprobe events, from the hits and misses in kprobe_profile: the
events themselves are filtered out where nobody asks for them, because to print an address as a
symbol is the dearest part of a trace, and so a full buffer cannot spoil these counts.

The profile counts entries by all tasks, and a machine has others that reclaim memory or run VMs.
Where it matters who entered a function, entries by others are recorded and taken off, of which a
quiet machine has none; of a function that is not to be entered, those by ours are. Tasks are told
by their names, which an event filter can ask for before there is a task (`comm` in
Documentation/trace/events.rst), and which our own choose.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.errors import UsageError
from harness.observe.unproven import Unproven

PAGE = 4096

_EVENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}:[A-Za-z_][A-Za-z0-9_]{0,63}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,126}")
# A task's name, at most TASK_COMM_LEN - 1 characters.
_TASK = re.compile(r"[A-Za-z0-9_.-]{1,15}")
# An access to a page whose flag is clear at stage 2, where hardware does not set it.
ACCESS_FAULT = "kvm:kvm_access_fault"
# Memory of which each CPU has its own. Since Linux 6.0 the first says which function asked for it.
PERCPU_ALLOC, PERCPU_FREE = "percpu:percpu_alloc_percpu", "percpu:percpu_free_percpu"
# The name of the event for a line that a program wrote to trace_marker, and the kernel's for it.
MARK = "mark"
_MARK_IN_TRACE = "tracing_mark_write"

# What a slowed probe fetches again and again: the caller's name. Each costs two searches of the
# kernel's symbols. Linux 6.3 brought the type.
_SLOWLY = "%x30:symstr"
# An event must fit a page, and each name takes up to 60 bytes of it: more names take more probes.
PROBE_FULL = 48
MOST_SLOWED = 16 * PROBE_FULL


@dataclass(frozen=True)
class Wanted:
    """What to record: trace events ("kvm:kvm_access_fault") and entries of functions.

    `buffer_kib` is per CPU. `filters` gives an event of `events` a filter expression
    (Documentation/trace/events.rst, "Event filtering"). `entries` are those of `functions` whose
    entries are to stand in the trace as well, under the functions' names. `returns` names functions
    whose returns are recorded as events, each with a filter on its returned value `ret`; "" records
    them all.
    `slowed` are those of `functions` whose entry, and those of `returns` whose return, is to take
    long, to widen the window of a race, with how often the time of looking up a symbol, up to
    MOST_SLOWED: 8 are a tenth of a millisecond and more under emulation,
    if the kernel can. The event of a return stands where that time begins.
    `slowed_thread` is the id of the thread of which alone the returns of `slowed` take long,
    everybody's if it is None.
    `ours` are the names of the tasks whose entries of functions count, everybody's if there are
    none; of those that take long everybody's do. Of `entries` only theirs are recorded then.
    """

    events: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    buffer_kib: int = 2048
    filters: Mapping[str, str] = field(default_factory=dict)
    returns: Mapping[str, str] = field(default_factory=dict)
    slowed: Mapping[str, int] = field(default_factory=dict)
    slowed_thread: int | None = None
    entries: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for event in self.events:
            if not _EVENT.fullmatch(event):
                raise UsageError(f"not the name of a trace event (system:event): {event!r}")
        for function in (*self.functions, *self.returns):
            if not _FUNCTION.fullmatch(function):
                raise UsageError(f"not the name of a function: {function!r}")
        for task in self.ours:
            if not _TASK.fullmatch(task):
                raise UsageError(f"not the name of a task: {task!r}")
        if unknown := set(self.filters) - set(self.events):
            raise UsageError(f"a filter for an event that is not recorded: {sorted(unknown)}")
        if unknown := set(self.entries) - set(self.functions):
            raise UsageError(f"entries of what has no probe: {sorted(unknown)}")
        if both := set(self.entries) & self.slowed.keys():
            raise UsageError(f"an entry that is recorded cannot take long: {sorted(both)}")
        if any(not 1 <= often <= MOST_SLOWED for often in self.slowed.values()):
            raise UsageError(f"a probe is slowed 1 to {MOST_SLOWED} times: {dict(self.slowed)}")
        if any("\n" in text for text in (*self.filters.values(), *self.returns.values())):
            raise UsageError("a filter of more than one line")
        short = [name for _, _, name in (event.partition(":") for event in self.events)]
        if len(set(short)) != len(short) or len(set(self.functions)) != len(self.functions):
            raise UsageError(f"a name that is recorded twice: {(*self.events, *self.functions)}")

    def probe(self, function: str) -> str:
        """The name of our kprobe event on a function; the index keeps shortened ones apart."""
        plain = function.replace(".", "_")[:48]
        return f"kvmh{self.functions.index(function)}_{plain}"

    def fetches(self, function: str) -> tuple[str, ...]:
        """What probes on a function fetch for no other reason than to take long: of each probe."""
        often = self.slowed.get(function, 0)
        starts = range(0, often, PROBE_FULL)
        return tuple(_names(min(PROBE_FULL, often - start)) for start in starts)

    def tells_others(self, function: str) -> bool:
        """Whether what is recorded of a function are its entries by tasks that are not ours."""
        return bool(self.ours) and function not in self.slowed and function not in self.entries

    def entry_filter(self, function: str) -> str | None:
        """Which entries of a function are recorded: "" for all, None for none at all."""
        if self.tells_others(function):
            return " && ".join(f'comm != "{task}"' for task in self.ours)
        if function in self.entries:
            return by_tasks(*self.ours)
        return None

    def return_probe(self, function: str) -> str:
        """The name of our kretprobe event on a function."""
        plain = function.replace(".", "_")[:48]
        return f"kvmhr{list(self.returns).index(function)}_{plain}"

    @property
    def names(self) -> Mapping[str, str]:
        """The name of an event that stands in the trace -> the name that was asked for."""
        names = {event.partition(":")[2]: event for event in self.events}
        names[_MARK_IN_TRACE] = MARK
        names |= {self.probe(name): name for name in self.entries}
        names |= {
            self.probe(name): by_others(name) for name in self.functions if self.tells_others(name)
        }
        return names | {self.return_probe(name): returned(name) for name in self.returns}


def _names(number: int) -> str:
    return "".join(f" s{index}={_SLOWLY}" for index in range(number))


def by_tasks(*names: str) -> str:
    """The filter of an event that lets it pass for tasks of these names; for all if none is given.

    The kernel compares with the name that a task has at that moment.
    """
    return " || ".join(f'comm == "{name}"' for name in names)


def by_others(function: str) -> str:
    """The name of the event that is a function's entry by a task that is not ours."""
    return f"{function} by others"


def slowed_entry(function: str) -> str:
    """What `absent` has if the entry of a function that is to take long cannot be made to."""
    return f"slowed {function}"


def slowed_return(function: str) -> str:
    """What `absent` has if the return of a function that is to take long cannot be made to."""
    return f"slowed {function}()"


def returned(function: str) -> str:
    """The name of the event that is a function's return; its field `ret` is what it returned."""
    return f"{function}()"


@dataclass(frozen=True)
class Event:
    """One line of a trace. `time` is in microseconds of the monotonic clock.

    `name` is as it was asked for: system:event, or a function's for its entry. `fields` are the
    numbers of its text by the names in FIELDS; empty for an event that has no entry there.
    """

    time: int
    cpu: int
    task: str
    pid: int
    name: str
    text: str
    fields: Mapping[str, int]


@dataclass(frozen=True)
class Probe:
    """What kprobe_profile tells of a probe: entries that it saw and that it missed."""

    hits: int
    missed: int


@dataclass(frozen=True)
class Counts:
    """What was recorded between start and stop, readable only where it is evidence.

    `absent` says of each name that could not be recorded why; `lost` is the number of events
    that the buffer did not keep; `probes` has the entries of each function, and under the names
    of returned() the returns. `raw` is what the host printed, to be kept as evidence.
    """

    wanted: Wanted
    absent: Mapping[str, str]
    lost: int
    probes: Mapping[str, Probe]
    recorded: tuple[Event, ...] = field(repr=False)
    raw: str = field(repr=False)

    def events(self, name: str) -> tuple[Event, ...]:
        """All events of a name (system:event, or an entry's or return's) in order of time.

        Unproven if it is absent, or events were lost, or its probe missed some; KeyError for one
        that was not asked for.
        """
        returns = (returned(one) for one in self.wanted.returns)
        if name not in (MARK, *self.wanted.events, *self.wanted.entries, *returns):
            raise KeyError(f"{name} was not recorded")
        self._present(name)
        self._whole(name)
        if self.lost:
            raise Unproven(f"{name}: the trace buffer lost {self.lost} events")
        return tuple(event for event in self.recorded if event.name == name)

    def in_order(self, *names: str) -> tuple[Event, ...]:
        """All events of several names, as they came; Unproven and KeyError as events() does."""
        for name in names:
            self.events(name)
        return tuple(event for event in self.recorded if event.name in names)

    def of(self, name: str) -> int:
        """How often an event occurred or a function was entered, by a task of ours if there are.

        Unproven if it is absent, or some were lost or missed; KeyError as events() does.
        """
        if name not in self.wanted.functions:
            return len(self.events(name))
        others = self.of_others(name)
        return self.probes[name].hits - others

    def of_others(self, name: str) -> int:
        """How often a function was entered by a task that is not ours, 0 if everybody's count.

        Unproven as of() is. The profile is not read at the moment at which recording begins or
        ends, so of a function that others enter at that time some are taken for ours, unless its
        entries are recorded.
        """
        self._present(name)
        self._whole(name)
        hits = self.probes[name].hits
        if not self.wanted.ours or name in self.wanted.slowed or not hits:
            return 0
        if self.lost:
            raise Unproven(
                f"{name}: entered {hits} times, and as the trace buffer lost {self.lost} events it "
                "does not tell by whom"
            )
        if name in self.wanted.entries:
            return hits - len(self.events(name))
        return sum(event.name == by_others(name) for event in self.recorded)

    def _whole(self, name: str) -> None:
        probe = self.probes.get(name)
        if probe is not None and probe.missed:
            raise Unproven(
                f"{name}: its probe missed {probe.missed} of {probe.hits + probe.missed}"
            )

    def _present(self, name: str) -> None:
        if name in self.absent:
            raise Unproven(f"{name} cannot be observed: {self.absent[name]}")


def merged(*parts: Wanted) -> Wanted:
    """What records all that each of them does, with buffers as large as the largest.

    An event has a filter if all of those have one that record it; what passes one of them passes.
    """
    filters: dict[str, str] = {}
    events = tuple(dict.fromkeys(name for one in parts for name in one.events))
    for event in events:
        asked = {one.filters.get(event, "") for one in parts if event in one.events}
        if "" not in asked:
            filters[event] = " || ".join(f"({text})" for text in sorted(asked))
    return Wanted(
        events,
        tuple(dict.fromkeys(name for one in parts for name in one.functions)),
        buffer_kib=max(one.buffer_kib for one in parts),
        filters=filters,
        returns={name: text for one in parts for name, text in one.returns.items()},
        slowed={name: often for one in parts for name, often in one.slowed.items()},
        slowed_thread=next((one.slowed_thread for one in parts if one.slowed_thread), None),
        entries=tuple(dict.fromkeys(name for one in parts for name in one.entries)),
        ours=tuple(dict.fromkeys(name for one in parts for name in one.ours)),
    )


def together(parts: Sequence[Counts]) -> Counts:
    """What several recordings of one session add up to; ValueError if there is none."""
    if not parts:
        raise ValueError("no recording")
    first = parts[0]
    probes = {
        name: Probe(
            sum(part.probes[name].hits for part in parts),
            sum(part.probes[name].missed for part in parts),
        )
        for name in first.probes
    }
    recorded = tuple(event for part in parts for event in part.recorded)
    lost = sum(part.lost for part in parts)
    raw = "".join(part.raw for part in parts)
    return Counts(first.wanted, first.absent, lost, probes, recorded, raw)


def pages_by_ipa(events: Iterable[Event], ipa: int, pages: int) -> frozenset[int]:
    """Indices of the 4 KiB pages of a memslot that hold the `ipa` of an event.

    `ipa` is the base of the slot in bytes, `pages` its length. KeyError for an event without IPA.
    """
    indices = ((event.fields["ipa"] - ipa) // PAGE for event in events)
    return frozenset(index for index in indices if 0 <= index < pages)


def address_range(event: Event) -> tuple[int, int]:
    """Start and exclusive end of an event's addresses: its own, or the one byte at its `hva`."""
    if "hva" in event.fields:
        return event.fields["hva"], event.fields["hva"] + 1
    return event.fields["start"], event.fields["end"]


def pages_by_hva(events: Iterable[Event], hva: int, pages: int) -> tuple[int, ...]:
    """How often each 4 KiB page of a slot lay in the address_range() of an event.

    `hva` is the address of the slot in its owner, `pages` its length. KeyError for an event without
    addresses. Addresses do not tell processes apart: select by `pid` first where that matters.
    """
    times = [0] * pages
    for event in events:
        start, end = address_range(event)
        first = max(0, (start - hva) // PAGE)
        last = min(pages, -((hva - end) // PAGE))
        for index in range(first, last):
            times[index] += 1
    return tuple(times)


def asked_pages(events: Iterable[Event], hva: int, pages: int) -> frozenset[int]:
    """Indices of the 4 KiB pages of a slot that any of the events was for, as pages_by_hva()."""
    return frozenset(index for index, n in enumerate(pages_by_hva(events, hva, pages)) if n)
