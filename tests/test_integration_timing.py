# SPDX-License-Identifier: GPL-2.0-only
"""A round of boots is timed on the emulated host, and none of its times is called a result."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import kvm_harness

from harness.timing.judge import EMULATED, NOTE
from harness.timing.values import PASSES, Values

pytestmark = pytest.mark.integration


def test_one_round(tmp_path: Path) -> None:
    where = ["--host", "n1", "--mode", "vhe"]
    done = kvm_harness(["time", *where, "--rounds", "1", "-k", "page_idle or walk"], tmp_path)
    assert done.returncode == 0
    run = done.summary
    assert sorted(cell["id"] for cell in run["cells"]) == [
        *("n1-vhe-base-r01", "n1-vhe-base-r01-again", "n1-vhe-patched-r01")
    ]
    assert len({cell["boot_id"] for cell in run["cells"]}) == 3
    figures = {one["metric"]: one for one in run["figures"]}
    assert set(figures) == {
        *("time-aging-page-idle", "time-aging-walk", "time-read-aged", "time-write-aged")
    }
    for one in figures.values():
        assert (one["verdict"], one["reason"], one["effect"]) == ("inconclusive", EMULATED, None)
        assert all(0 < value < 60 for value in (*one["base"], *one["patched"]))
        assert len(one["evidence"]) == 3
        for name in one["evidence"]:
            values = Values.model_validate_json((done.folder / name).read_text())
            # The pass that warms up is not among them.
            assert len(values.passes[one["metric"]]) == PASSES
    assert NOTE in run["notes"]
