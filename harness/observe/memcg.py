# SPDX-License-Identifier: GPL-2.0-only
"""What a memory cgroup counts (Documentation/admin-guide/cgroup-v2.rst, "Memory").

memory.stat gathers per-CPU counters and may lag by MEMCG_CHARGE_BATCH (64) events for each CPU; in
Linux 6.12 to read cpu.stat gathers them all first (kernel/cgroup/rstat.c).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.observe.errors import ObserveError, shown
from harness.observe.text import unsigned, whole_lines

# Pages that a CPU may hold charged in advance, and events that it may hold back.
BATCH = 64

_SWAP = re.compile(r"Swap: {1,30}(?P<kib>[0-9]{1,15}) kB")


def parse_stat(text: str, source: str = "memory.stat") -> Mapping[str, int]:
    """Name -> bytes, or events for the names of events."""
    values: dict[str, int] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        name, space, value = line.partition(" ")
        if not space or not name or name in values:
            raise ObserveError(source, number, f"not a counter: {shown(line)}")
        values[name] = unsigned(value, source, number)
    if "anon" not in values or "pgscan" not in values:
        raise ObserveError(source, 0, "has no anon or pgscan: truncated or another file")
    return values


def parse_swapped(text: str, source: str = "smaps_rollup") -> int:
    """Pages of 4 KiB of one process that are in swap, from /proc/PID/smaps_rollup.

    It is counted in the page tables, entry by entry; VmSwap in `status` is a batched counter.
    """
    found = [match for line in whole_lines(text, source) if (match := _SWAP.fullmatch(line))]
    if len(found) != 1:
        raise ObserveError(source, 0, f"{len(found)} lines tell of Swap")
    return unsigned(found[0]["kib"], source, 0) // 4
