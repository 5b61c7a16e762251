# SPDX-License-Identifier: GPL-2.0-only
"""Memory at a large IPA, where one of the first tables of stage 2 ends and the next begins.

With 40 bits of IPA and pages of 4 KiB, stage 2 begins with two tables side by side ("concatenated",
Arm ARM, D8.2), of 512 GiB each; with 44 and more it has one level more. A walk of its own that
knows one table or one number of levels only, or an address that is cut somewhere on its way to the
walk, ages or write-protects other pages than it was asked for, or none.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import FAULTS, check_faults, situation
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import (
    idle_tells,
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    require_blocks,
    whole_blocks,
    young_pages,
)
from harness.checks.skips import FEW_BITS, or_skip
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.collect import NoDump
from harness.observe.trace import PAGE
from harness.observe.tracefs import tracing

PAGES = {"anon": 512, "thp": 2048}
BLOCK = {"anon": 1, "thp": 512}


@pytest.mark.deep
@pytest.mark.parametrize(
    ("backing", "wide"),
    [
        pytest.param("anon", False, id="anon"),
        pytest.param("thp", False, id="thp"),
        pytest.param("anon", True, id="wide"),
    ],
)
def test_far(
    backing: str,
    wide: bool,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Aging, touches, the dirty log and unmapping are exact on both sides of the middle."""
    pages, block = PAGES[backing], BLOCK[backing]
    half = pages // 2
    everything = frozenset(range(pages))
    vm = populated(_far_guest(guest, backing, pages, wide=wide))
    middle = vm.slot.ipa + half * PAGE
    claim.expect(
        f"{pages} pages ({backing}), half below and half above {middle >> 30} GiB of IPA: all old "
        "after aging by page_idle, then exactly the leaves that the guest touched young, in stage "
        "2 and by page_idle, with access faults for them where software sets AF and for none "
        "where hardware does; the dirty log names exactly the pages written; what is unmapped "
        f"across the middle reads as zeroes (seed {cell.seed})"
    )
    mark_idle(vm)
    aged = old_pages(vm, shell, claim)
    if aged and block > 1:
        require_blocks(vm, aged)
    vm.flush()
    touched = pick(rng, half, block) | {half + page for page in pick(rng, half, block)}
    young = whole_blocks(touched, block)
    with tracing(shell, FAULTS) as session:
        session.start()
        vm.touch(touched, write=False)
        counts = session.stop()
    claim.save("trace.txt", counts.raw)
    young_pages(vm, shell, claim, young)
    # Who sets AF is a word in what each VM has of its own (VTCR_EL2), along with its size of IPA.
    check_faults(claim, contract.expect_access_faults(situation(cell)), counts, vm.slot, touched)
    idle_tells(vm, claim, young)

    _log(vm, shell, claim, rng)

    reach = block * rng.randint(1, half // block)
    vm.advise("dontneed", range(half - reach, half + reach))
    # Each load is held to what was last written, or to zero.
    vm.touch(everything, write=False)
    claim.observe(f"{2 * reach} pages around the middle unmapped, and read as zeroes")
    vm.verify(everything)


def _log(vm: Guest, shell: Shell, claim: Claim, rng: random.Random) -> None:
    """Assert that the dirty log takes write permission on both sides, and names what is written."""
    half = vm.slot.pages // 2
    vm.dirty_log(True)
    _writable(vm, shell, claim, frozenset(), "logged")
    written = pick(rng, half) | {half + page for page in pick(rng, half)}
    vm.touch(written, write=True)
    _writable(vm, shell, claim, written, "written")
    assert_logged(vm, claim, written, "written")
    vm.dirty_log(False)


def _writable(vm: Guest, shell: Shell, claim: Claim, expected: frozenset[int], name: str) -> None:
    try:
        ranges = leaves(vm, shell, claim, name)
    except NoDump as exc:
        claim.observe(f"{name}: by the log alone, since {exc.reason}")
        return
    assert_writable(vm, claim, ranges, expected, name)


def _far_guest(guest: Callable[..., Guest], backing: str, pages: int, *, wide: bool) -> Guest:
    """A guest with memory up there; skips where the CPU has not the bits of address for it."""
    return or_skip(
        lambda: guest(backing=backing, pages=pages, far=not wide, wide=wide),
        FEW_BITS,
        f"this CPU gives guests fewer than {41 if wide else 40} bits of physical address",
    )
