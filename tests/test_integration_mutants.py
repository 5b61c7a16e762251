# SPDX-License-Identifier: GPL-2.0-only
"""Kernels broken on purpose, through the real command: what is caught, missed, or a false alarm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command import Ended, kvm_harness

from harness.mutants.results import Matrix, Result
from harness.mutants.table import patch_of

pytestmark = pytest.mark.integration

# Two of these entries say what is not so. The command must find that out.
LIES = """\
schema: 1
claims: {1: exactness}
mutants:
  caught: {breaks: young pages, claim: 1, cells: [vhe hardware], check: "test_access_flag[anon]"}
  missed: {breaks: nothing, claim: 1, cells: [vhe hardware], check: "test_access_flag[anon]"}
  alarm: {breaks: all, kind: neutral}
"""
PATCHES = {
    "caught": "young-not-reported",
    "missed": "neutral-comment",
    "alarm": "young-not-reported",
}


def matrix(done: Ended) -> Matrix:
    return Matrix.model_validate(json.loads((done.folder / "mutants.json").read_text()))


def found(done: Ended) -> dict[str, str | None]:
    return {result.name: result.found for result in matrix(done).results}


def assert_evidence(done: Ended, result: Result) -> None:
    for one in result.ran:
        assert (done.folder / one.folder / "records.jsonl").is_file()
        assert (done.folder / one.folder / "console.log").is_file()


def test_mutants_are_caught_by_the_check_named(tmp_path: Path) -> None:
    names = "af-of-neighbour or (hw-af-off and not pkvm)"
    target = tmp_path / "mutants.md"
    args = ["mutants", "--named", "-k", names, "--markdown", str(target)]
    done = kvm_harness(args, tmp_path)
    assert done.returncode == 0
    assert found(done) == {"base": "pass", "af-of-neighbour": "caught", "hw-af-off": "caught"}
    where = {(result.name, one.cell) for result in matrix(done).results for one in result.ran}
    assert where == {
        ("base", "n1-vhe"),
        ("base", "a57-nvhe"),
        ("af-of-neighbour", "a57-nvhe"),
        ("hw-af-off", "n1-vhe"),
    }
    for result in matrix(done).results:
        assert_evidence(done, result)
    assert "| `af-of-neighbour` |" in target.read_text()


def test_what_the_table_says_wrongly_is_found_out(tmp_path: Path) -> None:
    table = tmp_path / "mutants.yaml"
    table.write_text(LIES)
    for name, patch in PATCHES.items():
        (tmp_path / f"{name}.patch").write_bytes(patch_of(patch).read_bytes())
    args = ["mutants", "--named", "--table", str(table), "--host", "n1", "--mode", "vhe"]
    done = kvm_harness(args, tmp_path)
    assert done.returncode == 1
    assert found(done) == {
        "base": "pass",
        "caught": "caught",
        "missed": "missed",
        "alarm": "false alarm",
    }


def test_a_callback_that_a_series_has_renamed_is_found(tmp_path: Path) -> None:
    """A name that is nobody's interface: what it is called must not decide what can be proven."""
    series = ["--series", str(patch_of("neutral-rename"))]
    # The first of them has a trace before it has a guest.
    where = ["--host", "n1", "--mode", "vhe", "-k", "test_unmap_waits or test_race_unmap"]
    done = kvm_harness(["run", *series, *where], tmp_path)
    assert done.returncode == 0
    words = "stage2_age_walker() is stage2_test_clear_young_walker() in this kernel"
    told = {(check["cell"], words in check["observed"]) for check in done.summary["checks"]}
    assert told == {("n1-vhe-base", False), ("n1-vhe-patched", True)}
    observed = " ".join(check["observed"] for check in done.summary["checks"])
    assert "not widened" not in observed
