# SPDX-License-Identifier: GPL-2.0-only
"""What the number of a selftest's access faults says, and where it says nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_shell import UnaskedShell

from harness.checks.claim import Claim
from harness.inventory import AfMode
from harness.observe.unproven import Unproven
from harness.selftests import faults
from harness.selftests.table import SELFTESTS, Selftest


def told(tmp_path: Path, found: int | Unproven, expected: AfMode = "software") -> Claim:
    class Counts:
        def of(self, name: str) -> int:
            assert name == "kvm:kvm_access_fault"
            if isinstance(found, Unproven):
                raise found
            return found

    claim = Claim(tmp_path, "")
    counts: Any = Counts()
    faults.tell(counts, 2048, claim, expected)
    return claim


@pytest.mark.parametrize(
    ("found", "expected", "who", "words"),
    [
        (0, "hardware", "hardware", "; so hardware sets AF, as it must"),
        (0, "software", "hardware", "; so hardware sets AF, but software must"),
        (2048, "software", "software", "; so software sets AF, as it must"),
        (2048, "hardware", "software", "; so software sets AF, but hardware must"),
        (2000, "software", None, ""),
    ],
)
def test_who_sets_af(
    tmp_path: Path, found: int, expected: AfMode, who: str | None, words: str
) -> None:
    claim = told(tmp_path, found, expected)
    assert claim.af_observed == who
    assert claim.observed == f"{found} access faults for 2048 accesses to old pages{words}"


def test_a_count_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    claim = told(tmp_path, Unproven("the trace buffer lost 3 events"))
    assert claim.af_observed is None
    assert claim.observed == "access faults were not counted: the trace buffer lost 3 events"


def test_no_trace_is_made_for_what_ages_nothing(tmp_path: Path) -> None:
    test = Selftest("a_test", "", "ok", 5.0)
    with faults.counted(UnaskedShell(), test, Claim(tmp_path, ""), "hardware"):
        pass
    assert [test.name for test in SELFTESTS if test.old_accesses] == ["access_tracking_perf_test"]
