# SPDX-License-Identifier: GPL-2.0-only
"""A run over two machines of a lab that are alike, one of which is lost for good.

Run by `make test-kills`.

Its power switch does not help: it is gone with the machine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from pathlib import Path

import pytest
from command import argv, environment
from lab_power import ask
from lab_rack import rack

from harness.paths import PROJECT

pytestmark = pytest.mark.faults

CHECKS = Path(__file__).with_name("lost_on_host.py")
NAMES = {"test_before", "test_meanwhile", "test_zz_after"}
LOST, CELL = "left", "rack-vhe-base"
BEGIN_SECONDS, END_SECONDS = 600.0, 1800.0


def test_its_cells_go_to_the_other_and_nothing_is_done_twice(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    runs = tmp_path / "runs"
    with rack(tmp_path, state) as made:
        modes = ("--mode", "vhe", "--mode", "nvhe")
        args = ("--base-only", *modes, "--checks", str(CHECKS), "--output", str(runs))
        process = subprocess.Popen(
            argv("run", *made.options, *args),
            env=environment(state),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            records = wait_for_a_record(runs, process)
            before = records.read_text()
            with contextlib.suppress(OSError, ValueError):
                ask(str(made.machines[LOST].monitor), "quit")
            said, _ = process.communicate(timeout=END_SECONDS)
        finally:
            process.kill()
            process.communicate()
    print(said)
    assert process.returncode == 0
    assert records.read_text().startswith(before)
    summary = json.loads((records.parents[2] / "summary.json").read_text())
    assert summary["verdict"] == "pass"
    cells = {cell["id"]: cell for cell in summary["cells"]}
    assert set(cells) == {CELL, "rack-nvhe-base"}
    assert {cell["machine"] for cell in cells.values()} == {"right"}
    (earlier,) = cells[CELL]["earlier"]
    assert earlier.startswith(f"{LOST}: {LOST} was lost: ")
    assert f"{LOST} did not come back to its known-good kernel" in earlier
    for cell in cells:
        found = [one["name"] for one in summary["checks"] if one["cell"] == cell]
        assert sorted(found) == sorted(NAMES)
    assert (state / f"kvm-harness/hosts/{LOST}.json").exists(), "it is set aside"
    assert any(f"{CELL} ended on right" in note for note in summary["notes"])


def wait_for_a_record(runs: Path, process: subprocess.Popen[str]) -> Path:
    """The records of the cell, once its first check has one."""
    until = time.monotonic() + BEGIN_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        for path in runs.glob(f"*/cells/{CELL}/records.jsonl"):
            if b"\n" in path.read_bytes():
                return path
        time.sleep(0.1)
    raise AssertionError("no check has ended")
