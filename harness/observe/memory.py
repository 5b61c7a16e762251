# SPDX-License-Identifier: GPL-2.0-only
"""Pages of memory that nothing admits to have: not free, and in no line of /proc/meminfo.

A table that is lost after it has left SecPageTables shows here and nowhere else. Free pages alone
say little: page cache, slab and each CPU's list of free pages move them by hundreds at any moment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.observe.errors import ObserveError
from harness.observe.text import unsigned, whole_lines

PAGE = 4096

# Disjoint users of pages in /proc/meminfo (Documentation/filesystems/proc.rst). Cached has Shmem
# and SwapCached beside it, Slab has SReclaimable and SUnreclaim in it.
_USERS = (
    *("MemFree", "Buffers", "Cached", "SwapCached", "AnonPages", "Slab", "KernelStack"),
    *("PageTables", "SecPageTables", "Percpu", "VmallocUsed"),
)
_PCP = re.compile(r" {10,20}count: {1,20}(?P<count>[0-9]{1,12})")


def parse_pcp(text: str, source: str = "/proc/zoneinfo") -> int:
    """Free pages on the lists of all CPUs, which MemFree leaves out."""
    lines = whole_lines(text, source)
    found = [
        unsigned(match["count"], source, number)
        for number, line in enumerate(lines, 1)
        if (match := _PCP.fullmatch(line))
    ]
    if not found:
        raise ObserveError(source, 0, "tells of no CPU's list of pages")
    return sum(found)


def apart(text: str) -> tuple[str, str, str]:
    """What one cat(1) of /proc/zoneinfo, /proc/meminfo and /proc/zoneinfo printed, file by file."""
    first, _, rest = text.partition("MemTotal:")
    meminfo, _, last = rest.partition("\nNode ")
    return first, f"MemTotal:{meminfo}\n", f"Node {last}"


def unaccounted(meminfo: Mapping[str, int], pcp: int) -> int:
    """Pages in use that no line of /proc/meminfo (in bytes) accounts for; `pcp` is parse_pcp()."""
    known = sum(meminfo.get(name, 0) for name in _USERS)
    return (meminfo["MemTotal"] - known) // PAGE - pcp
