# SPDX-License-Identifier: GPL-2.0-only
"""What aging takes on a machine, in seconds, base against patched (docs/timing.md)."""

from pathlib import Path

CHECKS = Path(__file__).parent / "test_timing.py"
"""What a cell measures, as checks."""
SELFTEST_CHECKS = "test_time_selftest"
"""How the names begin of those that need the KVM selftests of the trees."""
