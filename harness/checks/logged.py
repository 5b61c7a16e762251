# SPDX-License-Identifier: GPL-2.0-only
"""What a dirty log that is on promises: each write is in it, so what is not may not be written."""

from __future__ import annotations

from collections.abc import Sequence

from harness.checks.claim import Claim
from harness.checks.pages import shorten
from harness.guests import Guest
from harness.observe import stage2


def assert_logged(vm: Guest, claim: Claim, expected: frozenset[int], when: str) -> None:
    """Assert that the dirty log names exactly the pages `expected`; this reads it."""
    dirty = vm.dirty()
    claim.observe(f"{when}: {len(dirty)} logged")
    missing, extra = expected - dirty, dirty - expected
    assert not missing, f"{when}: {len(missing)} writes were not logged: {shorten(missing)}"
    assert not extra, f"{when}: {len(extra)} pages logged without a write: {shorten(extra)}"


def assert_writable(
    vm: Guest,
    claim: Claim,
    ranges: Sequence[stage2.Range],
    expected: frozenset[int],
    when: str,
    *,
    may_be: frozenset[int] = frozenset(),
) -> None:
    """Assert that the guest may write the pages `expected` without a fault.

    Beyond them at most those that `may_be` so.
    """
    writable = stage2.writable(ranges, vm.slot.ipa, vm.slot.pages)
    missing, extra = expected - writable, writable - expected - may_be
    assert not extra, f"{when}: {len(extra)} pages are writable unlogged: {shorten(extra)}"
    assert not missing, f"{when}: {len(missing)} pages lost W: {shorten(missing)}"
    claim.observe(f"{when}: {len(writable)} writable")
