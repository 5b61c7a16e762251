# SPDX-License-Identifier: GPL-2.0-only
"""What access_tracking_perf_test prints, in Linux 6.12 and as other trees word it."""

from __future__ import annotations

import pytest

from harness.observe.errors import ObserveError
from harness.timing import tracking
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


def test_times_in_nanoseconds_and_those_of_both_marks_together() -> None:
    assert tracking.times(OUTPUT) == {
        "time_selftest_idle": 51_000_003,
        "time_selftest_write_idle": 1_500_000_000,
        "time_selftest_read_idle": 7,
    }


def test_how_memory_is_marked_may_be_named() -> None:
    other = OUTPUT.replace("Mark memory idle              ", "Mark memory idle (lru_gen)    ")
    assert tracking.times(other) == tracking.times(OUTPUT)


@pytest.mark.parametrize("text", ["", OUTPUT.replace("Reading from idle memory", "Read")])
def test_a_time_that_is_missing(text: str) -> None:
    with pytest.raises(ObserveError, match="time_selftest_read_idle"):
        tracking.times(text)


def test_each_metric_is_one_that_is_judged() -> None:
    assert {name.replace("_", "-") for name in tracking.METRICS.values()} <= set(METRICS)


@pytest.mark.parametrize(("cpus", "vcpus"), [(1, "1"), (2, "2"), (160, "8")])
def test_a_vcpu_on_each_cpu(cpus: int, vcpus: str) -> None:
    assert tracking.of_machine(cpus).arguments == ("-b", "16M", "-v", vcpus)
