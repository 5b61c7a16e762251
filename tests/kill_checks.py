# SPDX-License-Identifier: GPL-2.0-only
"""Run a cell's checks without a host, kill them at random points, and go on until all have ended.

    python tests/kill_checks.py FOLDER COUNT SEED

A process of its own, since it forks one for each life: what is killed has pytest loaded already.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from test_checks_plugin import Host, NoCollector, Spec

from harness import resume
from harness.checks import plugin as plugin_module
from harness.checks.plugin import PYTEST_ARGS, CellPlugin
from harness.plan import PlannedCell

CHECKS = """
import time
import pytest

@pytest.mark.last
def test_whole(claim):
    claim.observe("seen")

@pytest.mark.parametrize("number", range(12))
def test_some(claim, number):
    time.sleep(0.005)
    claim.observe("seen")
    claim.save("evidence.txt", "x" * 100000)
    assert number != 5, "five is wrong"
"""
NAMES = (*(f"test_some[{number}]" for number in range(12)), "test_whole")
# In how many lives of a cell it is killed before it is left alone.
KILLS = 2


class Cell(Spec):
    """One that can be taken up."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cell = PlannedCell("n1", "base", "vhe", "hardware")
        self.record = self.cell.record
        self.pytest_args = ()


def live(spec: Any, file: Path, enough: int, seconds: float) -> None:
    """One life of a cell: killed so long after so many records, or until its end before that."""
    records = spec.folder / resume.RECORDS
    child = os.fork()
    if child == 0:
        with (spec.folder / "checks.log").open("w") as log:
            os.dup2(log.fileno(), 1)
            machine: Any = Host()
            plugin = CellPlugin(spec, machine, machine, machine)
            pytest.main([*PYTEST_ARGS, "--rootdir", str(file.parent), str(file)], plugins=[plugin])
        os._exit(0)
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if (records.exists() and records.read_bytes().count(b"\n") >= enough) or not enough:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return
        time.sleep(0.001)


def main() -> None:
    folder, count, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    vars(plugin_module).update(Collector=NoCollector, evidence=lambda before, after: {})
    file = folder / "test_given.py"
    file.write_text(CHECKS)
    cells = []
    for number in range(count):
        spec: Any = Cell(folder / str(number))
        records = spec.folder / resume.RECORDS
        kept = []
        for life in range(KILLS + 1):
            before = records.read_bytes() if records.exists() else b""
            enough = rng.randrange(len(NAMES) + 1) if life < KILLS else len(NAMES) + 1
            live(spec, file, enough, rng.uniform(0, 0.02))
            data = records.read_bytes() if records.exists() else b""
            # The last line may have been cut off by the kill before, and is whole in no life.
            assert data.startswith(before[: before.rfind(b"\n") + 1])
            kept.append(data.count(b"\n"))
            cell, checks = resume.take_up(spec, NAMES)
            if cell is not None:
                break
        found = [(check.name, check.outcome) for check in checks]
        cells.append({"kept": kept, "over": cell is not None, "checks": found})
    print(json.dumps(cells))


if __name__ == "__main__":
    main()
