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
    how = ["--base-only", "--inventory", inventory, "--host", "n1"]
    done = kvm_harness(
        ["run", *how, "--mode", "vhe", "-k", "test_race and page-idle-dontneed"], tmp_path
    )
    check = done.check("n1-vhe-base", CHECK)
    assert check["outcome"] == "pass", check
    assert "5 vCPUs touch 64 random pages, 3 threads age them" in check["expected"]
    assert "touches on 4 CPUs" in check["observed"]


def test_a_cpu_goes_and_returns(tmp_path: Path) -> None:
    """Of three CPUs it is the one that has neither the kernel's time nor a vCPU of its own."""
    how = ["--base-only", "--inventory", str(more_cpus(tmp_path, 3)), "--host", "n1"]
    modes = ["--mode", "vhe", "--mode", "protected"]
    done = kvm_harness(["run", *how, *modes, "-m", "stress", "-k", "test_cpu_returns"], tmp_path)
    assert done.returncode == 0
    for cell in ("n1-vhe-base", "n1-protected-base"):
        check = done.check(cell, "test_cpu_returns")
        assert check["outcome"] == "pass", check
        assert "CPU 1 is off line; stage 2: " in check["observed"]
        assert "CPU 1 is back; stage 2: " in check["observed"]
