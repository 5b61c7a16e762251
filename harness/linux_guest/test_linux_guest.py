# SPDX-License-Identifier: GPL-2.0-only
"""A Linux guest under QEMU, aged from the host (--linux-guest).

The claims are those of the checks with kvm-guest, for a guest as people run it: with an interrupt
controller, a timer, devices and a kernel of its own, which touches its own memory all the time.
Only the tested pages are judged: those of the guest's one process, which touches them on command.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.driver import (
    check_path,
    describe,
    either,
    expected,
    functions_only,
    situation,
)
from harness.checks.evicting import check_kept, what_stays
from harness.checks.mglru import CGROUP, zram_swap
from harness.checks.pages import pick, shorten, show_set
from harness.contract import Contract, Expectation
from harness.contract_file import Driver
from harness.deadline import Deadline
from harness.hosts.protocols import Shell
from harness.linux_guest import ENDING
from harness.linux_guest.guest import LinuxGuest
from harness.linux_guest.host_pages import IdlePages, frames, on_lru
from harness.linux_guest.machine import RAM_BASE, GuestMachine
from harness.linux_guest.memcg import memcg
from harness.observe import cpu_list, stage2
from harness.observe.collect import dump_stage2
from harness.observe.klog import Kind, Splat
from harness.observe.trace import ACCESS_FAULT, Counts, Wanted, pages_by_ipa
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

PAGES = 512
ENDS_WELL = (
    "each CPU of the guest answers at the end, each page holds what was written to it, the guest's "
    "kernel complains of nothing, and QEMU and its VM end when the guest powers off"
)
# What shows that stage 2 was invalidated; the first of them that this kernel can show.
FLUSHES = ("kvm_tlb_flush_vmid_range", "kvm_arch_flush_remote_tlbs_memslot")
# A vCPU that goes from fault to fault without end shows as one of these. But so does want of time,
# and a guest in an emulated host may well be too slow for its own watchdogs, so that nothing can be
# told of it there; nor by comparison with the base, since want of time comes by chance.
STALLS = {Kind.RCU_STALL, Kind.SOFT_LOCKUP, Kind.HARD_LOCKUP, Kind.HUNG_TASK, Kind.WORKQUEUE}

Start = Callable[..., LinuxGuest]


@pytest.fixture
def linux_guest(shell: Shell, claim: Claim, cell: CellSpec, deadline: Deadline) -> Iterator[Start]:
    """A function that boots a Linux guest of a GuestMachine; it ends with the check."""
    if not cell.linux_guest:
        raise Unproven("the host was not given what a Linux guest needs: --linux-guest")
    within = deadline.within(deadline.remaining() - ENDING * cell.slowdown)
    with contextlib.ExitStack() as stack:

        def start(machine: GuestMachine, cgroup: str | None = None) -> LinuxGuest:
            folder = claim.path("guest-console.log").parent
            vm = stack.enter_context(
                LinuxGuest.start(
                    shell, machine, folder, within, cgroup=cgroup, slowdown=cell.slowdown
                )
            )
            claim.observe(f"guest: Linux {vm.kernel}, QEMU {vm.qemu}")
            return vm

        yield start


@pytest.mark.linux_guest
@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_linux_guest(
    vcpus: int,
    linux_guest: Start,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Aged by page_idle, exactly the pages are young that the guest's process touches."""
    cpus = cpu_list.usable(shell)
    if vcpus > len(cpus):
        pytest.skip(f"the host has no CPU for each of {vcpus} vCPUs: it has {len(cpus)}")
    path = path_of(contract, "page_idle", cell)
    faults = contract.expect_access_faults(situation(cell))
    words = "for no page" if faults == "none" else "for each of these, by the vCPU that touched it"
    claim.expect(
        f"of {PAGES} pages of a process in a Linux guest with {vcpus} vCPU all old after aging by "
        f"page_idle, which {describe(path)}, then exactly those young that it touches (seed "
        f"{cell.seed}); access faults {words}; {ENDS_WELL}"
    )
    vm = linux_guest(GuestMachine(vcpus=vcpus, pages=PAGES))
    threads = vm.pin(cpus)
    touched = pick(rng, PAGES)
    parts = [frozenset(page for page in touched if page % vcpus == cpu) for cpu in range(vcpus)]
    with tracing(shell, recorded(path)) as session:
        pfns = _aged_by_page_idle(vm, shell, claim, session, path)
        idle = IdlePages(shell, pfns.values())
        _flush(vm, shell, claim, session)
        session.start()
        for cpu, part in enumerate(parts):
            vm.touch(part, write=rng.random() < 0.5, cpu=cpu)
        counts = session.stop()
    claim.save("trace-touching.txt", counts.raw)
    _in_place(vm, shell, pfns)
    _young(vm, shell, claim, touched, "touched")
    _check_faults(claim, faults, counts, vm, dict(zip(threads, parts, strict=True)))
    found = idle.idle()
    seen = frozenset(page for page in range(PAGES) if pfns[vm.pages[page]] not in found)
    claim.observe(f"page_idle: {show_set(touched, seen)}")
    assert seen == touched, f"page_idle: {show_set(touched, seen)}"
    _ends_well(vm, shell, claim, cell)


