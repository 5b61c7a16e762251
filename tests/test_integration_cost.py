# SPDX-License-Identifier: GPL-2.0-only
"""The real base kernel counts the same twice, to the last byte of the console."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import kvm_harness

pytestmark = pytest.mark.integration


def test_two_boots_are_alike(tmp_path: Path) -> None:
    where = ["--host", "n1", "--mode", "vhe"]
    how = ["--no-neutral", "--layouts", "1", "--repeat", "2"]
    done = kvm_harness(["cost", "--base-only", *where, *how], tmp_path)
    assert done.returncode == 0
    check = done.check("series", "cost[n1-vhe]")
    assert check["outcome"] == "pass"
    assert "2 boots of each kernel alike" in check["observed"]
    figures = {one["metric"]: one for one in done.summary["figures"]}
    assert figures["calls-idle"]["base"] == [1.0]
    assert figures["faults-access"]["base"] == [0.0]
    assert 100 < figures["cost-notifier"]["base"][0] < 10_000
    for name in ("damon", "damon-check", "khugepaged"):
        assert figures[f"calls-{name}"]["base"] == [1.0]
        assert 500 < figures[f"cost-{name}"]["base"][0] < 10_000
    for name in figures["cost-walk"]["evidence"]:
        assert (done.folder / name).stat().st_size
