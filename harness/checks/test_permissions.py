# SPDX-License-Identifier: GPL-2.0-only
"""Aging changes the access flag and nothing else (claim 4)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.overlap import FAULT
from harness.checks.pages import (
    leaves,
    old_pages,
    pick,
    populated,
    require_blocks,
    require_huge,
    shorten,
    show_set,
    shows_stage2,
    whole_blocks,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import Event, Wanted, pages_by_ipa
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = {"anon": 1024, "thp": 4096}
BLOCK = {"anon": 1, "thp": 512}


@pytest.mark.parametrize(
    ("backing", "driver"),
    [
        pytest.param("anon", "page_idle", marks=pytest.mark.quick),
        pytest.param("thp", "page_idle", marks=pytest.mark.deep),
        pytest.param("anon", "mglru_walk", marks=pytest.mark.deep),
    ],
)
def test_permissions(
    backing: str,
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Neither aging nor an access to an old page changes more of a leaf than AF."""
    vm = guest(backing=backing, pages=PAGES[backing])
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        populated(vm)
        _check(vm, shell, claim, rng, BLOCK[backing], driver, age)


def _check(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    block: int,
    driver: Ager,
    age: Callable[[], None],
) -> None:
    pages, ipa = vm.slot.pages, vm.slot.ipa
    # The invalidation takes write permission from all leaves, a write gives it to one.
    vm.flush()
    written = pick(rng, pages, block)
    vm.touch(written, write=True)
    if not shows_stage2(vm, shell, claim, "the faults of the guest"):
        _by_faults(vm, shell, claim, whole_blocks(written, block), block, driver, age)
        return
    before = leaves(vm, shell, claim, "before")
    writable = stage2.writable(before, ipa, pages)
    claim.expect(
        f"level, R, W and X of all leaves of {pages} pages the same after aging by {driver} and "
        f"after reads, {len(writable)} pages writable and the others not"
    )
    if not writable or len(writable) == pages:
        raise Unproven(f"{len(writable)} of {pages} pages are writable: no mixture to look at")
    if block > 1:
        require_blocks(vm, before)

    age()
    # First what is the same: a page that aging unmapped is neither old nor young.
    _same(before, leaves(vm, shell, claim, "after"), vm, claim, "aging")
    old_pages(vm, shell, claim)
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


def _by_faults(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    writable: frozenset[int],
    block: int,
    driver: Ager,
    age: Callable[[], None],
) -> None:
    """The same where stage 2 is not shown: who may not do what faults, and for nothing else.

    X and the level of a leaf are not told by that, nor what an access fault itself changes.
    """
    everything = frozenset(range(vm.slot.pages))
    if block > 1:
        require_huge(vm)
    claim.expect(
        f"after aging by {driver} the guest reads all of {len(everything)} pages and faults for "
        f"none of them but for AF, then writes all: it faults for each that it could not write "
        f"before aging, by leaf, and for none of the {len(writable)} that it could"
    )
    age()
    with tracing(shell, Wanted(events=(FAULT,))) as session:
        for what, expected in (("read", frozenset[int]()), ("write", everything - writable)):
            session.start()
            vm.touch(everything, write=what == "write")
            counts = session.stop()
            claim.save(f"trace-{what}.txt", counts.raw)
            faults = [event for event in counts.events(FAULT) if not _for_af(event)]
            seen = whole_blocks(pages_by_ipa(faults, vm.slot.ipa, vm.slot.pages), block)
            words = show_set(expected, seen, "faulted")
            claim.observe(f"{what}: {words}")
            assert seen == expected, f"{what} after aging: {words}"
    vm.verify(everything)


def _for_af(event: Event) -> bool:
    """Whether a fault of the guest is an access flag fault, by its ESR (DDI 0487, ISS.DFSC)."""
    return event.fields["esr"] & 0x3C == 0x08
