# SPDX-License-Identifier: GPL-2.0-only
"""A page that came back from swap and is clean, until the guest writes to it (claims 4 and 15).

What is read from swap keeps its place there while it is in the swap cache: as long as nobody has
written to it, it can be dropped without being written out again. do_swap_page() (mm/memory.c) gives
it to its owner writable, and clean, also for a read, and KVM then maps it writable at a fault that
was a read: no further fault tells of the guest's first write. So KVM calls the page dirty when it
maps it writable (user_mem_abort()), whatever the fault was; otherwise what the guest wrote since is
dropped, and the guest reads what it had written before. Older kernels (6.2 is one) gave it to its
owner read-only, where there is nothing to lose; newer ones without 143937ca51cc ("avoid always
making PTE dirty in pte_mkwrite()", in 6.12.117) make it dirty at once, on CPUs with hardware dirty
state.

With zram alone a page passes the swap cache by (SWP_SYNCHRONOUS_IO), and add_to_swap() makes it
dirty; MADV_WILLNEED reads into the swap cache always. Shared memory cannot show it: it leaves the
swap cache, and is made dirty, when it is read (shmem_swapin_folio()). Nor can a file: the host
itself maps its clean pages read-only.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.mglru import zram_swap
from harness.checks.pages import leaves, populated, shows_stage2
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

PAGES = 256
EVERYTHING = frozenset(range(PAGES))
# As many that were only read, then written, have to have gone twice.
ENOUGH = 16


@pytest.mark.deep
def test_swap_cache(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """What the guest wrote last is there, although it had only read the page at first."""
    claim.expect(
        f"{PAGES} pages are swapped out and read into the swap cache; the guest reads some, writes "
        "some, and writes some that it had read; all are swapped out once more, and it reads what "
        "it wrote last; the same with a dirty log on, where it may write none that it has read, "
        f"and which names just those that it wrote (seed {cell.seed})"
    )
    with zram_swap(shell), guest(pages=PAGES) as vm:
        dump = shows_stage2(vm, shell, claim, "what the guest reads")
        populated(vm)
        cached, read, written = _cached(vm, rng)
        vm.touch(read, write=False)
        kept = vm.flagged("swapcache")
        if cached and not kept & read and cached & read <= vm.flagged("dirty"):
            pytest.skip("this kernel keeps nothing in the swap cache that was read: it is dirty")
        subject = written & cached & kept
        if dump:
            writable = stage2.writable(leaves(vm, shell, claim, "read"), vm.slot.ipa, PAGES)
            claim.observe(f"{len(writable & subject)} of {len(subject)} writable once read")
            if subject and not writable & subject:
                # Of the first write to each KVM is told by a fault.
                pytest.skip("this kernel lets a guest write no page that it read from swap")
            subject &= writable
        vm.touch(written | EVERYTHING - read, write=True)
        _nothing_lost(vm, claim, subject, "without the log")
        _logged(vm, shell, claim, rng, dump=dump)


def _logged(vm: Guest, shell: Shell, claim: Claim, rng: random.Random, *, dump: bool) -> None:
    """The same with a dirty log on: the guest may write a page from the first write on.

    It is then no new leaf that must call its page dirty, but one that is changed
    (kvm_pgtable_stage2_relax_perms() of user_mem_abort()): to its owner the page is writable, and
    clean, still.
    """
    cached, read, written = _cached(vm, rng)
    vm.dirty_log(True)
    vm.touch(read, write=False)
    subject = written & cached & vm.flagged("swapcache")
    if dump:
        ranges = leaves(vm, shell, claim, "read-logged")
        assert_writable(vm, claim, ranges, frozenset(), "read with the log on")
        subject &= stage2.mapped(ranges, vm.slot.ipa, PAGES)
    written |= EVERYTHING - read
    vm.touch(written, write=True)
    assert_logged(vm, claim, written, "written with the log on")
    vm.dirty_log(False)
    _nothing_lost(vm, claim, subject, "with the log on")


def _cached(vm: Guest, rng: random.Random) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    """Swap all out and read it into the swap cache: the pages that this has gone well for.

    Also, by chance, those that the guest is to read, and which of these it is to write then.
    """
    gone = _swapped_out(vm)
    vm.advise("willneed", EVERYTHING)
    read = frozenset(page for page in EVERYTHING if rng.random() < 0.75)
    return gone, read, frozenset(page for page in read if rng.random() < 0.5)


def _nothing_lost(vm: Guest, claim: Claim, subject: frozenset[int], when: str) -> None:
    """Have all swapped out, and assert that the guest reads what it wrote last.

    Unproven unless enough of the pages `subject` go, which it read from the swap cache first.
    """
    again = subject & _swapped_out(vm)
    claim.observe(
        f"{when}: {len(subject)} of {PAGES} such pages in the swap cache, read and then written; "
        f"{len(again)} of these swapped out again"
    )
    vm.touch(EVERYTHING, write=False)
    vm.verify(EVERYTHING)
    if len(again) < ENOUGH:
        raise Unproven(
            f"{when} {len(again)} pages came back from the swap cache for a read, writable to "
            f"their owner, were written and swapped out again: {ENOUGH} at least are needed"
        )


def _swapped_out(vm: Guest) -> frozenset[int]:
    """Page out all that can go: those that are their owner's no more."""
    vm.drain()
    vm.advise("pageout", EVERYTHING)
    return EVERYTHING - vm.pfns().keys()
