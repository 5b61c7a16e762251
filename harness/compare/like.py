# SPDX-License-Identifier: GPL-2.0-only
"""Whether two runs are of like things: what else would make their results differ.

What a run does not know of itself is like nothing: a summary of an older harness lacks what later
ones record.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TypeVar, get_args

from pydantic import BaseModel, ConfigDict

from harness.inventory import KvmMode
from harness.report import facts
from harness.results import Cell, Host, Kernel, KernelLabel, Summary

UNKNOWN = "not recorded"

_T = TypeVar("_T")
_Ran = dict[KvmMode | None, set[str]]
"""The machines that a place's cells ran on, by KVM mode; None where nothing tells the mode."""


class Unlike(BaseModel):
    """A field that differs, and what either run has there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    field: str
    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.field}: {self.one or UNKNOWN} / {self.other or UNKNOWN}"


def unlike(one: Summary, other: Summary) -> tuple[Unlike, ...]:
    """All that must be the same and is not, in the order of a run's making.

    A run is like itself, whatever it did not record.
    """
    if one == other:
        return ()
    parts = (_of_run, _of_kernels, _of_places, _of_cells, _of_counts, _of_times)
    pairs = (pair for part in parts for pair in part(one, other))
    return tuple(pair for pair in dict.fromkeys(pairs) if pair.one != pair.other or not pair.one)


def _pair(field: str, one: object, other: object) -> Unlike:
    """None is what is not known."""
    left, right = ("" if value is None else str(value) for value in (one, other))
    return Unlike(field=field, one=left, other=right)


def _of_run(one: Summary, other: Summary) -> Iterator[Unlike]:
    yield _pair("harness version", one.harness, other.harness)
    yield _pair("harness digest", one.harness_digest, other.harness_digest)
    yield _pair("debug kernels", one.debug, other.debug)
    yield _pair("emulated hosts", one.emulated, other.emulated)
    if one.emulated and other.emulated:
        yield _pair("emulator", one.emulator, other.emulator)


def _of_kernels(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of those that both have: a run of the base kernel alone is like the base of another."""
    places = list(_shared(one, other)) or [("", {""}, {""})]
    for label, (place, ran, again) in itertools.product(get_args(KernelLabel), places):
        first, second = _booted(one, label, ran), _booted(other, label, again)
        if not first or not second:
            continue
        several = any(kernel.hosts for kernel in (*first, *second))
        of = f"of the {label} kernel" + (f" of {place}" if several else "")
        # Of the patched kernel it is the series that makes these differ.
        known = _MADE if label == "patched" else {**_FROM, **_MADE}
        for field, value in known.items():
            yield _pair(field.format(of), _values(first, value), _values(second, value))


_FROM: Mapping[str, Callable[[Kernel], object]] = {
    "source {}": lambda kernel: kernel.source_digest,
}
_MADE: Mapping[str, Callable[[Kernel], object]] = {
    "configuration {}": lambda kernel: kernel.config_sha256,
    "toolchain {}": lambda kernel: kernel.compiler,
    "page size {} (KiB)": lambda kernel: kernel.page_kib,
}


def _booted(run: Summary, label: KernelLabel, machines: Collection[str]) -> list[Kernel]:
    found = (facts.kernel_of(run, label, machine) for machine in sorted(machines))
    return [kernel for kernel in found if kernel is not None]


