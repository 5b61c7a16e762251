# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's kernel may complain of, and what shows by what functions it was aged."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.checks.claim import Claim
from harness.contract_file import Driver
from harness.contract_load import load
from harness.inventory import AfMode, KvmMode
from harness.linux_guest.test_linux_guest import FLUSHES, no_complaints, path_of, recorded
from harness.observe.klog import splats
from harness.paths import PROJECT

STALL = "[   40.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [linux-guest-ini:1]\n"
BAD_PAGE = "[   41.000000] BUG: Bad page state in process linux-guest-ini  pfn:40200\n"
LOCKLESS = load(PROJECT / "series/lockless-aging/series.yaml")


def told(text: str, *, emulated: bool) -> tuple[str, ...]:
    """What is not judged of these reports."""
    claim = Claim(Path("unused"), "")
    no_complaints(claim, splats(text), emulated=emulated)
    return claim.unjudged


def test_a_guest_without_reports_has_none_to_judge() -> None:
    assert not told("", emulated=True)


def test_a_stall_proves_nothing_where_the_host_is_emulated() -> None:
    (words,) = told(STALL, emulated=True)
    assert "soft lockup" in words


def test_a_stall_on_a_real_host_is_the_kernels() -> None:
    with pytest.raises(AssertionError, match="soft lockup"):
        told(STALL, emulated=False)


def test_no_stall_hides_what_else_is_reported() -> None:
    with pytest.raises(AssertionError, match="Bad page"):
        told(STALL + BAD_PAGE, emulated=True)


def cell(mode: KvmMode, af: AfMode = "hardware") -> Any:
    return SimpleNamespace(
        cell=SimpleNamespace(kvm_mode=mode, af_mode=af), host=SimpleNamespace(af=af)
    )


DRIVERS: list[Driver] = ["page_idle", "mglru_walk", "eviction"]


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_held_to_the_fast_path_where_the_contract_has_it_enter_that(
    driver: Driver,
) -> None:
    path = path_of(LOCKLESS, driver, cell("vhe"))
    assert ("kvm_age_gfn_lockless",) in path.enters
    assert path.event is None, "pages are told by what is old"
    assert {"kvm_age_gfn_lockless", *FLUSHES} <= set(recorded(path).functions)


@pytest.mark.parametrize("driver", DRIVERS)
def test_of_what_it_never_enters_the_fast_path_is_looked_at(driver: Driver) -> None:
    path = path_of(LOCKLESS, driver, cell("protected"))
    assert path.never == tuple(name for name in path.fast_path if name in path.never)
    assert "kvm_age_gfn" in {name for step in path.enters for name in step}
