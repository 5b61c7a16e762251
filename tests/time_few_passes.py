# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness time`, with all of its checks, but one pass of each, few acts and little memory:
what they measure on an emulated host is no result, however often they do it.

    python tests/time_few_passes.py time --host n1 --mode vhe --rounds 1

A cell imports this file for its checks.
"""

from __future__ import annotations

import sys
from pathlib import Path

from harness import cli
from harness.timing import test_timing, tracking
from harness.timing.test_timing import *  # noqa: F403 -- each check that there is

test_timing.PASSES = 1  # type: ignore[attr-defined]
# With as many vCPUs as the emulated host has CPUs, and fewer CPUs below it, an act takes long.
test_timing.ACTS = 10
tracking.MEMORY = "4M"

if __name__ == "__main__":
    cli.TIMING_CHECKS = Path(__file__).resolve()  # type: ignore[attr-defined]
    cli.main(sys.argv[1:])
