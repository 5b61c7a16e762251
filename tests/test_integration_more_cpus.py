# SPDX-License-Identifier: GPL-2.0-only
"""On a host with four CPUs a race has all of them, and a vCPU more; and one may go off line."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import kvm_harness, more_cpus

pytestmark = pytest.mark.integration

CHECK = "test_race[page-idle-dontneed]"


def test_a_race_has_them_all(tmp_path: Path) -> None:
    inventory = str(more_cpus(tmp_path, 4))
    how = ["--base-only", "--inventory", inventory, "--host", "n1", "--mode", "vhe"]
    what = "(test_race and page-idle-dontneed) or test_cpu_returns"
    done = kvm_harness(["run", *how, "-k", what], tmp_path)
    returns = done.check("n1-vhe-base", "test_cpu_returns")
    assert returns["outcome"] == "pass", returns
    assert "is back; stage 2: " in returns["observed"]
    check = done.check("n1-vhe-base", CHECK)
    assert check["outcome"] == "pass", check
    assert "5 vCPUs touch 64 random pages, 3 threads age them" in check["expected"]
    assert "touches on 4 CPUs" in check["observed"]
