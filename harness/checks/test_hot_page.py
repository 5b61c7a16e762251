# SPDX-License-Identifier: GPL-2.0-only
"""That a stage-2 TLB invalidation is needed: without it a hot page stays old.

Aging clears AF in memory and invalidates nothing, so a vCPU that never exits keeps its translation
and touches the page without setting AF again. That is what makes age data inexact, and why every
exact check here forces an invalidation. Only a vCPU on a CPU without a tick can show it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.pages import populated, shorten, shows_stage2
from harness.guest_exchanges import idle_then_flush, mark_then_flush
from harness.guest_replies import SpinReply
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

PAGES = 64
# Looks, until one finds the vCPU left alone. Each is whole, and only the last is judged.
LOOKS = 5


@dataclass(frozen=True)
class Watched:
    """A spinning vCPU before aging and after it, and the pages young after aging and after both."""

    before: SpinReply
    between: SpinReply
    marked: frozenset[int]
    flushed: frozenset[int]

    @property
    def touches(self) -> int:
        """Touches of the vCPU between aging and invalidation."""
        return self.between.touches - self.before.touches

    @property
    def exits(self) -> int:
        """Exits of the vCPU meanwhile; each may have cost it its TLB."""
        return self.between.exits.exits - self.before.exits.exits


def _watch(vm: Guest, claim: Claim, *, dump: bool) -> Watched:
    """Age the pages under a spinning vCPU, then invalidate its TLB; what was young after each."""
    if not dump:
        everything = frozenset(range(PAGES))
        idle = idle_then_flush(vm)
        return Watched(
            idle.before, idle.between, everything - idle.marked, everything - idle.flushed
        )
    seen = mark_then_flush(vm)
    claim.save("stage2-marked.txt", seen.marked)
    claim.save("stage2-flushed.txt", seen.flushed)
    marked, flushed = (
        stage2.young(stage2.parse(text), vm.slot.ipa, PAGES) for text in (seen.marked, seen.flushed)
    )
    return Watched(seen.before, seen.between, marked, flushed)


@pytest.mark.deep
def test_hot_page(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A page that a vCPU touches without exiting stays old until stage 2 is invalidated."""
    cpu = free_cpu(shell, cell)
    hot = rng.randrange(PAGES)
    claim.expect(
        f"page {hot}, which a vCPU reads without end and without an exit, is old after aging for "
        "as long as its translation is cached, and young after a stage-2 TLB invalidation; none of "
        f"the {PAGES - 1} others, which nobody touches, is young after aging"
    )
    vm = populated(guest(pages=PAGES))
    # Asked before the spin: nothing else is to run on the host then.
    dump = shows_stage2(vm, shell, claim, "page_idle")
    vm.pin(0, cpu, fifo=True)
    vm.spin({hot}, write=False)
    for _ in range(LOOKS):
        seen = _watch(vm, claim, dump=dump)
        claim.observe(
            f"{seen.touches} touches and {seen.exits} exits between aging and invalidation"
        )
        if not seen.exits:
            break
    vm.spin_stop()
    others = seen.marked - {hot}
    assert not others, f"{len(others)} others are young after aging: {shorten(others)}"
    if seen.exits or seen.touches <= 0:
        raise Unproven(
            f"the vCPU made {seen.exits} exits and {seen.touches} touches; its TLB was not alone"
        )
    before, after = seen.marked, seen.flushed
    claim.observe(f"young before it: {shorten(before)}; after it: {shorten(after)}")
    if before:
        # Not wrong: this aging, or something else on the machine, has dropped the translation.
        raise Unproven(f"young without an invalidation of ours: {shorten(before)}")
    assert after == {hot}, f"after the invalidation young are {shorten(after)}, not page {hot}"
