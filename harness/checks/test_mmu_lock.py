# SPDX-License-Identifier: GPL-2.0-only
"""How access faults and aging take the MMU lock: as the contract has it, once or once at most.

A lock that nobody else wants costs next to nothing, so no count of instructions and no time of an
idle machine tells a write lock from a read lock. The tracepoint of lockdep does.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import situation
from harness.checks.mglru import memcg_of
from harness.checks.overlap import AGE
from harness.checks.pages import mark_idle, pick, populated
from harness.contract import Contract, LockRule
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import lockdep
from harness.observe.lockdep import Taken
from harness.observe.trace import ACCESS_FAULT, Counts, Wanted
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 512
# A fault of any kind, before KVM looks at which it is.
FAULT = "kvm:kvm_guest_fault"
EVENTS = (AGE, FAULT, ACCESS_FAULT, lockdep.ACQUIRE)
WANTED = Wanted(EVENTS, filters={lockdep.ACQUIRE: lockdep.MMU_LOCK})


def taken(counts: Counts, cause: str) -> Taken:
    """What a recording shows of a cause."""
    return lockdep.taken_by(cause, counts.in_order(*EVENTS))


def check_taken(
    claim: Claim, what: str, found: Taken, promise: LockRule, least: int, *, slot: bool = True
) -> None:
    """Assert that the lock was taken once at most for each of `least` causes or more, no stronger.

    And no less than once where that is promised, if all are for memory that a `slot` has: for
    other memory, KVM has nothing to lock. Unproven if there were fewer causes, so that something
    was not recorded.
    """
    claim.observe(f"{found.causes} {what}: {found.write} write locks, {found.read} read locks")
    if found.causes < least:
        raise Unproven(f"{found.causes} {what} were recorded, and there were {least} or more")
    for access, number in (("writing", found.write), ("reading", found.read)):
        allowed = promise.takes == "write" or (promise.takes == "read" and access == "reading")
        most = found.causes if allowed else 0
        assert number <= most, (
            f"{found.causes} {what} took the MMU lock {number} times for {access}, where {most} "
            "times are the most"
        )
    both = found.write + found.read
    assert both <= found.causes, f"{found.causes} {what} took the MMU lock {both} times"
    if promise.always and slot:
        words = f"{found.causes} {what} took the MMU lock {both} times, where each must take it"
        assert both == found.causes, words


@pytest.mark.deep
def test_mmu_lock(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Access faults and aging take the MMU lock as the contract has it, no more than once each."""
    if not cell.debug:
        pytest.skip("only lockdep tells who takes a lock: debug kernels alone have it (--debug)")
    here = situation(cell)
    promised = contract.expect_mmu_lock(here)
    if not promised:
        pytest.skip("the contract says nothing of the MMU lock")
    words = ", ".join(
        f"{who} {rule.takes}{' (always)' if rule.always else ''}" for who, rule in promised.items()
    )
    claim.expect(f"the MMU lock is taken once at most, and no stronger than: {words}")
    vm = guest(pages=PAGES)
    touched = pick(rng, PAGES)
    with memcg_of(vm, shell) as memcg, tracing(shell, WANTED) as session:

        def recorded(name: str, act: Callable[[], object]) -> Counts:
            session.start()
            act()
            counts = session.stop()
            claim.save(f"trace-{name}.txt", counts.raw)
            return counts

        # Mapping a page takes the lock in every kernel: where that is not seen, nothing is.
        if not recorded("mapping", lambda: populated(vm)).of(lockdep.ACQUIRE):
            raise Unproven("no acquisition of the MMU lock is seen while pages are mapped")
        if "aging" in promised:
            marked = taken(recorded("page-idle", lambda: mark_idle(vm)), AGE)
            check_taken(claim, "calls by page_idle", marked, promised["aging"], PAGES)
        else:
            mark_idle(vm)
        # A cached translation would hide the touch from stage 2.
        vm.flush()
        faults = recorded("touching", lambda: vm.touch(touched, write=False))
        if "access_fault" in promised:
            least = len(touched) if contract.expect_access_faults(here) == "touched" else 0
            check_taken(
                claim, "access faults", taken(faults, ACCESS_FAULT), promised["access_fault"], least
            )
        if "aging" in promised and contract.expect("mglru_walk", here).reaches_kvm:
            walked = taken(recorded("walk", memcg.walk), AGE)
            # It goes over all of the process, also what no slot has.
            what, promise = "calls by MGLRU's walk", promised["aging"]
            check_taken(claim, what, walked, promise, PAGES, slot=False)
