# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory of other kinds than test_access_flag has, each aged by each driver (claim 8).

Pages of a file are on the LRU lists of files; MGLRU's walk and its eviction take them by another
way than anonymous ones, and a clean one is dropped where those are swapped out. Shared memory is
a file's to the mapping and anonymous to the lists. Of a private mapping of a file, what the guest
wrote is anonymous and what it read is the file's. hugetlb is on no list: test_damon.py.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.disk import file_system
from harness.checks.driver import check_path, promised, situation, wanted
from harness.checks.evicting import evict_untouched, what_stays
from harness.checks.groups import grouped
from harness.checks.mglru import Memcg, memcg_of, zram_swap
from harness.checks.pages import (
    af_alone,
    leaves,
    old_pages,
    on_lists,
    pick,
    require_blocks,
    shorten,
    young_pages,
)
from harness.checks.shmem import huge_by_advice
from harness.contract import Contract
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 512
BLOCK = 512
# A touch of one block must leave another old.
HUGE_PAGES = 2 * BLOCK
# The pages and what the file system needs for itself.
DISK_MIB = 32
IMAGE = "memory"


@contextlib.contextmanager
def prepared(backing: Backing, shell: Shell) -> Iterator[str | None]:
    """What a host must have for this backing; the path of the file, where it is one."""
    if backing == "memfdthp":
        with huge_by_advice(shell):
            yield None
    elif backing in ("file", "fileprivate"):
        with file_system(shell, DISK_MIB) as folder:
            yield f"{folder}/{IMAGE}"
    else:
        yield None


def fill(vm: Guest, shell: Shell, claim: Claim, rng: random.Random) -> frozenset[int]:
    """Have all pages in stage 2, in the state that is special to this backing.

    Returns the pages that are the same ones still after the guest has written to them.
    """
    pages = vm.slot.pages
    if vm.greeting.backing == "fileprivate":
        return _half_copied(vm, claim, rng)
    vm.populate()
    if vm.greeting.backing == "file":
        _written_back(vm, shell, claim)
    on_lists(vm)
    if vm.greeting.backing == "memfdthp":
        require_blocks(vm, leaves(vm, shell, claim, "populated"))
    return frozenset(range(pages))


def _half_copied(vm: Guest, claim: Claim, rng: random.Random) -> frozenset[int]:
    """Pages of the file for reads, copies for writes: the copies are the guest's own."""
    vm.touch(range(PAGES), write=False)
    on_lists(vm)
    copied = vm.flagged("anon")
    assert not copied, f"{len(copied)} pages were copied for a read: {shorten(copied)}"
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    on_lists(vm)
    copied = vm.flagged("anon")
    claim.observe(f"{len(copied)} pages copied, {PAGES - len(copied)} of the file")
    assert copied == written, f"{len(copied)} pages were copied for {len(written)} writes"
    return written


def _written_back(vm: Guest, shell: Shell, claim: Claim) -> None:
    """Write dirty pages to the file's disk, and have the guest read all of them.

    What is clean must be write-protected in stage 2 as well: a write to it has to be noticed, or
    it never comes to the file.
    """
    shell.run("sync")
    dirty = vm.flagged("dirty")
    if dirty:
        raise Unproven(f"{len(dirty)} pages are dirty after sync")
    vm.touch(range(PAGES), write=False)
    writable = stage2.writable(leaves(vm, shell, claim, "clean"), vm.slot.ipa, PAGES)
    claim.observe(f"{len(writable)} of {PAGES} clean pages of the file are writable")
    assert not writable, f"{len(writable)} clean pages are writable: {shorten(writable)}"


