# SPDX-License-Identifier: GPL-2.0-only
"""A guest that starts anew: what stage 2 has of its memory goes, and its memory stays (claim 5).

A VMM resets vCPUs by KVM_ARM_VCPU_INIT, and for one that has run before KVM unmaps all of the VM's
memory (stage2_unmap_vm()), since the guest has its caches off at first. With FEAT_S2FWB that makes
no difference, and KVM leaves stage 2 as it is. No MMU notifier comes with it, so nobody else that
walks stage 2 is told.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.groups import grouped
from harness.checks.idle_ager import beside
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    Window,
    agings,
    meetings,
    walk_functions,
)
from harness.checks.pages import (
    aging_is_exact,
    leaves,
    mapped_pages,
    on_lists,
    pick,
    populated,
    shorten,
)
from harness.checks.racing import Tally, kept, not_widened
from harness.contract import Contract
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.klog import stamped
from harness.observe.trace import PROBE_FULL, Counts, Wanted, returned, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

UNIT = 512
PAGES = 4 * UNIT
EVERYTHING = frozenset(range(PAGES))

# The ager is at all of them for a quarter of a second and more under emulation: with fewer it was
# over before the reset began, wherever nobody else wanted the CPUs.
RACED = 128
SLOWED = 8 * PROBE_FULL
ROUNDS, ENOUGH = 16, 4
# Unmaps all of a VM's memory, for a vCPU that is reset.
UNMAP_ALL = "stage2_unmap_vm"

_FIRST = "Booting Linux on physical CPU "
# arch/arm64/kernel/cpufeature.c, ARM64_HAS_STAGE2_FWB
_FORCED = "CPU features: detected: Stage-2 Force Write-Back"


def forces_write_back(log: str) -> bool | None:
    """Whether KVM uses FEAT_S2FWB, by the kernel's log; None if the log's beginning is lost."""
    lines = [stamped(line) or "" for line in log.splitlines()]
    if any(line.startswith(_FORCED) for line in lines):
        return True
    return False if any(line.startswith(_FIRST) for line in lines) else None


@pytest.mark.parametrize("backing", grouped(["anon", "memfd", "thp"], stress=["memfd"]))
def test_reset(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """All pages leave stage 2, wherever their owner has them; none loses what it held."""
    forced = forces_write_back(shell.run("dmesg").stdout)
    claim.expect(
        f"a guest of {PAGES} pages ({backing}), in several mappings of its owner, is reset: none "
        "is in stage 2 then (with FEAT_S2FWB they may be), it reads what it wrote, writes reach "
        f"memory, and aging is exact afterwards (seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=PAGES, vcpus=2))
    barred, taken = (_unit(at) for at in rng.sample(range(1, 3), 2))
    vm.mprotect(barred, write=False)
    gone = taken if backing == "anon" else frozenset()
    if gone:
        vm.take(gone)
    # Those that are young, and those that are old, or may not be written.
    vm.touch(EVERYTHING - gone, write=False)
    vm.idle_mark()
    vm.touch(pick(rng, PAGES) - gone, write=False)
    mapped = _mapped(vm, shell, claim, "before")
    if mapped != EVERYTHING - gone:
        raise Unproven(f"stage 2 maps {len(mapped)} of {PAGES - len(gone)} pages before the reset")
    vm.reset()
    left = _mapped(vm, shell, claim, "reset")
    claim.observe(f"{len(left)} of {len(mapped)} pages are mapped after the reset")
    if left and forced is None:
        raise Unproven("the log's beginning is lost, and with it a word on FEAT_S2FWB")
    assert forced or not left, f"a reset left {len(left)} pages in stage 2: {shorten(left)}"
    if forced:
        claim.observe("KVM uses FEAT_S2FWB, so pages may stay mapped")
    vm.mprotect(barred, write=True)
    if gone:
        vm.replace(gone)
    vm.touch(EVERYTHING, write=False, vcpu=1)
    vm.verify(EVERYTHING)
    vm.touch(EVERYTHING, write=True)
    vm.verify(EVERYTHING)
    on_lists(vm)
    aging_is_exact(vm, shell, claim, rng, "afterwards")


def _unit(number: int) -> frozenset[int]:
    return frozenset(range(number * UNIT, (number + 1) * UNIT))


def _mapped(vm: Guest, shell: Shell, claim: Claim, name: str) -> frozenset[int]:
    return stage2.mapped(leaves(vm, shell, claim, name), vm.slot.ipa, PAGES)


@pytest.mark.deep
def test_reset_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A reset takes all pages from stage 2 while they are aged, and none comes back."""
    if forces_write_back(shell.run("dmesg").stdout):
        pytest.skip("KVM uses FEAT_S2FWB: a reset leaves stage 2 as it is")
    claim.expect(
        f"{RACED} young pages are aged by page_idle while their guest is reset "
        f"({cell.cell.kvm_mode}): none is in stage 2 when both are done, the guest reads what it "
        "wrote, no splat; resets ended while a page was being aged"
    )
    several(shell, "nobody resets a guest while another ages it")
    before = splats(shell)
    everything = frozenset(range(RACED))
    wanted = Wanted(
        (AGE,),
        walk_functions(contract),
        returns={AGED: "", UNMAP_ALL: ""},
        slowed={AGE_CALLBACK: SLOWED},
    )
    tally = Tally(ENOUGH)
    vm = populated(guest(pages=RACED))
    with tracing(shell, wanted) as session, beside(vm, shell, vm.pfns().values()) as both:
        for number in range(ROUNDS):
            _, counts = kept(session, claim, f"trace{number}.txt", partial(both, vm.reset))
            mapped_pages(vm, shell, claim, frozenset(), f"reset{number}")
            # What it reads is held to what must be there.
            vm.touch(everything, write=False)
            if tally.over(partial(_met, counts)):
                break
            vm.touch(everything, write=True)
    claim.observe(
        f"{tally.met} of {number + 1} resets had unmapped all while a page was being aged"
    )
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
    vm.verify(everything)
    assert_none_new(shell, claim, before)
    tally.prove("no reset ended while a page was being aged")


def _met(counts: Counts) -> int:
    return meetings(agings(counts), counts.events(returned(UNMAP_ALL)), Window.lasts)
