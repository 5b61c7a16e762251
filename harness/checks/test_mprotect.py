# SPDX-License-Identifier: GPL-2.0-only
"""What the owner of a VM may not write, its guest may not either (claim 4).

mprotect() takes write permission from a mapping of the host, under a memslot that is writable. KVM
is told by an MMU notifier, and must neither keep a writable leaf nor make one again, be it by a
fault for AF or for reading. A guest's store then ends KVM_RUN with EFAULT and reaches no memory.
userfaultfd(2) takes it from pages, and leaves the mapping as it is
(Documentation/admin-guide/mm/userfaultfd.rst, "Write Protect Notifications").

Whoever splits a mapping elsewhere than between two ranges of 2 MiB takes the whole of such a range
from stage 2 (__split_huge_pmd() of mm/huge_memory.c, though no page of it is huge): so whether KVM
heeds mprotect() itself shows with whole ranges alone, and whether all else stays does too.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Protocol

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.logged import assert_logged
from harness.checks.pages import aging_is_exact, leaves, mark_idle, pick, populated, shorten
from harness.checks.skips import NO_UFFD, or_skip
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

UNIT = 512
PAGES = 4 * UNIT
# In the middle, with others on either side; a table of huge pages of the host's ends within it, and
# another begins (docs/guest-protocol.md, "The machine").
WHOLE = frozenset(range(UNIT, 3 * UNIT))


class _Change(Protocol):
    """Lets the owner write pages, or only read them."""

    def __call__(self, pages: Iterable[int], *, write: bool) -> None: ...


@pytest.mark.parametrize("backing", grouped(["anon", "memfd", "thp"], stress=["memfd"]))
def test_mprotect(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """No leaf is writable where the host's mapping is not, and a store there changes nothing."""
    # Of huge pages that are mapped by small ones, khugepaged makes huge ones again meanwhile.
    single = backing != "thp"
    claim.expect(
        f"of {PAGES} pages ({backing}) the owner may only read a range of 4 MiB"
        + (", then single pages" if single else "")
        + ": no leaf of them is writable, whatever is aged and read; the guest reads what it "
        "wrote, and each of its stores there ends in EFAULT and reaches no memory, by old leaves "
        "with a dirty log on as well, which names the other stores; the ranges beside it stay as "
        f"they are; aging is exact meanwhile and afterwards (seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=PAGES))
    _barred_alone(vm, shell, claim, vm.mprotect, "ranges", WHOLE)
    _hold(vm, shell, claim, rng, vm.mprotect, "ranges", WHOLE)
    if single:
        _hold(vm, shell, claim, rng, vm.mprotect, "pages", pick(rng, PAGES))


@pytest.mark.deep
def test_uffd_protect(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """The same of pages that userfaultfd protects, each for itself: no mapping is split for it."""
    claim.expect(
        f"of {PAGES} pages userfaultfd protects a range of 4 MiB, then single pages: no leaf of "
        "them is writable, all others stay as they are; whatever is aged and read, the guest "
        "reads what it wrote, and each of its stores there ends in EFAULT and reaches no memory, "
        "with a dirty log on as well, which names the other stores; "
        f"aging is exact meanwhile and afterwards (seed {cell.seed})"
    )
    vm = populated(guest(pages=PAGES))

    def change(pages: Iterable[int], *, write: bool) -> None:
        vm.uffd_protect(not write, pages)

    or_skip(lambda: change([0], write=False), NO_UFFD, f"this kernel has {NO_UFFD}")
    change([0], write=True)
    for name, barred in (("ranges", WHOLE), ("pages", pick(rng, PAGES))):
        vm.touch(range(PAGES), write=True)
        _barred_alone(vm, shell, claim, change, name, barred)
        _hold(vm, shell, claim, rng, change, name, barred)


def _barred_alone(
    vm: Guest, shell: Shell, claim: Claim, change: _Change, name: str, barred: frozenset[int]
) -> None:
    """Take write permission from these pages; assert that stage 2 heeds it, for no others."""
    before = leaves(vm, shell, claim, f"{name}-before")
    change(barred, write=False)
    after = _none_writable(vm, shell, claim, name, barred)
    changed = stage2.differing(before, after, vm.slot.ipa, PAGES, af=True) - barred
    claim.observe(f"{name}: {len(changed)} other leaves changed")
    assert not changed, f"{name}: leaves of others changed: {shorten(changed)}"


def _hold(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    change: _Change,
    name: str,
    barred: frozenset[int],
) -> None:
    """Assert that the guest may do with these pages what the host may, now and afterwards."""
    everything = frozenset(range(PAGES))
    change(barred, write=False)
    vm.touch(everything, write=False)
    _none_writable(vm, shell, claim, f"{name}-read", barred)
    aging_is_exact(vm, shell, claim, rng, f"{name}-barred")
    # Old leaves and young ones, of these and of the others.
    _write(vm, shell, claim, rng, f"{name}-written", barred)
    # With a dirty log on nothing may be written without a fault: what a fault for AF tells of an
    # access must not be all that KVM asks. To switch it on invalidates what is cached as well.
    mark_idle(vm)
    vm.dirty_log(True)
    written = _write(vm, shell, claim, rng, f"{name}-logged", barred)
    assert_logged(vm, claim, written - barred, f"{name}-logged")
    vm.dirty_log(False)
    vm.touch(everything, write=False)
    vm.verify(everything)

    change(barred, write=True)
    vm.touch(everything, write=True)
    refused = vm.refused()
    assert not refused, f"{name}: stores were refused where the host may: {shorten(refused)}"
    vm.verify(everything)
    aging_is_exact(vm, shell, claim, rng, f"{name}-free")


def _write(
    vm: Guest, shell: Shell, claim: Claim, rng: random.Random, name: str, barred: frozenset[int]
) -> frozenset[int]:
    """Write to some pages, and assert that stores to those that are barred alone are refused."""
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    refused = vm.refused()
    claim.observe(f"{name}: {len(refused)} of {len(written)} stores refused")
    wrong = refused ^ (written & barred)
    assert not wrong, f"{name}: stores were refused or not, unlike the host's: {shorten(wrong)}"
    _none_writable(vm, shell, claim, name, barred)
    return written


def _none_writable(
    vm: Guest, shell: Shell, claim: Claim, name: str, barred: frozenset[int]
) -> tuple[stage2.Range, ...]:
    """Assert that the guest may write none of these pages."""
    ranges = leaves(vm, shell, claim, name)
    wrong = barred & stage2.writable(ranges, vm.slot.ipa, vm.slot.pages)
    claim.observe(f"{name}: {len(wrong)} writable that the host may not write")
    assert not wrong, f"{name}: leaves are writable where the host is not: {shorten(wrong)}"
    return ranges
