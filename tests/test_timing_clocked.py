# SPDX-License-Identifier: GPL-2.0-only
"""What is timed by the guest program's clock, against saved and spoiled replies."""

from __future__ import annotations

import pytest
from fake_guest import EXITS, start

from harness.errors import InfraError
from harness.timing import clocked


def test_what_is_timed_is_one_exchange_by_the_clock_of_the_host() -> None:
    guest, process = start(
        "ok ns=1000;ok;ok ns=4500",
        "ok ns=1;ok;ok ns=2",
        "ok ns=1;ok;ok ns=2",
        "ok ns=1;ok left=1064 high=1000;ok ns=3",
        f"ok ns=100;ok vcpu=0 pages=2 {EXITS};ok ns=350",
    )
    took = [clocked.idle_again(guest), clocked.walk(guest), clocked.reclaim(guest, 7)]
    took.append(clocked.squeeze(guest, 7))
    took.append(clocked.touch(guest, {3, 4}, write=True))
    assert took == [3500, 1, 1, 2, 250]
    assert process.sent == [
        "clock;idle-again;clock",
        "clock;walk;clock",
        "clock;reclaim 7;clock",
        "clock;squeeze 7;clock",
        "clock;touch write 0 3-4;clock",
    ]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("ok ns=2;ok;ok ns=1", "went back"),
        ("ok ns=2;ok;ok", "fields"),
        ("ok ns=2;ok;ok ns=x", "number"),
        ("ok ns=2;error system memory.reclaim: Resource temporarily unavailable (errno 11)", "11"),
    ],
)
def test_a_time_that_cannot_be_is_refused(answer: str, why: str) -> None:
    guest, _ = start(answer)
    with pytest.raises(InfraError, match=why):
        clocked.walk(guest)


def test_a_limit_that_the_kernel_did_not_meet_is_no_time() -> None:
    guest, _ = start("ok ns=1;ok left=1065 high=1000;ok ns=3")
    with pytest.raises(InfraError, match="the kernel left more"):
        clocked.squeeze(guest, 7)


def test_a_timed_touch_touches_what_was_asked() -> None:
    guest, _ = start(f"ok ns=1;ok vcpu=0 pages=1 {EXITS};ok ns=2")
    with pytest.raises(InfraError, match="not what was asked"):
        clocked.touch(guest, {3, 4}, write=False)
