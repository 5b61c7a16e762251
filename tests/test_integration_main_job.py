# SPDX-License-Identifier: GPL-2.0-only
"""The main job on the real emulated hosts: every cell, and each check in one of them."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from command import kvm_harness

from harness import selection
from harness.results import Summary

pytestmark = pytest.mark.integration

MODES = {"n1": ("vhe", "nvhe", "protected"), "a57": ("nvhe", "protected")}
CELLS = {
    f"{host}-{mode}-{kernel}"
    for host, modes in MODES.items()
    for mode in modes
    for kernel in ("base", "patched", "patched-sw-af")
    # Software sets the flag there without being told.
    if (host, kernel) != ("a57", "patched-sw-af")
}
# What the series' contract is about. All checks in all cells would take five times as long.
CHECKS = " or ".join(
    (
        "(test_access_flag and anon)",
        *(f"test_{name}" for name in ("page_idle", "protected")),
        *("test_af_file", "test_af_mode", "test_kernel_log"),
    )
)


def test_main_job(tmp_path: Path) -> None:
    done = kvm_harness(["run", "-k", CHECKS], tmp_path)
    assert done.returncode == 0
    assert done.folder.is_relative_to(tmp_path)
    run = Summary.model_validate(done.summary)
    assert run.verdict == "pass"
    assert run.series == "stage2-sw-af"
    assert "not booted: a57 +sw-af, since software sets the access flag there anyway" in run.notes
    assert {cell.id for cell in run.cells} == CELLS
    base, patched = run.kernels
    assert (base.label, patched.label) == ("base", "patched")
    assert base.build_id != patched.build_id

    for cell in run.cells:
        wanted = "software" if "a57" in cell.id or "sw-af" in cell.id else "hardware"
        assert (cell.outcome, cell.af_mode, cell.af_observed) == ("pass", wanted, wanted)
        (kind,) = cell.af_cpus
        assert (kind.cpus, kind.expected) == ("0-1", wanted)
        assert cell.build_id == (base if cell.kernel == "base" else patched).build_id
    assert len({cell.boot_id for cell in run.cells}) == len(CELLS)

    passed = {(check.cell, check.name) for check in run.checks if check.outcome == "pass"}
    for cell in run.cells:
        names = {name for where, name in passed if where == cell.id}
        assert {"test_access_flag[anon]", "test_page_idle"} <= names
        assert "test_kernel_log" in names
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


def test_every_check_passes_on_an_unbroken_kernel(tmp_path: Path) -> None:
    """Each in the first of its variants: all of them, everywhere, are what `make run` is for."""
    usual = ("-m", "not stress")
    families = {name.partition("[")[0]: name for name in reversed(selection.checks(usual))}
    args = ["run", "--base-only", "--host", "n1", "--mode", "vhe", *usual, "-k"]
    done = kvm_harness([*args, " or ".join(families.values())], tmp_path)
    assert done.returncode == 0
    run = Summary.model_validate(done.summary)
    passed = {check.name.partition("[")[0] for check in run.checks if check.outcome == "pass"}
    protected = {"test_protected", "test_protected_vm"}
    # The base has no counters of aging.
    counters = {"test_counters", "test_counters_race"}
    # No vCPU takes an access fault where hardware sets the access flag.
    software = {"test_split_beside_fault"}
    others = {"test_af_file", "test_mmu_lock", "test_lock_hold"}
    elsewhere = protected | counters | software | others
    assert families.keys() - passed <= elsewhere
