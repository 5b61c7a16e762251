# SPDX-License-Identifier: GPL-2.0-only
"""The check of the kernel's log: what counts as silence."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shell import UnaskedShell

from harness.checks.claim import Claim
from harness.checks.test_kernel_log import test_kernel_log as check
from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.observe import lockdep
from harness.observe.unproven import Unproven

DATA = Path(__file__).parent / "data/observe"
CLEAN = (DATA / "klog/clean-neoverse-n1-debug.console").read_text()
WATCHING = (DATA / "lockdep/watching.txt").read_text()
OFF = (DATA / "lockdep/switched-off.txt").read_text()


class Host(UnaskedShell):
    """A host with this log and this state of lockdep."""

    def __init__(self, log: str, stats: str | None) -> None:
        self._log, self._stats = log, stats

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        assert command == "dmesg"
        return Result(command, 0, self._log, "")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert path == lockdep.STATS and self._stats is not None
        return self._stats


def judge(tmp_path: Path, log: str, stats: str | None) -> Claim:
    claim = Claim(tmp_path, "")
    cell: Any = SimpleNamespace(debug=stats is not None, folder=tmp_path)
    check(Host(log, stats), lambda: log, claim, cell)
    return claim


def test_a_plain_kernel_is_asked_for_no_lockdep(tmp_path: Path) -> None:
    assert "lockdep" not in judge(tmp_path, CLEAN, None).observed


def test_a_debug_kernel_must_have_watched_to_the_end(tmp_path: Path) -> None:
    assert "lockdep watched to the end" in judge(tmp_path, CLEAN, WATCHING).observed
    assert (tmp_path / "lockdep_stats.txt").read_text() == WATCHING
    with pytest.raises(Unproven, match="switched itself off"):
        judge(tmp_path, CLEAN, OFF)


def test_a_report_is_a_failure_whether_or_not_lockdep_went_off_with_it(tmp_path: Path) -> None:
    splat = (DATA / "klog/lockdep-circular.console").read_text()
    for stats in (WATCHING, OFF):
        with pytest.raises(AssertionError, match="circular locking"):
            judge(tmp_path, CLEAN + splat, stats)


def test_a_boot_that_was_cut_off_is_judged_with_the_one_that_went_on(tmp_path: Path) -> None:
    """Nothing else does, and its console may end anywhere."""
    cut = tmp_path / "cut-1"
    cut.mkdir()
    (cut / "console.log").write_text("")
    judge(tmp_path, CLEAN, None)
    splat = (DATA / "klog/lockdep-circular.console").read_text()
    (cut / "console.log").write_text(CLEAN + splat)
    with pytest.raises(AssertionError, match="circular locking"):
        judge(tmp_path, CLEAN, None)
    assert (tmp_path / "console-cut-1.txt").read_text() == CLEAN + splat


def test_errors_of_the_hardware_that_were_corrected_are_a_note(tmp_path: Path) -> None:
    told = "[    9.000001] {1}[Hardware Error]: event severity: corrected\n"
    assert "that were corrected: 2" in judge(tmp_path, CLEAN + told * 2, None).observed
    assert "corrected" not in judge(tmp_path, CLEAN, None).observed
