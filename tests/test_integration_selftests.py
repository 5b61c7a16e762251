# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own KVM selftests on the emulated host: two that are short, and one without end."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import Ended, kvm_harness

from harness.selftests import ktap
from harness.selftests.table import SELFTESTS

pytestmark = pytest.mark.integration

CELL = "n1-vhe-base"
LATE = Path(__file__).with_name("late_selftest.py")
SHORT = ("memslot_modification_stress_test", "kvm_binary_stats_test")


def point(done: Ended, check: str) -> ktap.Point:
    """The one test point of a check's evidence, which is a whole document."""
    (path,) = (one for one in done.check(CELL, check)["evidence"] if one.endswith("/ktap.txt"))
    results = ktap.parse((done.folder / path).read_text())
    assert (results.plan, results.problems, results.bail) == (1, (), None)
    (one,) = results.points
    return one


def test_selftests_end_by_themselves_or_by_their_deadline(tmp_path: Path) -> None:
    """The late one comes first, so the others show as well that nothing of it is left."""
    what = ["--selftests", "--checks", str(LATE), "-k", " or ".join(("deadline", *SHORT))]
    done = kvm_harness(["run", "--base-only", "--host", "n1", "--mode", "vhe", *what], tmp_path)
    names = ["test_beyond_its_deadline", *(f"test_selftest[{name}]" for name in SHORT)]
    assert [one["name"] for one in done.summary["checks"]] == names

    # No kernel lived through it, so it says nothing of any.
    assert done.returncode == 3
    late = done.check(CELL, names[0])
    assert (late["outcome"], late["death"]) == ("error", "livelock")
    ended = point(done, names[0])
    assert (ended.ok, ended.directive) == (False, "TIMEOUT")
    (threads,) = (one for one in late["evidence"] if one.endswith("/threads.txt"))
    assert "memslot_modific" in (done.folder / threads).read_text()

    for name, check in zip(SHORT, names[1:], strict=True):
        (test,) = (test for test in SELFTESTS if test.name == name)
        told = done.check(CELL, check)
        assert (told["outcome"], told["reason"]) == ("pass", "")
        assert told["expected"] == f"{name} {' '.join(test.arguments)} passes: {test.claim}"
        passed = point(done, check)
        assert (passed.ok, passed.name, passed.directive) == (True, name, "")
        assert told["observed"] == f"{name}: ok {passed.detail}"
        assert 0 <= float(passed.detail.removesuffix(" s")) < test.seconds
    assert "# All vCPU threads joined" in point(done, names[1]).log
    inner = point(done, names[2]).subtests
    assert inner is not None and inner.plan == len(inner.points) > 0
    assert {one.ok for one in inner.points} == {True}
