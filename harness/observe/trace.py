# SPDX-License-Identifier: GPL-2.0-only
"""Events and function entries by tracefs, in an instance of our own.

Sources: Documentation/trace/{ftrace,events,kprobetrace}.rst. A function counts as observable only
if its name stands exactly once in available_filter_functions: a function that was inlined
everywhere has no entry there, and a name that two functions share does not say which ran.
EL2 code under nVHE and pKVM is never there.

A count is evidence only if nothing was absent and nothing was lost, so `Counts.of` raises
Unproven instead of returning a number otherwise.

Entries of functions are counted by kprobe events, from the hits and misses in kprobe_profile: the
events themselves are filtered out, because to print an address as a symbol is the dearest part of
a trace, and so a full buffer cannot spoil these counts.
"""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError, UsageError
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError, shown
from harness.observe.text import MIB, run_script, sections, unsigned, whole_lines
from harness.observe.unproven import Unproven

TRACEFS = "/sys/kernel/tracing"
NAME = "kvm-harness"
INSTANCE = f"{TRACEFS}/instances/{NAME}"
GROUP = "kvm_harness"
# The kernel takes a third of a second to list its functions under emulation; the list of a
# running kernel without modules stays the same, and /run does not outlive it.
FUNCTIONS = "/run/kvm-harness-functions"
LIMIT = 256 * MIB
MAX_CPUS = 4096
PAGE = 4096

_EVENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}:[A-Za-z_][A-Za-z0-9_]{0,63}")
_FUNCTION = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,126}")
_ENTRY = re.compile(
    r" *(?P<task>.{1,16})-(?P<pid>[0-9]{1,7}) {1,7}\[(?P<cpu>[0-9]{3,4})\] (?P<flags>[^ ]{1,12})"
    r" {1,12}(?P<seconds>[0-9]{1,12})\.(?P<micros>[0-9]{6}): (?P<name>[A-Za-z0-9_]{1,64}): "
    r"(?P<rest>.*)"
)
_ENTRIES = re.compile(
    r"# entries-in-buffer/entries-written: (?P<kept>[0-9]{1,20})/(?P<written>[0-9]{1,20}) {1,8}"
    r"#P:[0-9]{1,5}"
)
_NOTE = re.compile(r"##### CPU [0-9]{1,5} buffer started ####|CPU:[0-9]{1,5} \[LOST .{0,30}\]")
_HEX = r"(?:0x)?([0-9a-f]{1,16})"
# An access to a page whose flag is clear at stage 2, where hardware does not set it.
ACCESS_FAULT = "kvm:kvm_access_fault"
# Memory of which each CPU has its own. Since Linux 6.0 the first says which function asked for it.
PERCPU_ALLOC, PERCPU_FREE = "percpu:percpu_alloc_percpu", "percpu:percpu_free_percpu"
# The name of the event for a line that a program wrote to trace_marker, and the kernel's for it.
MARK = "mark"
_MARK_IN_TRACE = "tracing_mark_write"

# What a slowed probe fetches again and again: the caller's name. Each costs two searches of the
# kernel's symbols. Linux 6.3 brought the type. Its event must be filtered out, as it then goes to a
# page of its own first. Recorded on 6.12, it damaged the ring buffer, likely since the kernel
# reserves room for the name, but takes it to be KSYM_NAME_LEN bytes and clears the last of these.
_SLOWLY = "%x30:symstr"
_NEVER = "common_pid < 0"
# An event must fit a page, and each name takes up to 60 bytes of it.
MOST_SLOWED = 48

# What an event's text says, by the TP_printk of Linux 6.12 (arch/arm64/kvm/trace_arm.h and
# include/trace/events/kvm.h). "%#016lx" pads with zeros to 16 columns, the 0x among them.
FIELDS: Mapping[str, tuple[re.Pattern[str], tuple[str, ...]]] = {
    ACCESS_FAULT: (re.compile(f"IPA: {_HEX}"), ("ipa",)),
    "kvm:kvm_guest_fault": (
        re.compile(f"ipa {_HEX}, hsr {_HEX}, hxfar {_HEX}, pc {_HEX}"),
        ("ipa", "esr", "far", "pc"),
    ),
    "kvm:kvm_age_hva": (
        re.compile(f"mmu notifier age hva: {_HEX} -- {_HEX}"),
        ("start", "end"),
    ),
    "kvm:kvm_test_age_hva": (re.compile(f"mmu notifier test age hva: {_HEX}"), ("hva",)),
    "kvm:kvm_unmap_hva_range": (
        re.compile(f"mmu notifier unmap range: {_HEX} -- {_HEX}"),
        ("start", "end"),
    ),
    # Pointers are hashed, each to the same number until the next boot.
    PERCPU_ALLOC: (re.compile(f".{{1,400}} ptr={_HEX}(?: bytes_alloc.{{1,200}})?"), ("ptr",)),
    PERCPU_FREE: (re.compile(f".{{1,100}} ptr={_HEX}"), ("ptr",)),
    # What kvm-guest writes into the trace itself (docs/guest-protocol.md, "A race").
    MARK: (re.compile(f"kvm-guest: {_HEX} {_HEX} {_HEX}"), ("begins", "start", "end")),
}


