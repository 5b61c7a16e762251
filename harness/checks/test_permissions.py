# SPDX-License-Identifier: GPL-2.0-only
"""Aging changes the access flag and nothing else (CLAIMS.md, 4)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.checks.claim import Claim
from harness.checks.pages import leaves, mark_idle, old_pages, pick, populated, shorten
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

PAGES = {"anon": 1024, "thp": 4096}
BLOCK = {"anon": 1, "thp": 512}


@pytest.mark.quick
@pytest.mark.parametrize("backing", sorted(BLOCK))
def test_permissions(
    backing: str, guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """Neither aging nor an access to an old page changes more of a leaf than AF."""
    pages, block = PAGES[backing], BLOCK[backing]
    vm = populated(guest(backing=backing, pages=pages))
    ipa = vm.slot.ipa
    # The invalidation takes write permission from all leaves, a write gives it to one.
    vm.flush()
    vm.touch(pick(rng, pages, block), write=True)
    before = leaves(vm, shell, claim, "before")
    writable = stage2.writable(before, ipa, pages)
    claim.expect(
        f"level, R, W and X of all leaves of {pages} pages the same after aging by page_idle and "
        f"after reads, {len(writable)} pages writable and the others not"
    )
    if not writable or len(writable) == pages:
        raise Unproven(f"{len(writable)} of {pages} pages are writable: no mixture to look at")
    if block > 1 and len(stage2.blocks(before, ipa, pages)) != pages:
        raise Unproven("stage 2 does not map all of the memory by blocks, so none can be judged")

    mark_idle(vm)
    _same(before, old_pages(vm, shell, claim), vm, claim, "aging")
    vm.touch(pick(rng, pages, block), write=False)
    _same(before, leaves(vm, shell, claim, "read"), vm, claim, "reads")
    vm.touch(pick(rng, pages, block), write=True)
    after = leaves(vm, shell, claim, "written")
    lost = writable - stage2.writable(after, ipa, pages)
    claim.observe(f"after writes {len(lost)} of {len(writable)} lost W")
    assert not lost, f"writes to old pages took W from {len(lost)}: {shorten(lost)}"
    vm.verify(range(pages))


def _same(
    before: tuple[stage2.Range, ...],
    after: tuple[stage2.Range, ...],
    vm: Guest,
    claim: Claim,
    what: str,
) -> None:
    changed = stage2.differing(before, after, vm.slot.ipa, vm.slot.pages, af=False)
    claim.observe(f"after {what} {len(changed)} leaves differ in more than AF")
    assert not changed, f"{what} changed more than AF of {len(changed)} pages: {shorten(changed)}"
