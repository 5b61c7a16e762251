# SPDX-License-Identifier: GPL-2.0-only
"""What is left to do of a cell that was cut off, by the files that it left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from harness import resume, splatlog
from harness.cell import BOOTED, Booted
from harness.errors import GuestEnd
from harness.paths import PROJECT
from harness.plan import PlannedCell
from harness.records import append, write_atomically
from harness.results import Cell, Check, CpuAf

PLANNED = PlannedCell("n1", "base", "vhe", "hardware")
NAMES = ("test_a[x y]", "test_b", "test_kernel_log")
FOLDERS = ("test_a_x_y_", "test_b", "test_kernel_log")
UUID = "00000000-0000-0000-0000-00000000000"
SPLAT = "[    1.000000] WARNING: CPU: 0 PID: 1 at mm/vmscan.c:1 shrink_node+0x1/0x2\n"


def spec_of(folder: Path, *args: str) -> Any:
    cell = folder / "cells" / PLANNED.id
    cell.mkdir(parents=True, exist_ok=True)
    return SimpleNamespace(folder=cell, cell=PLANNED, record=PLANNED.record, pytest_args=args)


def boot(
    folder: Path,
    number: int = 1,
    console: str = "[    0.000000] Linux version 6\n",
    **values: Any,
) -> None:
    proven = {"build_id": "ab", "boot_id": f"{UUID}{number}", "kvm_line": "kvm", **values}
    booted = Booted(**proven, boot_seconds=2.0)
    write_atomically(folder / BOOTED, booted)
    (folder / "console.log").write_text(console)
    (folder / "checks.log").write_text("pytest\n")


def check(folder: Path, name: str, **values: Any) -> Check:
    given = {"outcome": "pass", "expected": "e", "observed": "o", "seconds": 1.5, **values}
    made = Check(cell=PLANNED.id, name=name, **given)
    append(folder / resume.RECORDS, made)
    return made


def test_a_cell_that_never_began_runs(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    spec.folder.rmdir()
    assert resume.take_up(spec, NAMES) == (None, ())
    assert not spec.folder.exists()


def test_a_cell_goes_on_after_its_recorded_checks(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    boot(spec.folder)
    first = check(spec.folder, NAMES[0])
    for name in FOLDERS[:2]:
        (spec.folder / name).mkdir()
        (spec.folder / name / "guest.txt").write_text(name)
    cell, checks = resume.take_up(spec, NAMES)
    assert (cell, checks) == (None, (first,))
    assert sorted(path.name for path in spec.folder.iterdir()) == [
        "cut-1",
        resume.RECORDS,
        FOLDERS[0],
    ]
    # What the check that was cut off has left is no evidence of the one that will be made.
    assert (spec.folder / "cut-1" / FOLDERS[1] / "guest.txt").exists()
    assert splatlog.earlier_consoles(spec.folder) == {"cut-1": "[    0.000000] Linux version 6\n"}
    assert resume.boot_ids(tmp_path) == {f"{UUID}1"}


def test_each_boot_that_was_cut_off_is_kept(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    for number in (1, 2, 3):
        boot(spec.folder, number)
        resume.take_up(spec, NAMES)
        resume.take_up(spec, NAMES)
    assert sorted(path.name for path in spec.folder.iterdir()) == ["cut-1", "cut-2", "cut-3"]
    assert resume.boot_ids(tmp_path) == {f"{UUID}{number}" for number in (1, 2, 3)}


def test_what_a_boot_that_was_cut_off_reported_is_not_lost(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    boot(spec.folder, console=SPLAT)
    resume.take_up(spec, NAMES)
    boot(spec.folder, 2)
    (found,) = splatlog.findings(spec.folder)
    assert "shrink_node" in found.splat.title


def test_what_another_kernel_reported_before_the_boot_is_its_own(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    start = "[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x410fd0c1]\n"
    boot(spec.folder, console=f"{SPLAT}{SPLAT}{start}{SPLAT.replace('shrink_node', 'mine')}")
    (found,) = splatlog.findings(spec.folder)
    assert "mine" in found.splat.title
    assert (found.count, found.splat.line) == (1, 4)


def test_that_a_machine_is_sick_is_told_among_any_number_of_reports(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    many = "".join(SPLAT.replace("shrink_node", f"f_{'x' * n}") for n in range(40))
    bad = "Memory failure: 0x41a: recovery action for dirty LRU page: Recovered"
    boot(spec.folder, console=f"{many}[    9.000000] {bad}\n")
    first, *others = splatlog.findings(spec.folder)
    assert first.splat.title == bad
    assert len(others) == splatlog.MAX_FINDINGS - 1
    assert splatlog.illness(spec.folder) == (bad,)


def test_a_cell_that_only_had_not_said_so_is_over(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    boot(spec.folder, console=SPLAT, cmdline="panic=15")
    kind = CpuAf(cpus="0", midr="", model="", expected="software", why="", observed="software")
    check(spec.folder, NAMES[0], af_observed="software", af_cpus=(kind,))
    check(spec.folder, NAMES[1], outcome="fail")
    check(spec.folder, NAMES[2])
    cell, checks = resume.take_up(spec, NAMES)
    assert cell is not None
    assert (cell.outcome, cell.af_observed, cell.death) == ("pass", "software", None)
    assert (cell.build_id, cell.boot_id, cell.kvm_line) == ("ab", f"{UUID}1", "kvm")
    assert cell.cmdline == "panic=15"
    assert (cell.boot_seconds, cell.seconds) == (2.0, 6.5)
    assert cell.af_cpus == (kind,)
    assert len(cell.splats) == 1
    assert len(checks) == 3
    assert resume.recorded(spec.folder) == (cell, checks)
    assert not list(spec.folder.glob("cut-*"))


def test_what_was_known_of_the_machine_outlives_a_kill(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    kind = CpuAf(cpus="0-3", midr="0x414fd0c1", model="", expected="hardware", why="FEAT_HAFDBS")
    boot(spec.folder, af_cpus=(kind,), vmm="QEMU 7.2", machine="altra2")
    for name in NAMES:
        check(spec.folder, name)
    cell, _ = resume.take_up(spec, NAMES)
    assert cell is not None
    assert (cell.af_cpus, cell.vmm, cell.machine) == ((kind,), "QEMU 7.2", "altra2")
    assert resume.recorded(spec.folder)[0] == cell


def test_a_host_that_died_in_a_check_is_not_booted_again(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    boot(spec.folder)
    check(spec.folder, NAMES[0], outcome="error", death="panic", reason="Kernel panic: x")
    cell, _ = resume.take_up(spec, NAMES)
    assert cell is not None
    assert (cell.outcome, cell.death, cell.reason) == ("error", "panic", "Kernel panic: x")


@pytest.mark.parametrize("death", get_args(GuestEnd))
def test_a_cell_goes_on_after_the_end_of_a_linux_guest(tmp_path: Path, death: GuestEnd) -> None:
    spec = spec_of(tmp_path)
    boot(spec.folder)
    check(spec.folder, NAMES[0], outcome="error", death=death, reason="the Linux guest is gone")
    cell, checks = resume.take_up(spec, NAMES)
    assert cell is None
    assert [one.death for one in checks] == [death]


@pytest.mark.parametrize("hung, over", [(1, False), (2, True)])
def test_two_checks_that_hung_end_a_cell(tmp_path: Path, hung: int, over: bool) -> None:
    spec = spec_of(tmp_path)
    boot(spec.folder)
    for name in NAMES[:hung]:
        check(spec.folder, name, outcome="error", death="livelock", reason="no reply")
    cell, _ = resume.take_up(spec, NAMES)
    assert (cell is not None) == over
    if cell is not None:
        assert (cell.death, cell.reason) == ("livelock", "2 checks hung.")


@pytest.mark.parametrize("outcome", ["fail", "error", "unproven", "skip", "pass"])
def test_the_first_failure_ends_a_cell_if_that_was_asked_for(tmp_path: Path, outcome: str) -> None:
    spec, other = spec_of(tmp_path / "a", "-x"), spec_of(tmp_path / "b")
    for one in (spec, other):
        boot(one.folder)
        check(one.folder, NAMES[0], outcome=outcome)
    assert (resume.take_up(spec, NAMES)[0] is not None) == (outcome in ("fail", "error"))
    assert resume.take_up(other, NAMES)[0] is None


def test_a_cell_with_a_record_is_done(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    first = check(spec.folder, NAMES[0])
    done: Cell = PLANNED.record("pass")
    append(spec.folder / resume.RECORDS, done)
    assert resume.recorded(spec.folder) == (done, (first,))


def test_killed_at_any_point_every_check_has_one_record(tmp_path: Path) -> None:
    """Real pytest, real plugin, SIGKILL at random points of two lives; no host behind it."""
    script = Path(__file__).with_name("kill_checks.py")
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests'}"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "3", "1"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)
    names = [*(f"test_some[{number}]" for number in range(12)), "test_whole"]
    outcomes = [[name, "fail" if name == "test_some[5]" else "pass"] for name in names]
    for cell in cells:
        assert cell["over"]
        assert cell["checks"] == outcomes
    cut = {kept for cell in cells for kept in cell["kept"] if 0 < kept < len(names)}
    assert cut, "the kills did not strike between the checks"