_RETURN = (re.compile(f"\\([^()]{{1,300}}\\) ret={_HEX}"), ("ret",))


@dataclass(frozen=True)
class Wanted:
    """What to record: trace events ("kvm:kvm_access_fault") and entries of functions.

    `buffer_kib` is per CPU. `filters` gives an event of `events` a filter expression
    (Documentation/trace/events.rst, "Event filtering"). `returns` names functions whose returns
    are recorded as events, each with a filter on its returned value `ret`; "" records them all.
    `slowed` are those of `functions` whose entry, and those of `returns` whose return, is to take
    long, to widen the window of a race, with how often the time of looking up a symbol, up to
    MOST_SLOWED: 8 are a tenth of a millisecond and more under emulation, if the kernel can. The
    event of a return stands where that time begins.
    """

    events: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    buffer_kib: int = 2048
    filters: Mapping[str, str] = field(default_factory=dict)
    returns: Mapping[str, str] = field(default_factory=dict)
    slowed: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for event in self.events:
            if not _EVENT.fullmatch(event):
                raise UsageError(f"not the name of a trace event (system:event): {event!r}")
        for function in (*self.functions, *self.returns):
            if not _FUNCTION.fullmatch(function):
                raise UsageError(f"not the name of a function: {function!r}")
        if unknown := set(self.filters) - set(self.events):
            raise UsageError(f"a filter for an event that is not recorded: {sorted(unknown)}")
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

    def fetches(self, function: str) -> str:
        """What a probe on a function fetches for no other reason than to take long."""
        return "".join(f" s{index}={_SLOWLY}" for index in range(self.slowed.get(function, 0)))

    def return_probe(self, function: str) -> str:
        """The name of our kretprobe event on a function."""
        plain = function.replace(".", "_")[:48]
        return f"kvmhr{list(self.returns).index(function)}_{plain}"

    @property
    def names(self) -> Mapping[str, str]:
        """The name of an event that stands in the trace -> the name that was asked for."""
        names = {event.partition(":")[2]: event for event in self.events}
        names[_MARK_IN_TRACE] = MARK
        return names | {self.return_probe(name): returned(name) for name in self.returns}


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

    `name` is as it was asked for, system:event. `fields` are the numbers of its text by the
    names in FIELDS; empty for an event that has no entry there.
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
        """All events of a name (system:event) in order of time.

        Unproven if it is absent or events were lost; KeyError for one that was not asked for.
        """
        returns = (returned(one) for one in self.wanted.returns)
        if name not in (MARK, *self.wanted.events, *returns):
            raise KeyError(f"{name} was not recorded")
        self._present(name)
        if self.lost:
            raise Unproven(f"{name}: the trace buffer lost {self.lost} events")
        return tuple(event for event in self.recorded if event.name == name)

    def in_order(self, *names: str) -> tuple[Event, ...]:
        """All events of several names, as they came; Unproven and KeyError as events() does."""
        for name in names:
            self.events(name)
        return tuple(event for event in self.recorded if event.name in names)

    def of(self, name: str) -> int:
        """How often an event occurred or a function was entered.

        Unproven if it is absent, or some were lost or missed; KeyError as events() does.
        """
        if name not in self.wanted.functions:
            return len(self.events(name))
        self._present(name)
        probe = self.probes[name]
        if probe.missed:
            raise Unproven(f"{name}: its probe missed {probe.missed} entries")
        return probe.hits

    def _present(self, name: str) -> None:
        if name in self.absent:
            raise Unproven(f"{name} cannot be observed: {self.absent[name]}")


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


# ---- text in, values out ------------------------------------------------------------------


