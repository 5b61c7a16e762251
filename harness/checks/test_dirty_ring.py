# SPDX-License-Identifier: GPL-2.0-only
"""Aging and dirty rings (claim 4): each write is in its vCPU's ring, once it was reset again.

With KVM_CAP_DIRTY_LOG_RING_ACQ_REL (Documentation/virt/kvm/api.rst, 8.29) KVM enters the pages that
a vCPU writes in a ring of that vCPU's own, in their order. A VMM harvests entries from its front
and then calls KVM_RESET_DIRTY_RINGS, which takes write permission from those pages: up to 64 that
lie close together at once (kvm_dirty_ring_reset() of virt/kvm/dirty_ring.c), whatever their order.
A vCPU does not run while its ring is full.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.logged import assert_writable
from harness.checks.pages import (
    af_alone,
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    shorten,
    shows_stage2,
    young_pages,
)
from harness.checks.skips import NO_RING, or_skip
from harness.contract import Contract
from harness.guest_replies import RING_MAX, Harvest
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list, stage2
from harness.observe.unproven import Unproven

WORD = 64
# The last word is not whole.
PAGES = 5 * WORD - 12
EVERYTHING = frozenset(range(PAGES))
# Holds all of a round: what KVM keeps free for itself is 64 entries. It is gone round many times.
ENTRIES = 512
# The smallest one, many more pages than that, and a slot of more pages still.
FEW, MANY, MORE = 256, 1000, 1500
SPIN_PAGES, RESETS = WORD, 4


def ascending(pages: Iterable[int], rng: random.Random) -> list[int]:
    """From the first page to the last."""
    return sorted(pages)


def descending(pages: Iterable[int], rng: random.Random) -> list[int]:
    """From the last page to the first."""
    return sorted(pages, reverse=True)


def shuffled(pages: Iterable[int], rng: random.Random) -> list[int]:
    """All of them in any order."""
    return rng.sample(sorted(pages), len(set(pages)))


def within_words(pages: Iterable[int], rng: random.Random) -> list[int]:
    """The words of 64 pages in any order, and any order in each."""
    words: dict[int, list[int]] = {}
    for page in shuffled(pages, rng):
        words.setdefault(page // WORD, []).append(page)
    return [page for word in words.values() for page in word]


def drifting(pages: Iterable[int], rng: random.Random) -> list[int]:
    """Up, in any order among those that are close together: words do not bound that."""
    return sorted(pages, key=lambda page: page + rng.randrange(WORD // 2))


def sinking(pages: Iterable[int], rng: random.Random) -> list[int]:
    """The same downwards."""
    return drifting(pages, rng)[::-1]


def leaping(pages: Iterable[int], rng: random.Random) -> list[int]:
    """By steps of few pages and of about a word, to either side: the edges of what goes at once."""
    left = set(pages)
    order: list[int] = []
    while left:
        at = order[-1] if order else None
        steps = [1, 2, WORD - 2, WORD - 1, WORD, WORD + 1]
        near = [at + sign * step for step in steps for sign in (1, -1)] if at is not None else []
        order.append(rng.choice([page for page in near if page in left] or sorted(left)))
        left.remove(order[-1])
    return order


Order = Callable[[Iterable[int], random.Random], list[int]]
ORDERS: tuple[Order, ...] = (
    ascending,
    descending,
    shuffled,
    within_words,
    drifting,
    sinking,
    leaping,
)


@dataclass(frozen=True)
class Ring:
    """A guest with dirty rings, and what a round of the check needs."""

    vm: Guest
    shell: Shell
    claim: Claim
    rng: random.Random
    age: Callable[[], None]
    dump: bool


@pytest.mark.deep
@pytest.mark.parametrize("driver", ["page_idle", "mglru_walk"])
def test_dirty_ring(
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """With aging before, between and after, the rings name exactly the pages written."""
    vm = _guest(guest, shell, PAGES, ENTRIES, vcpus=2)
    dump = shows_stage2(vm, shell, claim, "the rings")
    words = (
        "; aging changes AF alone; no page that was reset can be written, and to reset changes AF "
        "of none"
        if dump
        else ""
    )
    claim.expect(
        f"in each of {len(ORDERS)} rounds, of writes in another order each: a vCPU's ring names "
        "exactly the pages that it has written and that could not be written before, each once, "
        "also when the entries before them were reset alone; all that are written when all were "
        "reset are in it again, those of the payload's slot too; none that is only read"
        f"{words}"
    )
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        populated(vm)
        vm.dirty_log(True)
        ring = Ring(vm, shell, claim, rng, age, dump)
        _in_ring(ring, 0, frozenset(), "before any write")
        _in_ring(ring, 1, frozenset(), "before any write")
        for number, order in enumerate(ORDERS):
            _round(ring, order, number % 2, order.__name__)
        vm.verify(EVERYTHING)


@pytest.mark.deep
def test_dirty_ring_full(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """A ring that gets full loses nothing: the vCPU waits until it was harvested and reset.

    Until then KVM_RUN ends with KVM_EXIT_DIRTY_RING_FULL each time that it is called, and does not
    enter the guest (kvm_dirty_ring_check_request(), virt/kvm/dirty_ring.c).
    """
    claim.expect(
        f"two vCPUs, one after the other, write {MANY} of {MORE} pages, in any order and when "
        f"page_idle has aged them, with rings of {FEW} entries, which are harvested and reset when "
        "KVM_RUN has ended three times because they are full: no vCPU enters the guest before "
        "that; exactly these pages are in them, each once but for "
        "those that made a ring full, and no page can be written after the last reset"
    )
    vm = populated(_guest(guest, shell, MORE, FEW, vcpus=2))
    dump = shows_stage2(vm, shell, claim, "the rings")
    vm.dirty_log(True)
    ring = Ring(vm, shell, claim, rng, lambda: mark_idle(vm), dump)

    def some() -> frozenset[int]:
        return frozenset(rng.sample(range(MORE), MANY))

    def assert_written(pages: frozenset[int], vcpu: int, when: str) -> None:
        full = _in_ring(ring, vcpu, pages, when, may_be_full=True)
        if full < 2:
            raise Unproven(f"{when}: KVM_RUN ended {full} times because the ring was full")
        _reset(ring, when)
        _writable(ring, frozenset(), f"{when}-reset")

    pages = some()
    vm.touch_in_order(shuffled(pages, rng), write=True, vcpu=0)
    assert_written(pages, 0, "shuffled")
    ring.age()
    pages = some()
    vm.touch_in_order(shuffled(pages, rng), write=True, vcpu=1)
    assert_written(pages, 1, "aged")
    ring.age()
    # Whether the aging is still under way when they come is not looked at.
    pages = some()
    vm.touch_aging(pages, write=True, pause=rng.randrange(500), vcpu=0)
    assert_written(pages, 0, "aged-again")
    vm.verify(range(MORE))


@pytest.mark.deep
def test_dirty_ring_hot(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A page that a vCPU writes without an exit is in its ring again after each reset."""
    cpu = free_cpu(shell, cell)
    page = rng.randrange(SPIN_PAGES)
    claim.expect(
        f"a vCPU writes page {page} without end and without an exit: it is in its ring, and no "
        f"other, before each of {RESETS} resets and after them"
    )
    vm = populated(_guest(guest, shell, SPIN_PAGES, FEW))
    vm.pin(0, cpu, fifo=True)
    vm.dirty_log(True)
    ring = Ring(vm, shell, claim, rng, lambda: None, False)
    vm.spin({page}, write=True)
    for number in range(RESETS):
        _in_ring(ring, 0, frozenset({page}), f"reset {number}")
        _reset(ring, f"reset {number}")
        # The first of them may be a store from before that, which is counted after it.
        vm.spin_wait(2)
    _in_ring(ring, 0, frozenset({page}), "at the end")
    vm.spin_stop()
    vm.verify(range(SPIN_PAGES))


