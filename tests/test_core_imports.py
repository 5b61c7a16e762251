# SPDX-License-Identifier: GPL-2.0-only
"""What the command loads before it knows what it is to do, for which each start of it pays."""

from __future__ import annotations

import subprocess
import sys

# What needs one of them imports it where it does.
HEAVY = ("numpy", "scipy", "matplotlib", "jinja2", "kcidb_io")
LOADED = "import sys, harness.cli; print(*set(sys.argv[1:]) & set(sys.modules))"


def test_the_command_starts_without_what_few_of_its_uses_need() -> None:
    argv = [sys.executable, "-c", LOADED, *HEAVY]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
