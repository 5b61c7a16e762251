# SPDX-License-Identifier: GPL-2.0-only
"""What access_tracking_perf_test prints, in Linux 6.12 and as other trees word it."""

from __future__ import annotations

import pytest

from harness.observe.errors import ObserveError
from harness.timing import tracking
from harness.timing.tracking import FAULTS, ITS_OWN, MGLRU, WAYS
from harness.timing.values import METRICS

OUTPUT = """\
Random seed: 0x6b8b4567
Testing guest mode: PA-bits:40,  VA-bits:48,  4K pages
guest physical test memory: [0xffffe000000, 0xffffffff000)

Populating memory             : 0.015360000s
Writing to populated memory   : 0.000660000s
Reading from populated memory : 0.000540000s
Mark memory idle              : 0.031000001s
Writing to idle memory        : 1.500000000s
Mark memory idle              : 0.020000002s
Reading from idle memory      : 0.000000007s
"""


# As series that bring -l have it, built with DEBUG.
BY_MGLRU = """\
Created memcg at /sys/fs/cgroup/access_tracking_perf_test
Populating memory             : 0.015360000s
Writing to populated memory   : 0.000660000s
Reading from populated memory : 0.000540000s
lru_gen: invoking aging...
Running aging command: + 34 0 3 1 1
lru_gen: Aging                : 0.500000001s
lru_gen: Aging                : 0.400000000s
Writing to idle memory        : 0.010000000s
lru_gen: Aging                : 0.600000000s
lru_gen: Aging                : 0.400000000s
Reading from idle memory      : 0.008000000s
lru_gen: Aging                : 0.600000000s
"""
WHILE_FAULTING = """\
Running lru_gen benchmark...
Populating memory (async)
vcpu wall time                : 3.000000005s
lru_gen avg pass duration     : 0.300000007s, (passes:11, total:3.300000080s)
"""


def test_times_in_nanoseconds_and_those_of_both_marks_together() -> None:
    assert tracking.times(OUTPUT, ITS_OWN) == {
        "time_selftest_idle": 51_000_003,
        "time_selftest_write_idle": 1_500_000_000,
        "time_selftest_read_idle": 7,
    }


def test_how_memory_is_marked_may_be_named() -> None:
    other = OUTPUT.replace("Mark memory idle              ", "Mark memory idle (lru_gen)    ")
    assert tracking.times(other, ITS_OWN) == tracking.times(OUTPUT, ITS_OWN)


def test_times_of_aging_by_mglru() -> None:
    assert tracking.times(BY_MGLRU, MGLRU) == {
        "time_selftest_mglru": 2_500_000_001,
        "time_selftest_mglru_write": 10_000_000,
        "time_selftest_mglru_read": 8_000_000,
    }


def test_times_of_aging_while_vcpus_fault() -> None:
    assert tracking.times(WHILE_FAULTING, FAULTS) == {
        "time_selftest_faults_vcpus": 3_000_000_005,
        "time_selftest_faults_pass": 300_000_007,
    }


@pytest.mark.parametrize("text", ["", OUTPUT.replace("Reading from idle memory", "Read")])
def test_a_time_that_is_missing(text: str) -> None:
    with pytest.raises(ObserveError, match="time_selftest_read_idle"):
        tracking.times(text, ITS_OWN)


def test_a_sum_of_fewer_or_more_is_none() -> None:
    line = "lru_gen: Aging                : 0.600000000s\n"
    for other in (BY_MGLRU.removesuffix(line), BY_MGLRU + line):
        with pytest.raises(ObserveError, match=r"'lru_gen: Aging' [46] times and not 5"):
            tracking.times(other, MGLRU)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.300000007s, ", "300000007ns, "),
        ("0.300000007s, ", "-0.300000007s, "),
        ("0.300000007s, ", "0.300007s, "),
        ("passes:11", "passes:0"),
        ("0080s)", "0080s) "),
        (", (passes:11, total:3.300000080s)", " (11 passes)"),
        ("lru_gen avg", "\tgen 3 lru_gen avg"),
    ],
)
def test_another_form_is_an_error_that_shows_the_line(old: str, new: str) -> None:
    with pytest.raises(ObserveError, match=r":4: not a time: '.*lru_gen avg pass") as caught:
        tracking.times(WHILE_FAULTING.replace(old, new), FAULTS)
    assert new.replace("\t", "\\t") in str(caught.value)


def test_each_metric_is_one_that_is_judged() -> None:
    names = [one.metric.replace("_", "-") for way in WAYS for one in way.printed]
    assert sorted(names) == sorted(name for name in METRICS if "selftest" in name)


@pytest.mark.parametrize(("cpus", "vcpus"), [(1, "1"), (2, "2"), (160, "8")])
def test_a_vcpu_on_each_cpu(cpus: int, vcpus: str) -> None:
    common = ("-b", "16M", "-v", vcpus)
    assert tracking.of_machine(cpus, ITS_OWN).arguments == common
    ways = {way: tracking.of_machine(cpus, way).arguments[4:] for way in (MGLRU, FAULTS)}
    assert ways[MGLRU] == ("-l", "-r", "/sys/fs/cgroup")
    assert ways[FAULTS] == ("-l", "-r", "/sys/fs/cgroup", "-p")
