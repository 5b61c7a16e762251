# SPDX-License-Identifier: GPL-2.0-only
"""Run as checks on a machine of the lab: troubles that begin while a check is at work."""

from __future__ import annotations

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell


def test_before(shell: Shell, claim: Claim) -> None:
    """A result that is there before the trouble begins."""
    claim.observe(shell.run("uname -r").stdout.strip())


def test_ssh_dies(shell: Shell) -> None:
    """The server's process for this connection is gone, the server is not."""
    shell.run("kill -KILL $PPID")


def test_panic(shell: Shell) -> None:
    """The kernel panics."""
    shell.run("echo c > /proc/sysrq-trigger")


def test_restart(shell: Shell) -> None:
    """The machine starts again, without a word."""
    shell.run("echo b > /proc/sysrq-trigger")


def test_zz_after(shell: Shell, claim: Claim) -> None:
    """What still runs after the trouble."""
    claim.observe(shell.run("uname -r").stdout.strip())
