# SPDX-License-Identifier: GPL-2.0-only
"""A deadline by a clock that stands still until it is told to go on."""

from __future__ import annotations

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_runs_out() -> None:
    clock = Clock()
    deadline = Deadline(10, clock)
    assert (deadline.budget, deadline.remaining(), deadline.elapsed()) == (10, 10, 0)
    clock.now += 9.75
    assert not deadline.expired()
    assert (deadline.remaining(), deadline.elapsed()) == (0.25, 9.75)
    deadline.check("the host")
    clock.now += 0.25
    assert deadline.expired()
    clock.now += 100
    assert deadline.remaining() == 0
    with pytest.raises(DeadlineExceeded, match=r"waiting for the host after 10 s"):
        deadline.check("the host")
    assert isinstance(deadline.exceeded("x"), InfraError)


def test_within_never_outlives_the_one_above() -> None:
    clock = Clock()
    above = Deadline(10, clock)
    assert above.within(3).remaining() == 3
    clock.now += 8
    below = above.within(3)
    assert below.remaining() == 2
    clock.now += 2
    assert below.expired()
    assert above.expired()
    assert above.within(3).expired()


def test_no_time_at_all_is_over_at_once() -> None:
    clock = Clock()
    assert Deadline(0, clock).expired()
    assert Deadline(-5, clock).remaining() == 0
