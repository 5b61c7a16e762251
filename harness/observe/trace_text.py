# SPDX-License-Identifier: GPL-2.0-only
"""What tracefs prints, as values: the trace, its statistics, probes' profiles.

Sources: Documentation/trace/{ftrace,kprobetrace}.rst.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.observe.errors import ObserveError, shown
from harness.observe.text import MIB, sections, unsigned, whole_lines
from harness.observe.trace import (
    ACCESS_FAULT,
    MARK,
    PERCPU_ALLOC,
    PERCPU_FREE,
    Counts,
    Event,
    Probe,
    Wanted,
    returned,
    slowed_entry,
    slowed_return,
)

LIMIT = 256 * MIB
MAX_CPUS = 4096

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