def _round(ring: Ring, order: Order, vcpu: int, name: str) -> None:
    vm, rng, other = ring.vm, ring.rng, 1 - vcpu
    written = pick(rng, PAGES)
    vm.touch_in_order(order(written, rng), write=True, vcpu=vcpu)
    before = _writable(ring, written, f"{name}-written")
    ring.age()
    _aged(ring, before, f"{name}-aged")

    # A VMM need not harvest all at once: a part is reset, the others stay in the ring.
    some = rng.randint(len(written) // 4, 3 * len(written) // 4)
    first = _harvest(ring, vcpu, f"{name}, a part", entries=some).dirty
    extra = first - written
    assert not extra, f"{name}: {len(extra)} pages in the ring unwritten: {shorten(extra)}"
    if not first:
        raise Unproven(f"{name}: a part of the ring has none of the pages")
    _reset(ring, f"{name}-part")
    # In what it takes at once, KVM may write-protect the pages between.
    rest = written - first
    left = _writable(ring, frozenset(), f"{name}-part", may_be=rest)
    _in_ring(ring, vcpu, rest, f"{name}, the rest")

    # What is written after the harvest is not reset by it.
    late = pick(rng, PAGES)
    vm.touch_in_order(order(late, rng), write=True, vcpu=other)
    ring.age()
    _reset(ring, f"{name}-rest")
    _writable(ring, frozenset(), f"{name}-rest", may_be=late)
    _young(ring, frozenset(), f"{name}-rest")
    read = pick(rng, PAGES)
    vm.touch(read, write=False, vcpu=vcpu)
    _young(ring, read, f"{name}-read")
    _in_ring(ring, vcpu, frozenset(), f"{name}, after reads")
    # A page of the rest could be written still, but for those between: stage 2 alone tells which.
    free = stage2.writable(left, vm.slot.ipa, vm.slot.pages) if ring.dump else rest
    may_be = frozenset[int]() if ring.dump else late
    _in_ring(ring, other, late - free, f"{name}, late", may_be=may_be)
    _reset(ring, f"{name}-late")
    _writable(ring, frozenset(), f"{name}-late")

    # Each of them was reset, so that each is in the ring again.
    vm.touch_in_order(order(EVERYTHING, rng), write=True, vcpu=vcpu)
    _in_ring(ring, vcpu, EVERYTHING, f"{name}, all written", others=True)
    _in_ring(ring, other, frozenset(), f"{name}, all written by the other vCPU")
    _young(ring, EVERYTHING, f"{name}-all")
    _reset(ring, f"{name}-all-reset")
    _writable(ring, frozenset(), f"{name}-all-reset")
    _young(ring, EVERYTHING, f"{name}-all-reset")
    ring.age()


def _in_ring(
    ring: Ring,
    vcpu: int,
    expected: frozenset[int],
    when: str,
    *,
    may_be: frozenset[int] = frozenset(),
    may_be_full: bool = False,
    others: bool = False,
) -> int:
    """Assert that a vCPU's ring names the pages `expected`, and beyond them at most those that
    may be there; harvests it. How often KVM_RUN ended since it was full.

    With `others` it must name pages of the payload, where the vCPU keeps its mailbox and stack:
    it has run since they were reset, and so written to them.
    """
    found = _harvest(ring, vcpu, when, may_be_full=may_be_full)
    missing, extra = expected - found.dirty, found.dirty - expected - may_be
    assert not missing, f"{when}: {len(missing)} writes are not in the ring: {shorten(missing)}"
    assert not extra, f"{when}: {len(extra)} pages in the ring unwritten: {shorten(extra)}"
    assert found.others or not others, f"{when}: the payload's writes are not in the ring"
    return found.full


def _harvest(
    ring: Ring, vcpu: int, when: str, *, entries: int = RING_MAX, may_be_full: bool = False
) -> Harvest:
    """Harvest a vCPU's ring; assert that its entries name pages of the guest, and the tested once.

    A page is entered again when it is written after a reset has taken write permission from it, as
    it does from neighbours too: none here is, between two harvests. The payload's pages may be,
    and the page that made the ring full: it is reset before the guest comes to write it.
    """
    found = ring.vm.harvest(vcpu, entries)
    ring.claim.observe(
        f"{when}: {found.entries} entries for {len(found.dirty)} pages, {found.others} others"
    )
    if found.full and not may_be_full:
        raise Unproven(f"{when}: KVM_RUN ended, since the ring was full, before it was harvested")
    assert not found.entered, (
        f"{when}: called again after it had ended {found.full} times because the ring was full, "
        f"and before anything was harvested, KVM_RUN entered the guest ({found.entered} exits)"
    )
    assert not found.strange, f"{when}: {found.strange} entries name no page of the guest"
    twice = f"{when}: {found.doubled} entries name a page once more"
    assert found.doubled <= found.full, f"{twice}, and KVM_RUN ended {found.full} times when full"
    return found


def _reset(ring: Ring, when: str) -> None:
    """Assert that KVM resets as many entries as were harvested."""
    harvested, reset = ring.vm.reset_rings()
    assert harvested == reset, f"{when}: {harvested} entries harvested, {reset} reset by now"


def _writable(
    ring: Ring, expected: frozenset[int], name: str, *, may_be: frozenset[int] = frozenset()
) -> Sequence[stage2.Range]:
    """Assert that the guest may write the pages `expected`, and beyond them at most some others.

    Where stage 2 is not shown, the next writes alone tell.
    """
    if not ring.dump:
        return ()
    vm = ring.vm
    ranges = leaves(vm, ring.shell, ring.claim, name)
    assert_writable(vm, ring.claim, ranges, expected, name, may_be=may_be)
    return ranges


def _aged(ring: Ring, before: Sequence[stage2.Range], name: str) -> None:
    """Assert that aging has left all pages old, and nothing else changed, where that is shown."""
    if ring.dump:
        af_alone(ring.vm, before, old_pages(ring.vm, ring.shell, ring.claim, name))


def _young(ring: Ring, expected: frozenset[int], name: str) -> None:
    """Assert that exactly these pages are young, where stage 2 is shown."""
    if ring.dump:
        young_pages(ring.vm, ring.shell, ring.claim, expected, f"{name}-young")


def _guest(
    guest: Callable[..., Guest], shell: Shell, pages: int, entries: int, vcpus: int = 1
) -> Guest:
    """A guest with rings of so many entries; skips where KVM has none.

    Each vCPU stays on its CPU: what another one has cached of a page that could not be written
    then, the vCPU's next write there would have it entered once more.
    """
    vm = or_skip(lambda: guest(pages=pages, ring=entries, vcpus=vcpus), NO_RING, NO_RING)
    cpus = cpu_list.usable(shell)
    for vcpu in range(vcpus):
        vm.pin(vcpu, cpus[vcpu % len(cpus)])
    return vm
