# SPDX-License-Identifier: GPL-2.0-only
"""Run as a check on a machine of the lab: its kernel's modules are there, and one can be loaded."""

from __future__ import annotations

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell

MODULE = "dummy"


def test_a_module_of_its_own(shell: Shell, claim: Claim) -> None:
    release = shell.run("uname -r").stdout.strip()
    before = shell.read("/proc/modules")
    shell.run(f"modprobe {MODULE}")
    loaded = shell.read("/proc/modules")
    claim.observe(f"{release} loaded {MODULE}")
    assert "-kvmharness-" in release
    # It stays until the machine goes home: a kernel need not know how to unload one.
    assert f"{MODULE} " in loaded and f"{MODULE} " not in before
