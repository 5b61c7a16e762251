# SPDX-License-Identifier: GPL-2.0-only
"""What the number of a selftest's access faults says, and where it says nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shell import UnaskedShell

from harness.checks.claim import Claim
from harness.checks.overlap import AGE
from harness.checks.racing import ENTER
from harness.inventory import AfMode
from harness.observe.trace import Event
from harness.selftests import faults
from harness.selftests.table import SELFTESTS, Selftest

START = 0xFFFF_8000_0000


def cell(must: AfMode, *, emulated: bool = True) -> Any:
    return SimpleNamespace(cell=SimpleNamespace(af_mode=must), emulated=emulated)


def judged(tmp_path: Path, found: int, must: AfMode, *, emulated: bool = True) -> Claim:
    claim = Claim(tmp_path, "")
    faults.judge(found, 2046, claim, cell(must, emulated=emulated))
    assert claim.observed.startswith(f"{found} access faults for 2046 accesses to old pages")
    assert claim.af_observed is None, "the harness's own checks say that"
    return claim


@pytest.mark.parametrize(("found", "must"), [(0, "hardware"), (2046, "software")])
@pytest.mark.parametrize("emulated", [True, False])
def test_who_must_set_af_does(tmp_path: Path, found: int, must: AfMode, emulated: bool) -> None:
    assert not judged(tmp_path, found, must, emulated=emulated).unjudged


@pytest.mark.parametrize(
    ("found", "must"), [(0, "software"), (1500, "software"), (2047, "software"), (1, "hardware")]
)
def test_another_sets_it(tmp_path: Path, found: int, must: AfMode) -> None:
    with pytest.raises(AssertionError, match=f"{must} must set AF, but its guest took {found} "):
        judged(tmp_path, found, must)


def test_a_cached_translation_spares_a_fault_on_a_real_cpu(tmp_path: Path) -> None:
    claim = judged(tmp_path, 1500, "software", emulated=False)
    assert claim.unjudged == ("who set AF for 546 of these accesses",)
    with pytest.raises(AssertionError):
        judged(tmp_path, 1, "hardware", emulated=False)


def test_no_page_that_was_made_old_says_nothing(tmp_path: Path) -> None:
    claim = Claim(tmp_path, "")
    faults.judge(0, 0, claim, cell("hardware"))
    assert claim.unjudged


def event(name: str, page: int = 0, pages: int = 1) -> Event:
    start = START + page * 4096
    fields = {"start": start, "end": start + pages * 4096} if name == AGE else {}
    return Event(0, 0, "access_tracking", 70, name, "", fields)


def test_what_was_aged_before_the_guest_ran_is_old() -> None:
    first = [event(AGE, 1), event(AGE, 2, 3), event(AGE, 1), event(ENTER), event(ENTER)]
    second = [event(AGE, 1), event(AGE, 9), event(ENTER)]
    assert faults.old_accesses([event(ENTER), *first, *second, event(AGE, 7)]) == 4 + 2


def test_no_trace_is_made_for_what_ages_nothing(tmp_path: Path) -> None:
    test = Selftest("a_test", "", "ok", 5.0)
    with faults.counted(UnaskedShell(), test, Claim(tmp_path, ""), cell("hardware")):
        pass
    assert [test.name for test in SELFTESTS if test.ages] == ["access_tracking_perf_test"]