def parse_trace(
    text: str, names: Mapping[str, str], source: str = "trace"
) -> tuple[tuple[Event, ...], int]:
    """The events of a `trace` file, and how many the kernel says were written.

    `names` maps the names in the text to those asked for. ObserveError if the text is cut
    short: the number of its events must be the one that its header tells.
    """
    events: list[Event] = []
    kept = written = -1
    header = 0
    for number, line in enumerate(whole_lines(text, source, LIMIT), 1):
        if _NOTE.fullmatch(line):
            continue
        if line.startswith("#"):
            if match := _ENTRIES.fullmatch(line):
                if kept >= 0:
                    raise ObserveError(source, number, "a second header")
                kept, written, header = int(match["kept"]), int(match["written"]), number
            continue
        events.append(_event(line, names, source, number))
    if kept < 0:
        raise ObserveError(source, 0, "has no header with its number of entries")
    if len(events) != kept or written < kept:
        problem = f"the header tells {kept} of {written} entries, {len(events)} follow"
        raise ObserveError(source, header, problem)
    return tuple(events), written


def _event(line: str, names: Mapping[str, str], source: str, number: int) -> Event:
    match = _ENTRY.fullmatch(line)
    if match is None:
        raise ObserveError(source, number, f"not an event: {shown(line)}")
    if match["name"] not in names:
        raise ObserveError(source, number, f"an event that was not asked for: {shown(line)}")
    name = names[match["name"]]
    fields: dict[str, int] = {}
    form = _RETURN if name.endswith("()") else FIELDS.get(name)
    if form is not None:
        pattern, keys = form
        values = pattern.fullmatch(match["rest"].rstrip())
        if values is None:
            raise ObserveError(source, number, f"unknown form of {name}: {shown(match['rest'])}")
        fields = {key: int(value, 16) for key, value in zip(keys, values.groups(), strict=True)}
    return Event(
        time=int(match["seconds"]) * 1_000_000 + int(match["micros"]),
        cpu=int(match["cpu"]),
        task=match["task"].strip(),
        pid=int(match["pid"]),
        name=name,
        text=match["rest"],
        fields=fields,
    )


def parse_stats(text: str, source: str = "stats") -> int:
    """Events that one CPU's buffer lost: overrun, commit overrun and dropped events."""
    found: dict[str, int] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        key, colon, value = line.partition(":")
        if not colon or key in found:
            raise ObserveError(source, number, f"not a statistic: {shown(line)}")
        if key in ("overrun", "commit overrun", "dropped events"):
            found[key] = unsigned(value.strip(), source, number)
    if len(found) != 3:
        raise ObserveError(source, 0, f"tells only of {sorted(found)}")
    return sum(found.values())


def parse_profile(text: str, source: str = "kprobe_profile") -> Mapping[str, Probe]:
    """Name of each kprobe event -> its hits and misses since it was made."""
    found: dict[str, Probe] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        words = line.split()
        if len(words) != 3:
            raise ObserveError(source, number, f"not a probe's profile: {shown(line)}")
        hits, missed = (unsigned(word, source, number) for word in words[1:])
        found[words[0]] = Probe(hits, missed)
    return found


def counts(start: str, stop: str, nonce: str, wanted: Wanted, absent: Mapping[str, str]) -> Counts:
    """What the starting and the stopping script printed, as Counts."""
    source = "collected trace"
    before = parse_profile(start, "kprobe_profile at the start")
    lost = cpus = 0
    after: Mapping[str, Probe] | None = None
    recorded: tuple[Event, ...] | None = None
    written = 0
    for name, body in sections(stop, nonce, source):
        if name.startswith("stats "):
            cpus += 1
            lost += parse_stats(body, name)
        elif name == "profile":
            after = parse_profile(body)
        elif name == "trace":
            recorded, written = parse_trace(body, wanted.names)
        else:
            raise ObserveError(source, 0, f"an unknown part: {shown(name)}")
    if recorded is None or after is None or not 0 < cpus <= MAX_CPUS:
        raise ObserveError(source, 0, "a part is missing")
    named = {function: wanted.probe(function) for function in wanted.functions}
    named |= {returned(function): wanted.return_probe(function) for function in wanted.returns}
    probes = {
        name: _between(probe, before, after) for name, probe in named.items() if name not in absent
    }
    lost = max(lost, written - len(recorded))
    return Counts(wanted, absent, lost, probes, recorded, start + stop)


