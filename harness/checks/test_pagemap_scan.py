# SPDX-License-Identifier: GPL-2.0-only
"""PAGEMAP_SCAN, by which a VMM can ask what was written since it asked last (claim 4).

It write-protects the pages in the same go, and a store to one, the guest's as the VMM's, makes that
writable again (Documentation/admin-guide/mm/pagemap.rst). So KVM must be told of each protection: a
guest that goes on writing through its old leaves is never told of. It is a dirty log of the host's,
of which KVM's own knows nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.checks.claim import Claim
from harness.checks.logged import assert_writable
from harness.checks.pages import aging_is_exact, leaves, mark_idle, pick, populated, show_set
from harness.checks.skips import NO_SCAN, or_skip
from harness.guests import Guest
from harness.hosts.protocols import Shell

PAGES = 1024
EVERYTHING = frozenset(range(PAGES))


@pytest.mark.deep
def test_pagemap_scan(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """What the guest writes after a scan is told by the next one, and nothing else is."""
    claim.expect(
        f"of {PAGES} pages that PAGEMAP_SCAN protects none may be written then, nor when they were "
        "read; each scan tells exactly the pages that the guest has written since the last one, "
        "through young leaves and old ones, and protects them; no content is lost, aging is exact"
    )
    vm = populated(guest(pages=PAGES))
    # Without a place for what it finds it only protects.
    or_skip(vm.protect_written, NO_SCAN, f"this kernel has {NO_SCAN}")
    _assert_protected(vm, shell, claim, "protected")
    vm.touch(EVERYTHING, write=False)
    _assert_protected(vm, shell, claim, "read")
    for name in ("young", "old"):
        if name == "old":
            mark_idle(vm)
        written = pick(rng, PAGES)
        vm.touch(written, write=True)
        found = vm.scan_written()
        words = f"{name} ones written: {show_set(written, found, 'told')}"
        claim.observe(words)
        assert found == written, words
        _assert_protected(vm, shell, claim, f"{name}-written")
        vm.touch(EVERYTHING, write=False)
    vm.verify(EVERYTHING)
    aging_is_exact(vm, shell, claim, rng, "scanned")


def _assert_protected(vm: Guest, shell: Shell, claim: Claim, name: str) -> None:
    """Assert that the guest may write no page without a fault."""
    assert_writable(vm, claim, leaves(vm, shell, claim, name), frozenset(), name)
