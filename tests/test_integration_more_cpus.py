# SPDX-License-Identifier: GPL-2.0-only
"""With four CPUs a race has all of them, and a vCPU more, and a Linux guest has a vCPU on each; of
three one may go off line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import kvm_harness, more_cpus

pytestmark = pytest.mark.integration

CHECK = "test_race[page-idle-dontneed]"
LINUX_GUEST = "test_linux_guest[4]"


def test_a_race_and_a_linux_guest_have_them_all(tmp_path: Path) -> None:
    inventory = str(more_cpus(tmp_path, 4))
    how = ["--base-only", "--inventory", inventory, "--host", "n1", "--mode", "vhe"]
    which = "(test_race and page-idle-dontneed) or (test_linux_guest and 4)"
    done = kvm_harness(["run", *how, "--linux-guest", "-k", which], tmp_path)
    check = done.check("n1-vhe-base", CHECK)
    assert check["outcome"] == "pass", check
    assert "5 vCPUs touch 64 random pages, 3 threads age them" in check["expected"]
    assert "touches on 4 CPUs" in check["observed"]
    assert "threads at most began some during one act" in check["observed"]

    check = done.check("n1-vhe-base", LINUX_GUEST)
    assert check["outcome"] == "pass", check
    # Each vCPU has pages of its own, and a thread; by hardware AF none of these takes a fault.
    threads = re.findall(r"access faults for 0 of (\d+) pages by thread (\d+)", check["observed"])
    assert len({thread for _, thread in threads}) == 4
    assert all(int(pages) > 0 for pages, _ in threads)
    console = done.folder / "cells/n1-vhe-base/test_linux_guest_4_/guest-console.log"
    assert "@guest ready protocol=1 cpus=4 pages=512" in console.read_text()


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
