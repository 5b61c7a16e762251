# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own benchmark of aging, access_tracking_perf_test: how it runs, what it says.

Its options differ from tree to tree. Used are those that all trees have: memory of each vCPU (-b)
and vCPUs (-v). How memory is marked idle, by page_idle or by MGLRU, is the tree's own choice.
"""

from __future__ import annotations

import re
from dataclasses import replace

from harness.observe.errors import ObserveError
from harness.selftests.table import SELFTESTS, Selftest
from harness.timing.values import PASSES, SELFTEST

MEMORY = "16M"
MOST_VCPUS = 8
SECONDS = 120.0
"""For a run, with four times the memory that it has as a check."""
LONGEST = (1 + PASSES) * SECONDS
_LINE = re.compile(
    r"^(?P<what>[A-Z][A-Za-z ]{1,60}?)(?: \([a-z_]{1,20}\))? *: "
    r"(?P<seconds>[0-9]{1,6})\.(?P<nanoseconds>[0-9]{9})s$",
    re.MULTILINE,
)
# What it prints -> the metric. It marks memory idle once before writing and once before reading.
METRICS = {
    "Mark memory idle": "time_selftest_idle",
    "Writing to idle memory": "time_selftest_write_idle",
    "Reading from idle memory": "time_selftest_read_idle",
}


def of_machine(cpus: int) -> Selftest:
    """How it runs on a host with so many CPUs: a vCPU for each, up to MOST_VCPUS."""
    table = next(one for one in SELFTESTS if one.name == SELFTEST)
    arguments = ("-b", MEMORY, "-v", str(min(cpus, MOST_VCPUS)))
    return replace(table, arguments=arguments, seconds=SECONDS)


def times(output: str) -> dict[str, int]:
    """By metric, the nanoseconds that one run printed, the sum where it printed several.

    ObserveError if one of them is missing.
    """
    found: dict[str, int] = {}
    for line in _LINE.finditer(output):
        if (metric := METRICS.get(line["what"])) is not None:
            took = int(line["seconds"]) * 1_000_000_000 + int(line["nanoseconds"])
            found[metric] = found.get(metric, 0) + took
    if missing := set(METRICS.values()) - set(found):
        raise ObserveError(SELFTEST, 0, f"it did not print {', '.join(sorted(missing))}")
    return found
