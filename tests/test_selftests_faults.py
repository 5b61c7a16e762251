# SPDX-License-Identifier: GPL-2.0-only
"""What the number of a selftest's access faults says, and where it says nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shell import UnaskedShell

from harness.checks.claim import Claim
from harness.inventory import AfMode
from harness.selftests import faults
from harness.selftests.faults import Faults
from harness.selftests.table import SELFTESTS, Selftest


def cell(must: AfMode, *, emulated: bool = True) -> Any:
    return SimpleNamespace(cell=SimpleNamespace(af_mode=must), emulated=emulated)


def judged(tmp_path: Path, found: int, must: AfMode, *, emulated: bool = True) -> Claim:
    claim = Claim(tmp_path, "")
    faults.judge(Faults(found, 2048), claim, cell(must, emulated=emulated))
    assert claim.af_observed is None, "the harness's own checks say that"
    return claim


@pytest.mark.parametrize(("found", "must"), [(0, "hardware"), (2048, "software")])
@pytest.mark.parametrize("emulated", [True, False])
def test_who_must_set_af_does(tmp_path: Path, found: int, must: AfMode, emulated: bool) -> None:
    assert not judged(tmp_path, found, must, emulated=emulated).unjudged


@pytest.mark.parametrize(("found", "must"), [(0, "software"), (2049, "software"), (1, "hardware")])
def test_another_sets_it(tmp_path: Path, found: int, must: AfMode) -> None:
    with pytest.raises(
        AssertionError, match=f"{must} must set AF, but its guest took {found} access"
    ):
        judged(tmp_path, found, must)


@pytest.mark.parametrize(("found", "emulated"), [(1500, True), (1500, False), (0, False)])
def test_fewer_faults_than_accesses_say_nothing_of_the_others(
    tmp_path: Path, found: int, emulated: bool
) -> None:
    claim = judged(tmp_path, found, "software", emulated=emulated)
    assert claim.unjudged == (f"who set AF for {2048 - found} of these accesses",)


def test_hardware_takes_no_fault_on_a_real_cpu_either(tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        judged(tmp_path, 1, "hardware", emulated=False)


def test_no_trace_is_made_for_what_ages_nothing(tmp_path: Path) -> None:
    test = Selftest("a_test", "", "ok", 5.0)
    with faults.counted(UnaskedShell(), test, Claim(tmp_path, ""), []):
        pass
    assert [test.name for test in SELFTESTS if test.old_accesses] == ["access_tracking_perf_test"]
