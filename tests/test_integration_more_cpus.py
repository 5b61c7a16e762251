# SPDX-License-Identifier: GPL-2.0-only
"""On a host with four CPUs a race has all of them, and a vCPU more."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from command import kvm_harness

from harness.paths import PROJECT

pytestmark = pytest.mark.integration

CHECK = "test_race[page-idle-dontneed]"


def test_a_race_has_them_all(tmp_path: Path) -> None:
    stock = yaml.safe_load((PROJECT / "inventory.yaml").read_text())
    stock["hosts"]["n1"]["cpus"] = 4
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(yaml.safe_dump(stock))
    how = ["--base-only", "--inventory", str(inventory), "--host", "n1", "--mode", "vhe"]
    done = kvm_harness(["run", *how, "-k", "test_race and page-idle-dontneed"], tmp_path)
    (check,) = done.summary["checks"]
    assert (check["name"], check["outcome"]) == (CHECK, "pass"), check
    assert "5 vCPUs touch 64 random pages, 3 threads age them" in check["expected"]
    assert "touches on 4 CPUs" in check["observed"]
