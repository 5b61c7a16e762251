# SPDX-License-Identifier: GPL-2.0-only
"""/proc/vmstat and /proc/meminfo (Documentation/filesystems/proc.rst)."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.observe.errors import ObserveError, shown
from harness.observe.text import unsigned, whole_lines

_MEMINFO = re.compile(r"(?P<name>[A-Za-z0-9_()]{1,40}): {0,20}(?P<value>[0-9]{1,20})(?P<kb> kB)?")


def parse_vmstat(text: str, source: str = "/proc/vmstat") -> Mapping[str, int]:
    """Name -> value; events since boot, or pages of 4 KiB for the names that begin with nr_."""
    values: dict[str, int] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        words = line.split(" ")
        if len(words) != 2 or not words[0] or words[0] in values:
            raise ObserveError(source, number, f"not a counter: {shown(line)}")
        values[words[0]] = unsigned(words[1], source, number)
    if "nr_free_pages" not in values:
        raise ObserveError(source, 0, "has no nr_free_pages: truncated or another file")
    return values


def parse_meminfo(text: str, source: str = "/proc/meminfo") -> Mapping[str, int]:
    """Name -> bytes, or a number of pages for the four that have no unit (HugePages_*).

    SecPageTables holds the stage-2 tables. It lags until /proc/sys/vm/stat_refresh is written, and
    tables that are freed under RCU leave it after the grace period only.
    """
    values: dict[str, int] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        match = _MEMINFO.fullmatch(line)
        if match is None or match["name"] in values:
            raise ObserveError(source, number, f"not an amount: {shown(line)}")
        value = unsigned(match["value"], source, number)
        values[match["name"]] = value * 1024 if match["kb"] else value
    if "MemTotal" not in values:
        raise ObserveError(source, 0, "has no MemTotal: truncated or another file")
    return values
