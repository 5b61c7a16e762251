# SPDX-License-Identifier: GPL-2.0-only
"""How access faults and aging take the MMU lock: as the contract has it, once or once at most.

Aging comes by three notifiers, each of which may go another way: one makes old, one makes old and
flushes the TLB (eviction of huge pages), one asks only (khugepaged, and DAMON when it looks).

A lock that nobody else wants costs next to nothing, so no count of instructions and no time of an
idle machine tells a write lock from a read lock. The tracepoint of lockdep does.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping

import pytest

from harness.cell import CellSpec
from harness.checks import damon, khugepaged
from harness.checks.claim import Claim
from harness.checks.driver import situation
from harness.checks.idle_ager import agers
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.overlap import AGE, AGE_CALLBACK, TEST, UNMAP
from harness.checks.pages import forget_references, mark_idle, pick, populated, require_huge
from harness.checks.racing import kept
from harness.contract import Contract
from harness.contract_file import Locker, LockRule
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import lockdep
from harness.observe.lockdep import Taken
from harness.observe.trace import ACCESS_FAULT, Counts, Wanted, returned
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 512
# The one without which khugepaged makes no huge page of the others.
ABSENT = PAGES - 1
SAMPLES = 64
BLOCKS = 4
# A fault of any kind, before KVM looks at which it is.
FAULT = "kvm:kvm_guest_fault"
EVENTS = (AGE, TEST, UNMAP, FAULT, ACCESS_FAULT, lockdep.ACQUIRE)
WANTED = Wanted(EVENTS, buffer_kib=8192, filters={lockdep.ACQUIRE: lockdep.MMU_LOCK})
# Of a huge page of the host.
HUGE = 512
# Aged one by one in a guest that has many more.
ALONE = range(4)
HOLDS = Wanted(
    (AGE, lockdep.ACQUIRE, lockdep.RELEASE),
    filters=dict.fromkeys((lockdep.ACQUIRE, lockdep.RELEASE), lockdep.MMU_LOCK),
    returns={AGE_CALLBACK: ""},
)

# Records what an act does, under a name.
Record = Callable[[str, Callable[[], object]], Counts]


def taken(counts: Counts, cause: str) -> Taken:
    """What a recording shows of a cause."""
    return lockdep.taken_by(cause, counts.in_order(*EVENTS))


def check_taken(
    claim: Claim, what: str, found: Taken, promise: LockRule, least: int, *, slot: bool = True
) -> None:
    """Assert that the lock was taken once at most for each of `least` causes or more, no stronger.

    And no less than once where that is promised, if all are for memory that a `slot` has and were
    recorded to their end: for other memory, KVM has nothing to lock. Unproven if there were fewer
    causes, so that something was not recorded.
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


def check_hold(
    claim: Claim, what: str, counts: Counts, promise: LockRule, calls: int, least: int
) -> None:
    """Assert that no hold of the lock to age visited more entries than the contract lets it.

    Unproven if there were more calls, each for less, or fewer than `least` visits at all: then it
    is not seen what one call does.
    """
    visit = returned(AGE_CALLBACK)
    number = len(counts.events(visit))
    events = counts.in_order(AGE, lockdep.ACQUIRE, lockdep.RELEASE, visit)
    most = lockdep.longest_hold(AGE, visit, events)
    claim.observe(f"{what}: {number} entries visited, {most} at most with the MMU lock held once")
    assert most <= promise.visits, (
        f"{what}: {most} entries were visited while the MMU lock was held once, where "
        f"{promise.visits} are the most"
    )
    called = len(counts.events(AGE))
    if called != calls or number < least:
        raise Unproven(
            f"{what}: {called} calls and {number} visits of entries were recorded, where there are "
            f"{calls} calls and {least} visits or more"
        )


