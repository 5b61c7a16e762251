# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own benchmark of aging, access_tracking_perf_test: how it runs, what it says.

Its options differ from tree to tree. Each way to run it names those that it needs besides the ones
that all trees have, memory of each vCPU (-b) and vCPUs (-v). How memory is marked idle without any,
by page_idle or by MGLRU, is the tree's own choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.observe.errors import ObserveError, shown
from harness.selftests.build import Selftests
from harness.selftests.table import SELFTESTS, Selftest
from harness.timing.values import PASSES, SELFTEST

MEMORY = "16M"
MOST_VCPUS = 8
SECONDS = 120.0
"""For a run, with four times the memory that it has as a check."""
LONGEST = (1 + PASSES) * SECONDS
"""For all runs in one way."""
CGROUPS = "/sys/fs/cgroup"
# What may stand behind the words: in brackets what marked memory idle, and how many passes a mean
# is of. A mean of no passes is none.
_TIME = re.compile(
    r"(?: \([a-z_]{1,20}\))? *: (?P<seconds>[0-9]{1,6})\.(?P<nanoseconds>[0-9]{9})s"
    r"(?:, \(passes:[1-9][0-9]{0,8}, total:[0-9]{1,6}\.[0-9]{9}s\))?"
)


@dataclass(frozen=True)
class Printed:
    """A time that it prints so many times in a run, and the metric that is the sum of them."""

    words: str
    metric: str
    times: int = 1


@dataclass(frozen=True)
class Way:
    """A way to run it, and what it prints then."""

    printed: tuple[Printed, ...]
    """The last of them shows that it came to its end."""
    options: frozenset[str] = frozenset()
    """What its getopt() must know, as getopt.py has it."""
    arguments: tuple[str, ...] = ()


ITS_OWN = Way(
    (
        # Before writing and before reading.
        Printed("Mark memory idle", "time_selftest_idle", 2),
        Printed("Writing to idle memory", "time_selftest_write_idle"),
        Printed("Reading from idle memory", "time_selftest_read_idle"),
    )
)
MGLRU = Way(
    (
        # Twice before writing, twice before reading, and once at the end.
        Printed("lru_gen: Aging", "time_selftest_mglru", 5),
        Printed("Writing to idle memory", "time_selftest_mglru_write"),
        Printed("Reading from idle memory", "time_selftest_mglru_read"),
    ),
    frozenset({"l", "r:"}),
    ("-l", "-r", CGROUPS),
)
FAULTS = Way(
    (
        Printed("vcpu wall time", "time_selftest_faults_vcpus"),
        Printed("lru_gen avg pass duration", "time_selftest_faults_pass"),
    ),
    MGLRU.options | {"p"},
    (*MGLRU.arguments, "-p"),
)
WAYS = (ITS_OWN, MGLRU, FAULTS)
ALTOGETHER = len(WAYS) * LONGEST


def chosen(way: Way, built: Sequence[Selftests]) -> Selftests | None:
    """The first tree whose program can be run in this way, None if none can.

    Which kernel runs is no part of it: a time is compared between kernels, so one program must
    make it on both.
    """
    return next(
        (one for one in built if way.options <= one.options.get(SELFTEST, frozenset())), None
    )


def of_machine(cpus: int, way: Way) -> Selftest:
    """How it runs on a host with so many CPUs: a vCPU for each, up to MOST_VCPUS."""
    table = next(one for one in SELFTESTS if one.name == SELFTEST)
    arguments = ("-b", MEMORY, "-v", str(min(cpus, MOST_VCPUS)), *way.arguments)
    return replace(table, arguments=arguments, seconds=SECONDS, shown=way.printed[-1].words)


def times(output: str, way: Way) -> dict[str, int]:
    """By metric, the nanoseconds that one run printed, the sum where it printed several.

    ObserveError if one of them is in another form, or is not there as often as it must be.
    """
    found: dict[str, list[int]] = {one.words: [] for one in way.printed}
    for number, line in enumerate(output.splitlines(), 1):
        # Anywhere: what the program writes elsewhere may have come between.
        words = next((words for words in found if words in line), None)
        if words is None:
            continue
        time = _TIME.fullmatch(line.removeprefix(words))
        if time is None:
            raise ObserveError(SELFTEST, number, f"not a time: {shown(line)}")
        found[words].append(int(time["seconds"]) * 1_000_000_000 + int(time["nanoseconds"]))
    wrong = [
        f"{one.words!r} {len(found[one.words])} times and not {one.times} ({one.metric})"
        for one in way.printed
        if len(found[one.words]) != one.times
    ]
    if wrong:
        raise ObserveError(SELFTEST, 0, f"it printed {', '.join(wrong)}")
    return {one.metric: sum(found[one.words]) for one in way.printed}
