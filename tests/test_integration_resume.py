# SPDX-License-Identifier: GPL-2.0-only
"""A run that is killed goes on from its records: no check twice, none left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from kill_points import kill, resume

pytestmark = pytest.mark.integration

CELL = "n1-vhe-base"
CHOICE = ["-m", "quick", "-k", "test_page_idle or test_referenced or test_kernel_log"]
CHECKS = {"test_page_idle", "test_referenced", "test_kernel_log"}


def has(path: Path, text: str) -> bool:
    """Whether a file that grows while the run lives has come so far."""
    return path.exists() and text in path.read_text()


def test_killed_after_its_first_check(tmp_path: Path) -> None:
    """Another boot does what the first left, and what the first said is judged as well."""
    args = ["--base-only", "--host", "n1", "--mode", "vhe", *CHOICE]
    killed = kill(args, tmp_path, lambda run: has(run / "cells" / CELL / "records.jsonl", "\n"))
    assert not killed.ended
    cell = killed.folder / "cells" / CELL
    done = resume(killed, tmp_path)
    assert done.returncode == 0
    assert len(done.summary["resumed"]) == 1
    found = {check["name"]: check["outcome"] for check in done.summary["checks"]}
    assert found == dict.fromkeys(CHECKS, "pass")
    assert [path.name for path in cell.glob("cut-*")] == ["cut-1"]
    boots = {(path / "booted.json").read_text() for path in (cell, cell / "cut-1")}
    assert len(boots) == 2
    assert done.summary["cells"][0]["boot_id"] in (cell / "booted.json").read_text()
    log = done.check(CELL, "test_kernel_log")["evidence"]
    assert "console-cut-1.txt" in {Path(path).name for path in log}