def _between(name: str, before: Mapping[str, Probe], after: Mapping[str, Probe]) -> Probe:
    """What a probe saw and missed between two profiles."""
    if name not in before or name not in after:
        raise ObserveError("kprobe_profile", 0, f"our probe {name} is gone")
    hits = after[name].hits - before[name].hits
    missed = after[name].missed - before[name].missed
    if hits < 0 or missed < 0:
        raise ObserveError("kprobe_profile", 0, f"our probe {name} counts backwards")
    return Probe(hits, missed)


def parse_setup(text: str, wanted: Wanted) -> Mapping[str, str]:
    """Names that cannot be recorded -> why.

    The set-up script prints one line "ok NAME" or "absent NAME: REASON" each.
    """
    absent: dict[str, str] = {}
    names = [*wanted.events]
    for name in wanted.functions:
        names += [name, slowed_entry(name)] if name in wanted.slowed else [name]
    for name in wanted.returns:
        names.append(returned(name))
        names += [slowed_return(name)] if name in wanted.slowed else []
    lines = whole_lines(text, "set-up of the trace")
    for number, line in enumerate(lines, 1):
        word, _, rest = line.partition(" ")
        name, colon, reason = rest.rpartition(": ") if word == "absent" else (rest, "", "")
        if number > len(names) or name != names[number - 1] or word not in ("ok", "absent"):
            raise ObserveError("set-up of the trace", number, f"unexpected: {shown(line)}")
        if colon:
            absent[name] = reason
    if len(lines) != len(names):
        raise ObserveError("set-up of the trace", 0, f"{len(lines)} of {len(names)} answers")
    return absent


# ---- scripts of POSIX sh, one for each step -----------------------------------------------

# Probes and buffers come and go after grace periods, for which nobody waits but this script: of a
# trace's 240 ms these were 150. What is traced has the kernel as it was.
# (kernel-parameters.txt, rcupdate.rcu_expedited)
EXPEDITED = "/sys/kernel/rcu_expedited"
EXPEDITE = f"""
E={EXPEDITED}
if [ -e $E ]; then
  read -r expedited < $E
  trap 'echo $expedited > $E' EXIT
  echo 1 > $E
fi
"""

# Events must be off before an instance or a probe can go, and the instance goes first: the
# probes are enabled in it. Works on what a killed run left as well.
REMOVE = f"""{EXPEDITE}T={TRACEFS} I={INSTANCE}
if [ -d $I ]; then echo 0 > $I/tracing_on; echo 0 > $I/events/enable; rmdir $I; fi
if [ -e $T/kprobe_events ] && read -r any < $T/kprobe_events; then
  sed -n 's|^[pr][0-9]*:\\({GROUP}/[^ ]*\\) .*|-:\\1|p' $T/kprobe_events |
  while read -r probe; do echo "$probe" >> $T/kprobe_events; done
fi
"""


def setup_script(wanted: Wanted) -> str:
    """The script that makes the instance, with everything enabled and tracing off."""
    lines = [
        f"[ -d {TRACEFS}/instances ] || {{ echo '{TRACEFS} is not mounted' >&2; exit 1; }}",
        REMOVE,
        "mkdir $I",
        "echo 0 > $I/tracing_on",
        "echo mono > $I/trace_clock",
        f"echo {wanted.buffer_kib} > $I/buffer_size_kb",
    ]
    for event in wanted.events:
        folder = "$I/events/" + event.replace(":", "/")
        lines.append(f"if [ -d {folder} ]; then")
        if event in wanted.filters:
            lines.append(f"printf '%s\\n' {shlex.quote(wanted.filters[event])} > {folder}/filter")
        lines.append(f"echo 1 > {folder}/enable; echo 'ok {event}'")
        lines.append(f"else echo 'absent {event}: this kernel has no such event'; fi")
    if wanted.functions or wanted.returns:
        names = dict.fromkeys((*wanted.functions, *wanted.returns))
        patterns = " ".join(f"-e {shlex.quote(function)}" for function in names)
        lines.append(
            f"[ -s {FUNCTIONS} ] || {{ cat $T/available_filter_functions > {FUNCTIONS}.new\n"
            f"mv {FUNCTIONS}.new {FUNCTIONS}; }}\n"
            f"F=$(grep -Fx {patterns} {FUNCTIONS} || true)"
        )
    for function in wanted.functions:
        probe = wanted.probe(function)
        fetches = tuple(dict.fromkeys((wanted.fetches(function), "")))
        lines.append(_probe_script(function, function, probe, "p", fetches, _NEVER))
        if function in wanted.slowed:
            name = slowed_entry(function)
            lines.append(
                f"if [ \"$made\" = 0 ]; then echo 'ok {name}'\n"
                f"else echo 'absent {name}: this kernel looks up no symbol in a probe'; fi"
            )
    for function, condition in wanted.returns.items():
        probe = wanted.return_probe(function)
        lines.append(
            _probe_script(returned(function), function, probe, "r", (" ret=$retval",), condition)
        )
        if slowly := wanted.fetches(function):
            # Of two probes on a return the one that was made first comes first: the last one is
            # at the head of the probe's list, so it is entered first, and what was entered first
            # returns last (kernel/kprobes.c).
            name = slowed_return(function)
            lines.append(_probe_script(name, function, f"{probe}_slow", "r", (slowly,), _NEVER))
    return "\n".join(lines)


