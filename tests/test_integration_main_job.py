# SPDX-License-Identifier: GPL-2.0-only
"""The main job, whole: what `make run` does, on the real emulated hosts."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from command import kvm_harness

from harness.results import Summary

pytestmark = pytest.mark.integration

MODES = {"n1": ("vhe", "nvhe", "protected"), "a57": ("nvhe", "protected")}
CELLS = {
    f"{host}-{mode}-{kernel}"
    for host, modes in MODES.items()
    for mode in modes
    for kernel in ("base", "patched", "patched-sw-af")
}


def test_main_job(tmp_path: Path) -> None:
    done = kvm_harness(["run"], tmp_path)
    assert done.returncode == 0
    assert done.folder.is_relative_to(tmp_path)
    run = Summary.model_validate(done.summary)
    assert run.verdict == "pass"
    assert run.series == "stage2-sw-af"
    assert {cell.id for cell in run.cells} == CELLS
    base, patched = run.kernels
    assert (base.label, patched.label) == ("base", "patched")
    assert base.build_id != patched.build_id

    for cell in run.cells:
        wanted = "software" if "a57" in cell.id or "sw-af" in cell.id else "hardware"
        assert (cell.outcome, cell.af_mode, cell.af_observed) == ("pass", wanted, wanted)
        assert cell.build_id == (base if cell.kernel == "base" else patched).build_id
    assert len({cell.boot_id for cell in run.cells}) == len(CELLS)

    passed = {(check.cell, check.name) for check in run.checks if check.outcome == "pass"}
    for cell in run.cells:
        names = {name for where, name in passed if where == cell.id}
        assert {"test_access_flag[anon]", "test_page_idle", "test_mglru_walk"} <= names
        assert {"test_eviction", "test_hot_page", "test_kernel_log"} <= names
        assert ("test_protected" in names) == (cell.kvm_mode == "protected")
        assert ("test_af_file" in names) == (cell.kernel == "patched")
    for check in run.checks:
        assert check.expected
        assert all((done.folder / path).is_file() for path in check.evidence)
        assert check.outcome == "skip" or check.evidence

    suites = ET.parse(done.folder / "junit.xml").getroot()
    assert len(suites.findall("testsuite")) == len(CELLS)
    assert not suites.findall(".//failure") + suites.findall(".//error")
    assert "emulated hosts" in done.stdout.lower()
