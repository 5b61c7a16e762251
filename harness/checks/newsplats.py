# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel complains of in the course of one check."""

from __future__ import annotations

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.observe import klog


def splats(shell: Shell) -> tuple[klog.Splat, ...]:
    """What the kernel's log complains of so far."""
    return klog.splats(shell.run("dmesg").stdout)


def newer(now: tuple[klog.Splat, ...], before: tuple[klog.Splat, ...]) -> tuple[klog.Splat, ...]:
    """Those that ended after the last one before: the log may have lost some of these meanwhile."""
    since = max((klog.clock(splat.text) for splat in before), default=-1.0)
    return tuple(splat for splat in now if klog.clock(splat.text) > since)


def assert_none_new(shell: Shell, claim: Claim, before: tuple[klog.Splat, ...]) -> None:
    """Assert that there is nothing but what there was `before`; splats.txt has what is new."""
    new = newer(splats(shell), before)
    claim.save("splats.txt", "\n\n".join(splat.text for splat in new) + "\n")
    assert not new, f"{len(new)} splats: {new[0].headline}"