def _of_places(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of the places that both have, and of those that share no KVM mode."""
    left, right = _places(one), _places(other)
    if not left.keys() & right.keys():
        yield _pair("hosts", " ".join(sorted(left)), " ".join(sorted(right)))
    for name in sorted(left.keys() & right.keys()):
        modes = [" ".join(sorted(filter(None, of[name]))) for of in (left, right)]
        if all(modes) and not left[name].keys() & right[name].keys():
            yield _pair(f"KVM modes of {name}", *modes)
    for name, ran, again in _shared(one, other):
        first, second = _known(one, ran), _known(other, again)
        for field, value in _FACTS.items():
            yield _pair(field.format(name), _values(first, value), _values(second, value))


_FACTS: Mapping[str, Callable[[Host], object]] = {
    "CPU model of {}": lambda host: host.cpu,
    "CPUs of {}": lambda host: host.cpus,
    "memory of {} (MiB)": lambda host: host.memory_mib,
}


def _of_cells(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of the cells that both have."""
    first, second = ({cell.id: cell for cell in run.cells} for run in (one, other))
    for key in sorted(first.keys() & second.keys()):
        # A cell that never came so far shows no mode; that it did not is what its outcome says.
        if first[key].kvm_line and second[key].kvm_line:
            # What differs in all boots of a measurement is said once.
            name = key.removesuffix(f"-{first[key].boot}")
            for field, value in _SHOWN.items():
                yield _pair(field.format(name), value(first[key]), value(second[key]))


_SHOWN: Mapping[str, Callable[[Cell], str]] = {
    "KVM mode in {}": lambda cell: f"{cell.kvm_mode}, {cell.kvm_line}",
    "MIDR in {}": lambda cell: ", ".join(f"{one.midr} (CPU {one.cpus})" for one in cell.af_cpus),
    "boot arguments in {}": lambda cell: cell.cmdline,
}


def _of_counts(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of what both count: in how many layouts, which are always the first ones of the same list."""
    left, right = _layouts(one), _layouts(other)
    if left and right:
        yield _pair("layouts that counts are from", left, right)


def _layouts(run: Summary) -> int:
    """0 where nothing was counted. A metric that a boot lacks has fewer values than there were."""
    counted = (figure for figure in run.figures if figure.spread is not None)
    return max((len(values) for one in counted for values in (one.base, one.patched)), default=0)


def _of_times(one: Summary, other: Summary) -> Iterator[Unlike]:
    """Of the places where both measured time: the conditions of that."""
    left, right = _conditions(one), _conditions(other)
    for place in sorted(left.keys() & right.keys()):
        both = left[place], right[place]
        if not all(both):
            known = ("recorded" if conditions else None for conditions in both)
            yield _pair(f"conditions in which time was measured on {place}", *known)
            continue
        for name in dict.fromkeys(name for conditions in both for name in conditions):
            pair = (conditions.get(name) for conditions in both)
            yield _pair(f"{name} on {place} all the time that was measured", *pair)


def _conditions(run: Summary) -> dict[str, dict[str, str]]:
    """By place. Where no value came of it, or of one kernel alone, nothing is compared."""
    timed = (one for one in run.figures if one.spread is None and one.base and one.patched)
    return {figure.place: figure.conditions for figure in timed}


def _values(things: Sequence[_T | None], value: Callable[[_T], object]) -> str | None:
    """What these have, each once, since a group may have several; None if that is not all known."""
    found = [None if thing is None else value(thing) for thing in things]
    if None in found or "" in found:
        return None
    return " or ".join(sorted({str(one) for one in found}))


def _known(run: Summary, machines: Collection[str]) -> list[Host | None]:
    found = {host.name: host for host in run.hosts}
    return [found.get(name) for name in sorted(machines)]


def _places(run: Summary) -> dict[str, _Ran]:
    """The hosts and groups of a run: those of its cells, else those of its figures, or all hosts.

    Costs are counted without cells, and a run of them that came to nothing has no figures either.
    """
    found: dict[str, _Ran] = {}
    for cell in run.cells:
        machines = found.setdefault(cell.host, {}).setdefault(cell.kvm_mode, set())
        machines.update(filter(None, (cell.machine,)))
    for figure in () if found else run.figures:
        found.setdefault(figure.host, {}).setdefault(figure.kvm_mode, set())
    if not found:
        found = {host.name: {None: set()} for host in run.hosts}
    return {
        place: {mode: machines or {place} for mode, machines in ran.items()}
        for place, ran in found.items()
    }


def _shared(one: Summary, other: Summary) -> Iterator[tuple[str, set[str], set[str]]]:
    """The places of both runs, each with the machines there that are held against each other.

    They are those of one KVM mode, whose cells stay on one machine where they can.
    """
    left, right = _places(one), _places(other)
    for place in sorted(left.keys() & right.keys()):
        if None in left[place] or None in right[place]:
            yield place, set().union(*left[place].values()), set().union(*right[place].values())
        for mode in get_args(KvmMode):
            if mode in left[place] and mode in right[place]:
                yield place, left[place][mode], right[place][mode]
