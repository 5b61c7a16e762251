# SPDX-License-Identifier: GPL-2.0-only
"""What the host does to a guest's memory while the guest has it (claims 4 and 5).

The owner forks, so that its memory is copied on the next write to it; puts other memory where some
was; lets the kernel drop pages until they are written (MADV_FREE); writes first to what the guest
has only read, which is the kernel's page of zeroes till then. Of each KVM is told by an MMU
notifier, with an event of its own or in a place of its own, and must take the pages from stage 2: a
guest that keeps them writes to what is another's, is freed, or is dropped without the kernel's
knowing that it was written.

Ranges are of 2 MiB where a mapping is split, for the reason that test_mprotect tells.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.groups import grouped
from harness.checks.hugetlb import overcommitted
from harness.checks.logged import assert_logged
from harness.checks.pages import (
    aging_is_exact,
    leaves,
    mark_idle,
    pick,
    populated,
    require_huge,
    shorten,
    whole_blocks,
)
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

UNIT = 512
PAGES = 4 * UNIT
# Pages enough for two tables, or blocks, with others on either side.
MIDDLE = frozenset(range(UNIT, 3 * UNIT))
FIRST_OF_MIDDLE = frozenset(range(UNIT, 2 * UNIT))
EVERYTHING = frozenset(range(PAGES))
BARRED = 4


@dataclass(frozen=True)
class Scene:
    """A guest that has written all of its pages, and what a step needs beside it."""

    vm: Guest
    shell: Shell
    claim: Claim
    rng: random.Random

    def leaves(self, name: str) -> tuple[stage2.Range, ...]:
        """Stage 2 now; the dump is kept."""
        return leaves(self.vm, self.shell, self.claim, name)

    def writable(self, name: str) -> frozenset[int]:
        """The pages that the guest may write without a fault."""
        return stage2.writable(self.leaves(name), self.vm.slot.ipa, PAGES)


def _share(scene: Scene) -> None:
    """Have the owner fork. The guest may write no page then, nor when it has read all."""
    vm = scene.vm
    vm.snapshot()
    # fork() empties all of stage 2, and the dump of 6.12 leaves out what is above the last leaf.
    vm.touch({0}, write=False)
    writable = scene.writable("forked")
    assert not writable, f"the guest may write {len(writable)} pages that are its child's as well"
    vm.touch(EVERYTHING, write=False)
    writable = scene.writable("read")
    assert not writable, f"reads made {len(writable)} pages writable that are shared"


def _fork(scene: Scene) -> None:
    """Each keeps what it has, whoever writes: the guest, or the VMM where the guest had read."""
    vm, claim = scene.vm, scene.claim
    _share(scene)
    aging_is_exact(vm, scene.shell, claim, scene.rng, "shared")
    before = _write_old(scene)
    written = pick(scene.rng, PAGES)
    vm.touch(written, write=True)
    extra = scene.writable("written") - before - written
    assert not extra or _splits(vm), f"a write made others writable: {shorten(extra)}"
    planted = pick(scene.rng, PAGES)
    vm.plant(planted)
    vm.fetch(planted)
    vm.look_at_snapshot()
    claim.observe(
        f"after {len(written)} writes of the guest and {len(planted)} of its VMM both see their own"
    )
    vm.drop_snapshot()


def _fork_hugetlb(scene: Scene) -> None:
    """The same of huge pages that are copied whole, and that nothing but DAMON ages."""
    vm = scene.vm
    # What the guest has came beyond the pool already, and for copies there must be as much again:
    # else the kernel takes the pages from the child.
    with overcommitted(scene.shell, 2 * PAGES // UNIT):
        _share(scene)
        of_guest = whole_blocks(frozenset({scene.rng.randrange(PAGES)}), UNIT)
        vm.touch(of_guest, write=True)
        extra = scene.writable("written") - of_guest
        assert not extra, f"a write made others writable: {shorten(extra)}"
        vm.look_at_snapshot()
    scene.claim.observe("after writes to one huge page both see their own")
    vm.drop_snapshot()


def _write_old(scene: Scene) -> frozenset[int]:
    """Write to old pages with the dirty log on, while the child has them too: none it may change.

    Where software sets AF, such a write is an access fault first, and KVM must not let it through
    by what that tells. Returns the pages that the guest has to itself then, and may write.
    """
    vm = scene.vm
    mark_idle(vm)
    # This invalidates what is cached of the leaves, too.
    vm.dirty_log(True)
    written = pick(scene.rng, PAGES)
    vm.touch(written, write=True)
    extra = scene.writable("old-written") - written
    assert not extra, f"with the log on a write made others writable: {shorten(extra)}"
    assert_logged(vm, scene.claim, written, "old ones written")
    vm.dirty_log(False)
    vm.look_at_snapshot()
    # The copies are new, and on no list yet.
    vm.drain()
    return written


def _map_apart(vm: Guest) -> None:
    """Have the owner's memory in three mappings, of which one ends within MIDDLE.

    Whoever unmaps across them goes from mapping to mapping, and tells of each.
    """
    vm.advise("dontdump", FIRST_OF_MIDDLE)


def _replace(scene: Scene) -> None:
    """The guest has the new memory at once, and all other pages as they were."""
    vm = scene.vm
    _map_apart(vm)
    before = scene.leaves("before")
    vm.replace(MIDDLE)
    after = scene.leaves("replaced")
    left = MIDDLE & stage2.mapped(after, vm.slot.ipa, PAGES)
    changed = stage2.differing(before, after, vm.slot.ipa, PAGES, af=True) - MIDDLE
    scene.claim.observe(
        f"{len(MIDDLE)} replaced, {len(left)} mapped still, {len(changed)} others changed"
    )
    assert not left, f"{len(left)} pages are mapped that their owner has unmapped: {shorten(left)}"
    assert not changed, f"leaves of others changed: {shorten(changed)}"


def _take(scene: Scene) -> None:
    """Where its owner has nothing, a store ends KVM_RUN, and nothing is held on to by that."""
    vm = scene.vm
    _map_apart(vm)
    vm.take(MIDDLE)
    left = MIDDLE & stage2.mapped(scene.leaves("taken"), vm.slot.ipa, PAGES)
    assert not left, f"{len(left)} pages are mapped that their owner has unmapped: {shorten(left)}"
    # Few, as KVM has a line in the kernel's log for each.
    barred = frozenset(scene.rng.sample(sorted(MIDDLE), BARRED))
    vm.touch(barred | pick(scene.rng, PAGES) - MIDDLE, write=True)
    refused = vm.refused()
    scene.claim.observe(
        f"{len(MIDDLE)} taken, {len(refused)} of {len(barred)} stores there refused"
    )
    wrong = refused ^ barred
    assert not wrong, f"stores were refused or not, unlike the host's: {shorten(wrong)}"
    # To map anything, the owner has to wait until nobody else looks at its mappings.
    vm.replace(MIDDLE)


def _collapse(scene: Scene) -> None:
    """Small pages are copied into huge ones: the guest has no longer the pages they were."""
    vm = scene.vm
    vm.advise("hugepage", EVERYTHING)
    vm.advise("collapse", EVERYTHING)
    require_huge(vm)
    left = stage2.mapped(scene.leaves("collapsed"), vm.slot.ipa, PAGES)
    scene.claim.observe(f"{PAGES} pages copied into huge ones, {len(left)} mapped still")
    assert not left, f"{len(left)} pages are mapped that are their owner's no more: {shorten(left)}"
    vm.touch(pick(scene.rng, PAGES), write=True)
    vm.verify(EVERYTHING)


def _free(scene: Scene) -> None:
    """What the guest writes afterwards stays; what it does not write may go."""
    vm = scene.vm
    freed = pick(scene.rng, PAGES)
    written = frozenset(scene.rng.sample(sorted(freed), len(freed) // 2))
    vm.advise("free", freed)
    vm.touch(written, write=True)
    vm.advise("pageout", freed)
    # What was written goes to swap, if the host has any; the guest finds out whether it is there.
    gone = freed - written - vm.pfns().keys()
    scene.claim.observe(
        f"{len(freed)} freed, {len(written)} written then, {len(gone)} of the others dropped"
    )
    vm.touch(written, write=False)
    vm.verify(written)
    if not gone:
        raise Unproven("the kernel dropped none of the pages that it might")
    # Whatever became of them: from here on they are zeroes.
    vm.advise("dontneed", freed - written)


def _zero(scene: Scene) -> None:
    """Pages that were only read are one page of zeroes, until somebody writes: the VMM here."""
    vm = scene.vm
    vm.advise("dontneed", MIDDLE)
    vm.touch(MIDDLE, write=False)
    zero = stage2.mapped(scene.leaves("read"), vm.slot.ipa, PAGES) & MIDDLE
    writable = scene.writable("read") & MIDDLE
    assert not writable, f"the guest may write {len(writable)} pages that are everybody's zeroes"
    planted = frozenset(scene.rng.sample(sorted(MIDDLE), UNIT // 2))
    vm.plant(planted)
    left = planted & zero & stage2.mapped(scene.leaves("planted"), vm.slot.ipa, PAGES)
    scene.claim.observe(
        f"{len(zero)} pages read, {len(planted)} written by the VMM, {len(left)} mapped still"
    )
    assert not left, f"{len(left)} pages are mapped that others took the place of: {shorten(left)}"
    vm.fetch(planted)
    if not planted <= zero:
        raise Unproven("reads mapped no pages where nothing had been written")


# What is done, to memory of which kind.
CHANGES: Mapping[str, tuple[Backing, Callable[[Scene], None]]] = {
    "fork-anon": ("anon", _fork),
    "fork-thp": ("thp", _fork),
    "fork-hugetlb": ("hugetlb", _fork_hugetlb),
    "replace": ("anon", _replace),
    "take": ("anon", _take),
    "collapse": ("anon", _collapse),
    "free": ("anon", _free),
    "zero": ("anon", _zero),
}


@pytest.mark.parametrize("change", grouped(CHANGES, stress=["fork-thp"]))
def test_host_changes(
    change: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """The guest has the memory that its owner has, with no more rights to it."""
    backing, make = CHANGES[change]
    claim.expect(
        f"{change} of {PAGES} pages that the guest has written: no leaf shows it what its owner no "
        "longer has or may not write, what either of them writes the other reads, nothing that "
        f"was written is lost; aging is exact afterwards (seed {cell.seed})"
    )
    vm = guest(backing=backing, pages=PAGES)
    if backing == "hugetlb":
        # It is on no LRU list, which other backings are to be on first.
        vm.populate()
    else:
        populated(vm)
    make(Scene(vm, shell, claim, rng))
    vm.touch(EVERYTHING, write=False)
    vm.verify(EVERYTHING)
    vm.touch(EVERYTHING, write=True)
    vm.verify(EVERYTHING)
    if backing == "anon":
        vm.drain()
        aging_is_exact(vm, shell, claim, rng, "afterwards")


def _splits(vm: Guest) -> bool:
    """Whether huge pages are mapped by small ones now, of which khugepaged makes huge ones."""
    return vm.greeting.backing == "thp"