@pytest.mark.linux_guest
def test_linux_guest_mglru(
    linux_guest: Start,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """MGLRU evicts exactly the pages that the guest's process left alone; its walk ages all."""
    walk, eviction = (path_of(contract, driver, cell) for driver in ("mglru_walk", "eviction"))
    walks = walk.reaches_kvm
    aged = f"all old after MGLRU's walk, which {describe(walk)}, " if walks else ""
    young = "then exactly those young that it touches; " if walks else ""
    claim.expect(
        f"of {PAGES} pages of a process in a Linux guest {aged}{young}eviction, which "
        f"{describe(eviction)}, takes those that it did not touch and {what_stays(eviction)} (seed "
        f"{cell.seed}), and they come back as they were; {ENDS_WELL}"
    )
    everything = frozenset(range(PAGES))
    with (
        zram_swap(shell),
        memcg(shell, cell.slowdown) as group,
        linux_guest(GuestMachine(pages=PAGES), CGROUP) as vm,
        tracing(shell, recorded(walk, eviction)) as session,
    ):
        shell.write("/proc/sys/vm/drop_caches", "1\n")
        # Where no walk ages, the first eviction does: it finds all pages young and keeps them.
        for touched in (everything, pick(rng, PAGES)):
            name = f"{len(touched)}-touched"
            session.start()
            group.leave_behind()
            _check_path(claim, walk, session, f"trace-walk-before-{name}.txt")
            if walks:
                _young(vm, shell, claim, frozenset(), f"walked-before-{name}")
            _flush(vm, shell, claim, session)
            vm.touch(touched, write=False)
            _unmoved(vm)
            if walks:
                _young(vm, shell, claim, touched, name)
            session.start()
            group.evict(vm.machine.ram_pages)
            _check_path(claim, eviction, session, f"trace-eviction-{name}.txt")
            present = frames(shell, vm.pid, vm.hva, vm.pages)
            kept = frozenset(page for page in range(PAGES) if vm.pages[page] in present)
            claim.observe(f"{len(touched)} touched, {PAGES - len(kept)} of {PAGES} evicted")
            # A page that the guest's kernel has moved was touched by it.
            _unmoved(vm)
            check_kept(eviction, kept, touched)
        _ends_well(vm, shell, claim, cell)


def path_of(contract: Contract, driver: Driver, cell: CellSpec) -> Expectation:
    """The functions by which the contract has a driver go, and of the others the fast path's.

    The pages that it asks for are known by what is old then. What else it never enters is left to
    the checks with kvm-guest: a host with Linux guests may well be one that reclaims memory.
    """
    return _functions(expected(contract, driver, cell))


def _functions(expectation: Expectation) -> Expectation:
    otherwise = expectation.otherwise
    return replace(
        functions_only(expectation),
        never=tuple(name for name in expectation.never if name in expectation.fast_path),
        otherwise=otherwise and _functions(otherwise),
    )


def recorded(*paths: Expectation) -> Wanted:
    """What shows these paths, invalidations of stage 2 and access faults."""
    ways = [one for path in paths for one in either(path)]
    steps = (name for one in ways for step in (*one.enters, one.never) for name in step)
    return Wanted((ACCESS_FAULT,), tuple(dict.fromkeys((*FLUSHES, *steps))))


def _check_path(claim: Claim, path: Expectation, session: Session, name: str) -> None:
    """End a recording, keep it by that name, and assert that it shows the path."""
    counts = session.stop()
    claim.save(name, counts.raw)
    check_path(claim, path, session, counts, None)


def _aged_by_page_idle(
    vm: LinuxGuest, shell: Shell, claim: Claim, session: Session, path: Expectation
) -> dict[int, int]:
    """Age all tested pages and assert that they are old; returns their PFNs by page of RAM."""
    shell.write("/proc/sys/vm/drop_caches", "1\n")
    pfns = frames(shell, vm.pid, vm.hva, vm.pages)
    lru = on_lru(shell, pfns.values())
    if len(pfns) != PAGES or len(lru) != PAGES:
        raise Unproven(f"of {PAGES} pages {len(pfns)} are present, {len(lru)} on an LRU list")
    session.start()
    IdlePages(shell, pfns.values()).mark()
    _check_path(claim, path, session, "trace-aging.txt")
    _young(vm, shell, claim, frozenset(), "aged")
    return pfns


def _flush(vm: LinuxGuest, shell: Shell, claim: Claim, session: Session) -> None:
    """Invalidate stage 2 so that no cached translation hides a touch; Unproven if it was not.

    Two witnesses: the function that does it, and write permission, which is taken with it.
    """
    session.start()
    vm.flush()
    counts = session.stop()
    seen = next((name for name in FLUSHES if name not in session.absent), None)
    if seen is None:
        raise Unproven(f"no invalidation of stage 2 can be seen: {session.absent}")
    claim.observe(f"{counts.of(seen)} invalidations by {seen}")
    if not counts.of(seen):
        raise Unproven("QEMU's reading of the dirty log invalidated nothing")
    dump = dump_stage2(shell, vm.vm_dir)
    claim.save("stage2-flushed.txt", dump.raw)
    writable = stage2.writable(dump.ranges, RAM_BASE, vm.machine.ram_pages)
    left = frozenset(page for page, at in enumerate(vm.pages) if at in writable)
    if left:
        raise Unproven(f"the dirty log passed over tested pages: {shorten(left)}")


def _young(vm: LinuxGuest, shell: Shell, claim: Claim, expected: frozenset[int], name: str) -> None:
    """Assert that of the tested pages exactly these are young in stage 2."""
    dump = dump_stage2(shell, vm.vm_dir)
    claim.save(f"stage2-{name}.txt", dump.raw)
    leaves = stage2.slot_leaves(dump.ranges, RAM_BASE, vm.machine.ram_pages)
    tested = [leaves[at] for at in vm.pages]
    unfit = sum(not leaf.valid or leaf.block for leaf in tested)
    if unfit:
        raise Unproven(f"stage 2 has no leaf of 4 KiB for {unfit} of {len(tested)} pages")
    seen = frozenset(page for page, leaf in enumerate(tested) if leaf.af)
    claim.observe(f"stage 2, {name}: {show_set(expected, seen)}")
    assert seen == expected, f"stage 2, {name}: {show_set(expected, seen)}"


def _check_faults(
    claim: Claim, promised: str, counts: Counts, vm: LinuxGuest, parts: dict[int, frozenset[int]]
) -> None:
    """Assert that each vCPU's thread took access faults for the tested pages that it must."""
    number = {at: page for page, at in enumerate(vm.pages)}
    events = counts.events(ACCESS_FAULT)
    for thread, part in parts.items():
        own = (event for event in events if event.pid == thread)
        at_ram = pages_by_ipa(own, RAM_BASE, vm.machine.ram_pages)
        faulted = frozenset(number[at] for at in at_ram if at in number)
        claim.observe(f"access faults for {len(faulted)} of {len(part)} pages by thread {thread}")
        expected = part if promised == "touched" else frozenset()
        words = show_set(expected, faulted, "faulted")
        assert faulted == expected, f"access faults: {words}"
    claim.af_observed = "software" if promised == "touched" else "hardware"


def _unmoved(vm: LinuxGuest) -> None:
    """Unproven if the guest's kernel has moved a tested page: it has touched it then."""
    if vm.frames() != vm.pages:
        raise Unproven("the guest's kernel has moved tested pages meanwhile")


def _ends_well(vm: LinuxGuest, shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """Assert ENDS_WELL: what a vCPU, its memory or its VM is left with shows here, if anywhere."""
    for cpu in range(vm.machine.vcpus):
        # Compares what each page holds with what the guest wrote to it; LinuxGuestDied if that CPU
        # does not answer, which is judged by comparison with the base.
        vm.touch(range(PAGES), write=False, cpu=cpu)
    claim.observe(f"{len(vm.reports)} reports of the guest's kernel")
    no_complaints(claim, vm.reports, emulated=cell.emulated)
    vm.power_off()
    vm.close()
    tables.assert_no_vm_of(shell, claim, vm.pid, cell.slowdown)


def no_complaints(claim: Claim, reports: Iterable[Splat], *, emulated: bool) -> None:
    """Assert that the guest's kernel complains of nothing.

    What aging does wrong to the guest's own memory shows there. Where the host is emulated it is
    not judged whether the guest lacked time alone, but nor is it passed over.
    """
    late = [one for one in reports if emulated and one.kind in STALLS]
    bad = [one for one in reports if one not in late]
    assert not bad, f"the guest's kernel reported: {bad[0].headline}"
    if late:
        claim.not_judged(
            "whether the guest's vCPUs got on or its host, which is emulated, had no time for them:"
            f" its kernel reported: {late[0].headline}"
        )


def _in_place(vm: LinuxGuest, shell: Shell, pfns: dict[int, int]) -> None:
    """Unproven if a tested page is not where it was, in the guest or on the host."""
    _unmoved(vm)
    if frames(shell, vm.pid, vm.hva, vm.pages) != pfns:
        raise Unproven("the host has moved tested pages meanwhile")
