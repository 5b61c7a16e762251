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
from harness.checks.pages import populated, shorten
from harness.guests import Guest, SpinReply
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.collect import NoDump, refuse_no_dump
from harness.observe.unproven import Unproven
from harness.ranges import parse_ranges

PAGES = 64
NOHZ_FULL = "/sys/devices/system/cpu/nohz_full"


@dataclass(frozen=True)
class Watched:
    """A spinning vCPU before aging and after it, and the pages young after aging and after both."""

    before: SpinReply
    between: SpinReply
    marked: frozenset[int]
    flushed: frozenset[int]


def free_cpu(shell: Shell, cell: CellSpec) -> int:
    """A CPU of the host that runs without a tick; Unproven if there is none.

    Skips the check where the harness itself has booted the host without one.
    """
    if not cell.tickless:
        pytest.skip("a host with a debug kernel has no CPU without a tick")
    text = shell.run(f"cat {NOHZ_FULL}", check=False).stdout.strip().replace("(null)", "")
    if not text:
        raise Unproven("the host has no CPU without a tick (nohz_full)")
    return max(parse_ranges(text))


def _watch(vm: Guest, shell: Shell, claim: Claim) -> Watched:
    """Age the pages under a spinning vCPU, then invalidate its TLB; what was young after each."""
    everything = frozenset(range(PAGES))
    try:
        refuse_no_dump(shell, vm.vm_dir)
    except NoDump as exc:
        claim.observe(f"by page_idle alone, since {exc.reason}")
        idle = vm.idle_then_flush()
        return Watched(
            idle.before, idle.between, everything - idle.marked, everything - idle.flushed
        )
    seen = vm.mark_then_flush()
    claim.save("stage2-marked.txt", seen.marked)
    claim.save("stage2-flushed.txt", seen.flushed)
    marked, flushed = (
        stage2.young(stage2.parse(text), vm.slot.ipa, PAGES) for text in (seen.marked, seen.flushed)
    )
    return Watched(seen.before, seen.between, marked, flushed)


def test_hot_page(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A page that a vCPU touches without exiting stays old until stage 2 is invalidated."""
    cpu = free_cpu(shell, cell)
    hot = rng.randrange(PAGES)
    claim.expect(
        f"page {hot}, which a vCPU reads without end and without an exit, is old after aging for "
        "as long as its translation is cached, and young after a stage-2 TLB invalidation"
    )
    vm = populated(guest(pages=PAGES))
    vm.pin(0, cpu, fifo=True)
    vm.spin({hot}, write=False)
    seen = _watch(vm, shell, claim)
    vm.spin_stop()
    touches = seen.between.touches - seen.before.touches
    exits = seen.between.exits.exits - seen.before.exits.exits
    claim.observe(f"{touches} touches and {exits} exits between aging and invalidation")
    if exits or touches <= 0:
        raise Unproven(f"the vCPU made {exits} exits and {touches} touches; its TLB was not alone")
    before, after = seen.marked, seen.flushed
    claim.observe(f"young before it: {shorten(before)}; after it: {shorten(after)}")
    if before:
        # Not wrong: this aging, or something else on the machine, has dropped the translation.
        raise Unproven(f"young without an invalidation of ours: {shorten(before)}")
    assert after == {hot}, f"after the invalidation young are {shorten(after)}, not page {hot}"
