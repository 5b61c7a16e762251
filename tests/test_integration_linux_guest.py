# SPDX-License-Identifier: GPL-2.0-only
"""A Linux guest on the real emulated host; tests/linux_guest_ends.py has how it may end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import kvm_harness

pytestmark = pytest.mark.integration

CELL = ["--base-only", "--host", "n1", "--mode", "vhe"]


def test_a_linux_guest_is_aged_from_its_host(tmp_path: Path) -> None:
    done = kvm_harness(["run", *CELL, "--linux-guest", "-k", "test_linux_guest and 2"], tmp_path)
    assert done.returncode == 0
    check = done.check("n1-vhe-base", "test_linux_guest[2]")
    assert check["outcome"] == "pass"
    (cell,) = done.summary["cells"]
    version = re.fullmatch(r"QEMU emulator version ([0-9.]+) \(.*\)", cell["vmm"])
    (kernel,) = done.summary["kernels"]
    assert version and f"Linux {kernel['version']} (" in check["observed"]
    assert f"QEMU {version[1]} (" in check["observed"]
    folder = done.folder / "cells/n1-vhe-base/test_linux_guest_2_"
    console = (folder / "guest-console.log").read_text()
    assert "Booting Linux on physical CPU" in console
    assert "@guest ready protocol=1 cpus=2 pages=512" in console
    assert console.rstrip().endswith("reboot: Power down")
    assert "accel=kvm" in (folder / "guest-qemu.txt").read_text()