@pytest.mark.parametrize(
    ("backing", "driver"),
    grouped(
        [
            ("file", "page_idle"),
            ("file", "mglru_walk"),
            ("fileprivate", "page_idle"),
            ("fileprivate", "mglru_walk"),
            # By page_idle in test_access_flag.
            ("memfd", "mglru_walk"),
            ("memfdthp", "page_idle"),
            ("memfdthp", "mglru_walk"),
        ],
        stress=[("fileprivate", "page_idle"), ("fileprivate", "mglru_walk")],
    ),
)
def test_backing(
    backing: Backing,
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """After aging, exactly the leaves that the guest touches are young, whatever the memory is."""
    block, pages = (BLOCK, HUGE_PAGES) if backing == "memfdthp" else (1, PAGES)
    expectation = promised(contract, driver, cell, shell, claim)
    claim.expect(
        f"{claim.expected}; {pages} pages of {backing} memory all old then, with no other change; "
        f"after that exactly the leaves that the guest touched young (seed {cell.seed})"
    )
    if not expectation.reaches_kvm:
        pytest.skip(f"{driver} does not reach KVM here")
    with (
        prepared(backing, shell) as path,
        guest(backing=backing, pages=pages, file=path) as vm,
        aging_by(driver, vm, shell, claim, contract, cell) as age,
        tracing(shell, wanted(expectation, driver)) as session,
    ):
        may_write = fill(vm, shell, claim, rng)
        ipa = vm.slot.ipa
        before = leaves(vm, shell, claim, "before")
        session.start()
        age()
        counts = session.stop()
        claim.save("trace.txt", counts.raw)
        if block == 1:
            # The contract speaks of pages of 4 KiB.
            check_path(claim, expectation, session, counts, vm)
        aged = old_pages(vm, shell, claim)
        af_alone(vm, before, aged)

        touched = pick(rng, pages, block)
        written = frozenset(page for page in touched & may_write if rng.random() < 0.5)
        vm.flush()
        vm.touch(touched - written, write=False)
        vm.touch(written, write=True)
        young_pages(vm, shell, claim, stage2.by_leaf(aged, ipa, pages, touched))
        if backing == "file":
            dirty = vm.flagged("dirty")
            claim.observe(f"{len(dirty)} pages dirty after {len(written)} writes")
            assert dirty == written, f"{len(dirty)} pages dirty after {len(written)} writes"
        age()
        old_pages(vm, shell, claim)
        vm.touch(range(pages), write=False)
        vm.verify(range(pages))
        if backing == "fileprivate":
            _assert_empty(shell, path, claim)


def _assert_empty(shell: Shell, path: str | None, claim: Claim) -> None:
    """What was written to a private mapping is in no file."""
    number = int(shell.run(f"tr -d '\\000' < {path} | wc -c").stdout)
    claim.observe(f"{number} bytes came to the file")
    assert number == 0, f"{number} bytes of a private mapping came to its file"


def _used_before(vm: Guest, shell: Shell, path: str | None, memcg: Memcg) -> Callable[[], None]:
    """Have MGLRU take no use that it is to judge for the first: what to do when pages are old.

    Linux 7.3 takes a page that it finds young for the first time (LRU_REFS_FLAGS,
    include/linux/mmzone.h). The walk finds all young twice, which makes them part of the working
    set for good. A page of a file begins anew whenever aging moves it to the next generation
    (folio_inc_gen(), mm/vmscan.c), as it comes to the oldest one (lru_gen_folio_seq()): that the
    host reads the file is its first use.
    """
    if path:
        return lambda: _read_by_host(shell, path)
    memcg.walk()
    vm.flush()
    vm.touch(range(PAGES), write=False)
    return lambda: None


def _read_by_host(shell: Shell, path: str) -> None:
    shell.run(f"cat {path} > /dev/null")


@pytest.mark.parametrize("backing", grouped(["file", "memfd"], stress=["memfd"]))
def test_eviction_backing(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Eviction drops or swaps out exactly the pages that the guest left alone; none loses data."""
    expectation = promised(contract, "eviction", cell, shell, claim)
    stays = what_stays(expectation)
    claim.expect(
        f"{claim.expected}; evicted is all of {PAGES} pages of {backing} memory that the guest "
        f"left alone, and {stays}; it comes back with what the guest wrote"
    )
    everything = frozenset(range(PAGES))
    counters = contract.expect_counters(situation(cell))
    with (
        zram_swap(shell),
        prepared(backing, shell) as path,
        guest(backing=backing, pages=PAGES, file=path) as vm,
        memcg_of(vm, shell) as memcg,
        tracing(shell, wanted(expectation, "eviction")) as session,
    ):
        fill(vm, shell, claim, rng)
        use = _used_before(vm, shell, path, memcg)
        for touched in (everything, pick(rng, PAGES)):
            evict_untouched(
                vm, shell, claim, memcg, session, expectation, counters, touched, use=use
            )
        # kvm-guest compares what the guest reads with what it wrote.
        vm.touch(everything, write=False)
