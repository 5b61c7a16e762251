# SPDX-License-Identifier: GPL-2.0-only
"""Run as checks on a machine of the lab that is lost while the second of them is at work."""

from __future__ import annotations

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell

SECONDS = 20


def test_before(shell: Shell, claim: Claim) -> None:
    """A result that is there before the machine is lost."""
    claim.observe(shell.run("uname -r").stdout.strip())


def test_meanwhile(shell: Shell, claim: Claim) -> None:
    """Takes long enough for that."""
    shell.run(f"sleep {SECONDS}")
    claim.observe(shell.run("uname -r").stdout.strip())


def test_zz_after(shell: Shell, claim: Claim) -> None:
    """What has not run by then."""
    claim.observe(shell.run("uname -r").stdout.strip())
