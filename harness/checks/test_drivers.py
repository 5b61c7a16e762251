# SPDX-License-Identifier: GPL-2.0-only
"""Each driver of aging for itself: page_idle, MGLRU's walk, eviction.

page_idle asks KVM page by page; MGLRU's walk asks for ranges of page tables and does not run at all
on a CPU without hardware AF at stage 1; eviction asks again for each page that it looks at. The
contract says which of them reaches KVM in this cell, and by which functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import (
    check_faults,
    check_path,
    promised,
    situation,
    wanted,
)
from harness.checks.evicting import evict_untouched, what_stays
from harness.checks.flushes import check_flushes, requests, with_flushes
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.pages import mark_idle, old_pages, pick, populated, young_pages
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 2048


@pytest.mark.quick
def test_page_idle(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """page_idle reaches KVM as promised, and touches of old pages fault where they must."""
    expectation = promised(contract, "page_idle", cell, shell, claim)
    faults = contract.expect_access_faults(situation(cell))
    words = "no page" if faults == "none" else "each touched page and no other"
    claim.expect(f"{claim.expected}; then an access fault for {words}")
    vm = populated(guest(pages=PAGES))
    touched = pick(rng, PAGES)
    with tracing(shell, with_flushes(wanted(expectation, "page_idle"))) as session:
        with (
            counted(vm, shell, claim, contract.expect_counters(situation(cell))),
            requests(vm, shell) as requested,
        ):
            session.start()
            mark_idle(vm)
            aged = session.stop()
        claim.save("trace-aging.txt", aged.raw)
        check_path(claim, expectation, session, aged, vm)
        check_flushes(claim, contract.expect_flushes(situation(cell)), aged, requested=requested())
        old_pages(vm, shell, claim)
        # A cached translation would hide the touch from stage 2.
        vm.flush()
        session.start()
        exits = vm.touch(touched, write=False).exits.exits
        touching = session.stop()
        claim.save("trace-touching.txt", touching.raw)
    young_pages(vm, shell, claim, touched)
    check_faults(claim, faults, touching, vm.slot, touched)
    # A second witness, which no tracepoint can hide: each access fault is an exit of the vCPU.
    claim.observe(f"{exits} exits of the vCPU")
    few = exits < len(touched)
    assert few == (faults == "none"), f"{exits} exits for {len(touched)} touched pages"


@pytest.mark.deep
def test_mglru_walk(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """MGLRU's walk reaches KVM as promised and makes all pages old, or leaves them alone."""
    expectation = promised(contract, "mglru_walk", cell, shell, claim)
    vm = guest(pages=PAGES)
    recorded = with_flushes(wanted(expectation, "mglru_walk"))
    with memcg_of(vm, shell) as memcg, tracing(shell, recorded) as session:
        populated(vm)
        # By page_idle, which works on every machine; a walk may not run here at all.
        mark_idle(vm)
        vm.flush()
        touched = pick(rng, PAGES)
        vm.touch(touched, write=False)
        with (
            counted(vm, shell, claim, contract.expect_counters(situation(cell))),
            requests(vm, shell) as requested,
        ):
            session.start()
            memcg.walk()
            counts = session.stop()
        claim.save("trace.txt", counts.raw)
        check_flushes(
            claim, contract.expect_flushes(situation(cell)), counts, requested=requested()
        )
        if check_path(claim, expectation, session, counts, vm).reaches_kvm:
            old_pages(vm, shell, claim)
        else:
            young_pages(vm, shell, claim, touched)


@pytest.mark.deep
def test_eviction(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Eviction asks KVM for each page, keeps those that the guest touched, swaps out the others."""
    expectation = promised(contract, "eviction", cell, shell, claim)
    stays = what_stays(expectation)
    claim.expect(f"{claim.expected}; evicted is all that the guest left alone, and {stays}")
    vm = guest(pages=PAGES)
    everything = frozenset(range(PAGES))
    counters = contract.expect_counters(situation(cell))
    with (
        zram_swap(shell),
        memcg_of(vm, shell) as memcg,
        tracing(shell, wanted(expectation, "eviction")) as session,
    ):
        populated(vm)
        for touched in (everything, pick(rng, PAGES)):
            evict_untouched(vm, shell, claim, memcg, session, expectation, counters, touched)


@pytest.mark.quick
def test_protected(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Under pKVM aging is exact, and enters no fast path, by page_idle and by MGLRU's walk."""
    if cell.cell.kvm_mode != "protected":
        pytest.skip("only in protected mode")
    excluded = contract.expect_nobody(event=None)
    claim.expect(
        "protected mode is on; all pages old after aging, then exactly the touched ones young; "
        f"never entered: {', '.join(excluded.never) or 'no fast path in this contract'}"
    )
    fast = (contract.whole or contract).fast_path
    if fast is not None and "protected" in fast.modes:
        raise Unproven("the contract wants its fast path under pKVM, which must be excluded")
    enabled = shell.run("dmesg | grep -c 'kvm .*: Protected [nh]VHE mode'", check=False).stdout
    assert enabled.strip() == "1", "the kernel's log does not say that protected mode is on"
    vm = guest(pages=PAGES)
    with memcg_of(vm, shell) as memcg:
        populated(vm)
        with tracing(shell, wanted(excluded, "page_idle", "mglru_walk")) as session:
            session.start()
            mark_idle(vm)
            old_pages(vm, shell, claim)
            vm.flush()
            touched = pick(rng, PAGES)
            vm.touch(touched, write=False)
            young_pages(vm, shell, claim, touched)
            memcg.walk()
            counts = session.stop()
        claim.save("trace.txt", counts.raw)
        check_path(claim, excluded, session, counts, vm)
