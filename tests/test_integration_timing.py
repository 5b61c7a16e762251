# SPDX-License-Identifier: GPL-2.0-only
"""A round of boots is timed on the emulated host, by every check, and none of its times is called a
result."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from command import more_cpus, run

from harness import selection
from harness.timing import CHECKS
from harness.timing.judge import EMULATED, NOTE
from harness.timing.values import METRICS, UNIT, Values

pytestmark = pytest.mark.integration

# Linux 6.12 lacks options of the selftest that two of the checks need.
SERIES = Path(__file__).parent / "data/timing/selftest-mglru.patch"
# Not to be imported here: it changes what other tests have of the checks.
FEW_PASSES = Path(__file__).with_name("time_few_passes.py")


def test_one_round(tmp_path: Path) -> None:
    """With four CPUs interrupts have somewhere to go."""
    how = ["--series", str(SERIES), "--host", "n1", "--mode", "vhe", "--rounds", "1"]
    how += ["--inventory", str(more_cpus(tmp_path, 4))]
    done = run([sys.executable, str(FEW_PASSES), "time", *how], tmp_path)
    summary = done.summary
    cells = ["n1-vhe-base-r01", "n1-vhe-base-r01-again", "n1-vhe-patched-r01"]
    ends = {
        (one["cell"], one["name"]): (one["outcome"], one["reason"]) for one in summary["checks"]
    }
    names = selection.checks(paths=(CHECKS,))
    assert ends == {(cell, name): ("pass", "") for cell in cells for name in names}
    assert done.returncode == 0
    assert sorted(cell["id"] for cell in summary["cells"]) == cells
    assert len({cell["boot_id"] for cell in summary["cells"]}) == len(cells)

    figures = {one["metric"]: one for one in summary["figures"]}
    assert figures.keys() == METRICS.keys()
    for name, one in figures.items():
        assert (one["what"], one["unit"]) == (METRICS[name], UNIT)
        assert (one["verdict"], one["reason"], one["effect"]) == ("inconclusive", EMULATED, None)
        (base,), (patched,) = one["base"], one["patched"]
        assert 0 < base < 60 and 0 < patched < 60, name
        assert len(one["evidence"]) == len(cells)
        for path in one["evidence"]:
            values = Values.model_validate_json((done.folder / path).read_text())
            # The pass that warms up is not among them.
            assert len(values.passes[name]) == 1
        assert one["conditions"]["interrupts"] == "0-1"
        assert one["conditions"]["workqueues"] == "3"
    assert NOTE in summary["notes"]
    walk = done.check("n1-vhe-patched-r01", "test_time_walk")
    assert walk["observed"].startswith("vCPU on CPU 3, who ages on CPU 2; ")
