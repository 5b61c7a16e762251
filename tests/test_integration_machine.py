# SPDX-License-Identifier: GPL-2.0-only
"""What a machine is asked works with what it has: here busybox, real clocks, a RAM disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from command import kvm_harness

pytestmark = pytest.mark.integration


def test_on_a_host(tmp_path: Path) -> None:
    checks = Path(__file__).with_name("machine_on_host.py")
    what = ["--base-only", "--host", "n1", "--mode", "vhe", "--checks", str(checks)]
    done = kvm_harness(["run", *what], tmp_path)
    assert done.returncode == 0
    assert done.outcome("n1-vhe-base", "test_one_holder") == "pass"
    assert done.outcome("n1-vhe-base", "test_many_takers") == "pass"
    assert done.outcome("n1-vhe-base", "test_health") == "pass"
