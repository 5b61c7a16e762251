# SPDX-License-Identifier: GPL-2.0-only
"""Whom does an access to an old page concern? That page, and no other (claim 13).

Where software manages AF, the access fault may also tell the memory management that the page was
accessed: mark_page_accessed(), seen as PG_referenced in /proc/kpageflags. Linux 6.12 does that and
later ones do not, so it is observed and not demanded. A page that the guest left alone must not
have it in either case, nor may any page have it where hardware sets AF without KVM's knowledge.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.pages import forget_references, mark_idle, pick, populated, shorten
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

PAGES = 1024


@pytest.mark.quick
def test_referenced(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """Only pages that the guest accesses become PG_referenced, and none by hardware AF."""
    vm = populated(guest(pages=PAGES))
    touched = pick(rng, PAGES)
    allowed = touched if cell.cell.af_mode == "software" else frozenset[int]()
    words = f"at most the {len(touched)} touched pages" if allowed else "no page"
    claim.expect(f"{words} of {PAGES} become PG_referenced when the guest reads old pages")
    mark_idle(vm)
    forget_references(vm, shell)
    before = vm.flagged("referenced")
    if before:
        raise Unproven(f"{len(before)} pages are PG_referenced before any access")
    vm.flush()
    vm.touch(touched, write=False)
    found = vm.flagged("referenced")
    claim.observe(f"{len(found & touched)} of the touched pages, {len(found - touched)} others")
    wrong = found - allowed
    assert not wrong, f"{len(wrong)} pages are PG_referenced without cause: {shorten(wrong)}"
