# SPDX-License-Identifier: GPL-2.0-only
"""What the owner of a VM may not write, its guest may not either (claim 4).

mprotect() takes write permission from a mapping of the host, under a memslot that is writable. KVM
is told by an MMU notifier, and must neither keep a writable leaf nor make one again, be it by a
fault for AF or for reading. A guest's store then ends KVM_RUN with EFAULT and reaches no memory.

Whoever splits a mapping elsewhere than between two ranges of 2 MiB takes the whole of such a range
from stage 2 (__split_huge_pmd() of mm/huge_memory.c, though no page of it is huge): so whether KVM
heeds mprotect() itself shows with whole ranges alone, and whether all else stays does too.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.pages import aging_is_exact, leaves, pick, populated, shorten
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

UNIT = 512
PAGES = 3 * UNIT


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
    # In the middle, with others on either side.
    whole = frozenset(range(UNIT, 2 * UNIT))
    # Of huge pages that are mapped by small ones, khugepaged makes huge ones again meanwhile.
    single = backing != "thp"
    claim.expect(
        f"of {PAGES} pages ({backing}) the owner may only read a range of 2 MiB"
        + (", then single pages" if single else "")
        + ": no leaf of them is writable, whatever is aged and read; the guest reads what it "
        "wrote, and each of its stores there ends in EFAULT and reaches no memory; the ranges "
        f"beside it stay as they are; aging is exact meanwhile and afterwards (seed {cell.seed})"
    )
    vm = populated(guest(backing=backing, pages=PAGES))
    before = leaves(vm, shell, claim, "before")
    vm.mprotect(whole, write=False)
    after = _none_writable(vm, shell, claim, "ranges", whole)
    changed = stage2.differing(before, after, vm.slot.ipa, PAGES, af=True) - whole
    claim.observe(f"{len(changed)} other leaves changed")
    assert not changed, f"leaves of others changed: {shorten(changed)}"
    _hold(vm, shell, claim, rng, "ranges", whole)
    if single:
        _hold(vm, shell, claim, rng, "pages", pick(rng, PAGES))


def _hold(
    vm: Guest, shell: Shell, claim: Claim, rng: random.Random, name: str, barred: frozenset[int]
) -> None:
    """Assert that the guest may do with these pages what the host may, now and afterwards."""
    everything = frozenset(range(PAGES))
    vm.mprotect(barred, write=False)
    vm.touch(everything, write=False)
    _none_writable(vm, shell, claim, f"{name}-read", barred)
    aging_is_exact(vm, shell, claim, rng, f"{name}-barred")
    # Old leaves and young ones, of these and of the others.
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    refused = vm.refused()
    claim.observe(f"{name}: {len(refused)} of {len(written)} stores refused")
    wrong = refused ^ (written & barred)
    assert not wrong, f"{name}: stores were refused or not, unlike the host's: {shorten(wrong)}"
    _none_writable(vm, shell, claim, f"{name}-written", barred)
    vm.touch(everything, write=False)
    vm.verify(everything)

    vm.mprotect(barred, write=True)
    vm.touch(everything, write=True)
    refused = vm.refused()
    assert not refused, f"{name}: stores were refused where the host may: {shorten(refused)}"
    vm.verify(everything)
    aging_is_exact(vm, shell, claim, rng, f"{name}-free")


def _none_writable(
    vm: Guest, shell: Shell, claim: Claim, name: str, barred: frozenset[int]
) -> tuple[stage2.Range, ...]:
    """Assert that the guest may write none of these pages."""
    ranges = leaves(vm, shell, claim, name)
    wrong = barred & stage2.writable(ranges, vm.slot.ipa, vm.slot.pages)
    claim.observe(f"{name}: {len(wrong)} writable that the host may not write")
    assert not wrong, f"{name}: leaves are writable where the host is not: {shorten(wrong)}"
    return ranges
