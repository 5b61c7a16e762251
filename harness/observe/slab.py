# SPDX-License-Identifier: GPL-2.0-only
"""Objects of the kernel's allocator, from /proc/slabinfo (Documentation: man 5 slabinfo)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from harness.observe.errors import ObserveError, shown
from harness.observe.text import unsigned, whole_lines

PATH = "/proc/slabinfo"
_CACHE = re.compile(
    r"(?P<name>[^ ]{1,64}) {1,40}(?P<active>[0-9]{1,12}) {1,12}[0-9]{1,12} {1,12}"
    r"(?P<size>[0-9]{1,9}) {1,9}(?P<per_slab>[0-9]{1,6}) {1,6}[0-9]{1,6} : .{1,120}"
)


@dataclass(frozen=True)
class Cache:
    """Objects of `size` bytes in use, in slabs that hold `per_slab` of them.

    The slabs that a CPU works with count as if all of their objects were in use.
    """

    active: int
    size: int
    per_slab: int


def parse(text: str, source: str = PATH) -> Mapping[str, Cache]:
    """Name of each cache -> its objects."""
    caches: dict[str, Cache] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        if line.startswith(("#", "slabinfo - version: 2.")):
            continue
        match = _CACHE.fullmatch(line)
        if match is None or match["name"] in caches:
            raise ObserveError(source, number, f"not a cache: {shown(line)}")
        active, size, per_slab = (
            unsigned(match[key], source, number) for key in ("active", "size", "per_slab")
        )
        caches[match["name"]] = Cache(active, size, per_slab)
    if not any(name.startswith("kmalloc") for name in caches):
        raise ObserveError(source, 0, "has no kmalloc cache: truncated or another file")
    return caches


def judged(readings: tuple[Mapping[str, Cache], ...], count: int, cpus: int) -> tuple[str, ...]:
    """Caches of kmalloc() that would show an object for each of `count` events.

    Those whose slabs hold more than a third of `count` objects say nothing. Nor do those that grow
    as much where each of `cpus` CPUs takes one more slab to work with, and caches of one kind of
    object, some of which are freed in bulk long after (vmap_area).
    """
    return tuple(
        name
        for name, last in readings[-1].items()
        if name.startswith("kmalloc")
        and max(3, cpus + 1) * last.per_slab <= count
        and all(name in reading for reading in readings)
    )


def grown(
    readings: tuple[Mapping[str, Cache], ...], count: int, cpus: int
) -> Mapping[str, tuple[int, ...]]:
    """Caches of kmalloc() that grew by an object for each of `count` events, between all readings.

    A reading counts in whole slabs, so growth may show as up to a slab less.
    """
    found: dict[str, tuple[int, ...]] = {}
    for name in judged(readings, count, cpus):
        last = readings[-1][name]
        values = [reading[name].active for reading in readings]
        rises = tuple(after - before for before, after in pairwise(values))
        if all(rise >= count - last.per_slab for rise in rises):
            found[name] = rises
    return found


def restless(
    readings: tuple[Mapping[str, Cache], ...], names: Iterable[str], count: int
) -> Mapping[str, int]:
    """Of these caches the ones that move by more than half of what grown() asks for; how much.

    `readings` are of a time without any of the events: an object for each of them may be another's
    there, or be hidden by what others free.
    """
    found: dict[str, int] = {}
    for name in names:
        values = [reading[name].active for reading in readings]
        moved = max(values) - min(values)
        if 2 * moved > count - readings[-1][name].per_slab:
            found[name] = moved
    return found