def _probe_script(
    name: str, function: str, probe: str, kind: str, fetches: Sequence[str], condition: str
) -> str:
    """The lines that make and enable one probe and print "ok" or "absent" with its `name`.

    It has the first of `fetches` that the kernel takes: `made` is its index.
    """
    event = f"$I/events/{GROUP}/{probe}"
    makes = " || ".join(
        f"{{ echo '{kind}:{GROUP}/{probe} {function}{fetch}' 2>/dev/null >> $T/kprobe_events &&"
        f" made={index}; }}"
        for index, fetch in enumerate(fetches)
    )
    only = f"printf '%s\\n' {shlex.quote(condition)} > {event}/filter\n" if condition else ""
    return (
        f'made= n=0\nfor f in $F; do [ "$f" != {function} ] || n=$((n + 1)); done\n'
        f"if [ $n -eq 0 ]; then echo 'absent {name}: not in available_filter_functions'\n"
        f"elif [ $n -gt 1 ]; then echo 'absent {name}: names more than one function'\n"
        f"elif {makes}; then\n{only}echo 1 > {event}/enable; echo 'ok {name}'\n"
        f"else echo 'absent {name}: this kernel refuses a probe on it'; fi"
    )


def start_script() -> str:
    """The script that empties the buffer, prints the probes' profile so far, and records."""
    return (
        f"I={INSTANCE}; echo > $I/trace\n"
        f"[ ! -e {TRACEFS}/kprobe_profile ] || cat {TRACEFS}/kprobe_profile\n"
        "echo 1 > $I/tracing_on"
    )


def stop_script(nonce: str) -> str:
    """The script that ends recording and prints statistics, profile and trace."""
    return (
        f"I={INSTANCE}; echo 0 > $I/tracing_on\n"
        f'for c in $I/per_cpu/cpu*; do echo "{nonce} stats ${{c##*/}}"; cat $c/stats; done\n'
        f"echo '{nonce} profile'\n"
        f"[ ! -e {TRACEFS}/kprobe_profile ] || cat {TRACEFS}/kprobe_profile\n"
        f"echo '{nonce} trace'; cat $I/trace; echo '{nonce} end'"
    )


# ---- effects --------------------------------------------------------------------------------


class Session:
    """A prepared instance; each start() and stop() pair gives the Counts of what lay between."""

    def __init__(self, shell: Shell, wanted: Wanted, absent: Mapping[str, str]) -> None:
        self._shell = shell
        self._before: str | None = None
        self.wanted = wanted
        self.absent = absent

    def start(self, deadline: Deadline | None = None) -> None:
        """Forget what was recorded and record from now on."""
        self._before = run_script(self._shell, start_script(), deadline)

    def stop(self, deadline: Deadline | None = None) -> Counts:
        """End recording; what was recorded since start(). InfraError without a start()."""
        if self._before is None:
            raise InfraError("trace: stop() without start()")
        nonce = secrets.token_hex(16)
        before, self._before = self._before, None
        after = run_script(self._shell, stop_script(nonce), deadline)
        return counts(before, after, nonce, self.wanted, self.absent)


@contextmanager
def tracing(shell: Shell, wanted: Wanted, deadline: Deadline | None = None) -> Iterator[Session]:
    """An instance that records `wanted`, gone with its probes at the end.

    `deadline` bounds set-up and removal. What a killed run left is removed first. InfraError if
    tracefs is not mounted or refuses.
    """
    absent = parse_setup(run_script(shell, setup_script(wanted), deadline), wanted)
    try:
        yield Session(shell, wanted, absent)
    except BaseException:
        # The error that ends the block is the one to tell; a dead host cannot be cleaned.
        with suppress(HarnessError):
            run_script(shell, REMOVE, deadline)
        raise
    run_script(shell, REMOVE, deadline)