@pytest.mark.deep
def test_lock_hold(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec, contract: Contract
) -> None:
    """Who ages visits no more entries in one hold of the MMU lock than the contract lets it."""
    if not cell.debug:
        pytest.skip("only lockdep tells who takes a lock: debug kernels alone have it (--debug)")
    promise = contract.expect_mmu_lock(situation(cell)).get("aging")
    if promise is None or promise.takes == "none":
        pytest.skip("by the contract, aging takes no MMU lock here, or nothing is said of it")
    claim.expect(
        f"while page_idle ages {len(ALONE)} of {2 * HUGE} pages, and a huge page that stage 2 has "
        f"by pages, {promise.visits} entries at most are visited while the MMU lock is held once"
    )
    with tracing(shell, HOLDS) as session:
        with populated(guest(pages=2 * HUGE)) as vm:
            pfns = vm.pfns()
            with agers(vm, shell, [[pfns[page] for page in ALONE]]) as age:
                _, counts = kept(session, claim, "trace-pages.txt", age)
            check_hold(claim, "pages", counts, promise, len(ALONE), len(ALONE))
        with populated(guest(backing="thp", pages=HUGE)) as vm:
            vm.dirty_log(True)
            vm.touch(range(HUGE), write=True)
            _, counts = kept(session, claim, "trace-huge.txt", vm.idle_mark)
            check_hold(claim, "huge page", counts, promise, 1, HUGE)


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
    here = situation(cell)
    promised = promises(contract, cell)
    words = ", ".join(
        f"{who} {rule.takes}{' (always)' if rule.always else ''}" for who, rule in promised.items()
    )
    claim.expect(f"the MMU lock is taken once at most, and no stronger than: {words}")
    vm = guest(pages=PAGES)
    touched = pick(rng, PAGES)
    with contextlib.ExitStack() as stack:
        memcg = stack.enter_context(memcg_of(vm, shell))
        session = stack.enter_context(tracing(shell, WANTED))

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
        if "aging" in promised:
            sampled, looked = by_damon(vm, shell, rng, cell, recorded)
            check_taken(claim, "calls by DAMON to age", sampled, promised["aging"], SAMPLES)
            check_taken(claim, "calls by DAMON to ask", looked, promised["aging"], SAMPLES)
            asked = by_khugepaged(vm, shell, cell, recorded)
            # It goes on when the recording ends, maybe between a call and its lock.
            what, promise = "calls by khugepaged", promised["aging"]
            check_taken(claim, what, asked, promise, ABSENT, slot=False)
    if "aging" in promised:
        evicted = by_eviction(guest, shell, claim)
        # Small pages beside them may be of memory that no slot has.
        what, promise = "calls by eviction of huge pages", promised["aging"]
        check_taken(claim, what, evicted, promise, BLOCKS, slot=False)


def by_damon(
    vm: Guest, shell: Shell, rng: random.Random, cell: CellSpec, recorded: Record
) -> tuple[Taken, Taken]:
    """What DAMON takes to age some pages, and to ask whether they were accessed since."""
    starts = sorted(
        vm.greeting.slot_hva + page * PAGE_SIZE for page in rng.sample(range(PAGES), SAMPLES)
    )
    with contextlib.ExitStack() as stack:
        sampling = damon.sampling(shell, vm.greeting.pid, starts, PAGE_SIZE, cell.slowdown)
        finish: list[Callable[[], None]] = []
        aged = recorded("damon", lambda: finish.append(stack.enter_context(sampling)))
        looked = recorded("damon-looks", finish[0])
    return taken(aged, AGE), taken(looked, TEST)


def by_khugepaged(vm: Guest, shell: Shell, cell: CellSpec, recorded: Record) -> Taken:
    """What khugepaged takes to ask about each page of a range that it makes no huge page of."""
    vm.advise("dontneed", {ABSENT})
    # Of what is young to the host it does not ask.
    forget_references(vm, shell)
    with khugepaged.busy(shell):
        vm.advise("hugepage", range(PAGES))
        asked = recorded("khugepaged", lambda: khugepaged.wait_full_scans(shell, 1, cell.slowdown))
    return taken(asked, TEST)


def by_eviction(guest: Callable[..., Guest], shell: Shell, claim: Claim) -> Taken:
    """What the eviction of huge pages takes that were all touched, so that none goes."""
    vm = guest(backing="thp", pages=BLOCKS * PAGES)
    with (
        zram_swap(shell),
        memcg_of(vm, shell) as memcg,
        tracing(shell, WANTED) as session,
    ):
        populated(vm)
        require_huge(vm)
        memcg.leave_behind()
        session.start()
        memcg.evict(vm.slot.pages)
        counts = session.stop()
    claim.save("trace-eviction.txt", counts.raw)
    return taken(counts, AGE)


def promises(contract: Contract, cell: CellSpec) -> Mapping[Locker, LockRule]:
    """What the contract promises of the MMU lock; skips the check if nobody could tell."""
    if not cell.debug:
        pytest.skip("only lockdep tells who takes a lock: debug kernels alone have it (--debug)")
    promised = contract.expect_mmu_lock(situation(cell))
    if not promised:
        pytest.skip("the contract says nothing of the MMU lock")
    return promised
