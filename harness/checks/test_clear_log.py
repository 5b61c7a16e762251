# SPDX-License-Identifier: GPL-2.0-only
"""Aging and a dirty log that is read and cleared apart (claim 4).

With KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 (Documentation/virt/kvm/api.rst) KVM_GET_DIRTY_LOG only
reads. KVM_CLEAR_DIRTY_LOG clears the pages that it is told, and takes write permission from these
alone, a word of 64 pages at a time; so do VMMs that migrate. At first the log is empty, or has all
pages and leaves all of them writable.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.logged import assert_logged
from harness.checks.pages import (
    af_alone,
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    require_blocks,
    shorten,
    whole_blocks,
    young_pages,
)
from harness.checks.skips import NO_MANUAL_LOG, or_skip
from harness.checks.test_eager_split import split_eagerly
from harness.guest_words import Backing, ManualLog
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

WORD = 64
# The last word is not whole.
PAGES = 8 * WORD - 12
EVERYTHING = frozenset(range(PAGES))
ROUNDS = 2
SPIN_PAGES, CLEARS = WORD, 4
BLOCK = 512
BLOCK_PAGES = 4 * BLOCK


@pytest.mark.deep
@pytest.mark.parametrize("first", ["clear", "set"])
def test_clear_log(
    first: ManualLog,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
) -> None:
    """Pages leave the log, and can no longer be written, exactly where they are cleared."""
    claim.expect(
        f"in each of {ROUNDS} rounds of writes, aging and clearing parts of the log: it names what "
        "was written since it was cleared and nothing else; a page that it does not name cannot be "
        "written; to clear it changes AF of none, and nothing of pages in other words; aging "
        "changes AF alone"
    )
    vm = populated(_guest(guest, first, PAGES))
    vm.dirty_log(True)
    logged = EVERYTHING if first == "set" else frozenset[int]()
    assert_logged(vm, claim, logged, "before any write")
    _held(vm, claim, leaves(vm, shell, claim, "logged"), logged, "before any write")
    for number in range(ROUNDS):
        logged = _round(vm, shell, claim, rng, logged, f"round-{number}")
    vm.verify(EVERYTHING)


@pytest.mark.deep
def test_clear_log_hot(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A page that a vCPU writes without an exit is logged again each time that it was cleared."""
    cpu = free_cpu(shell, cell)
    page = rng.randrange(SPIN_PAGES)
    claim.expect(
        f"a vCPU writes page {page} without end and without an exit: the dirty log names it, and "
        f"no other, before each of {CLEARS} times that it is cleared and after them"
    )
    vm = populated(_guest(guest, "clear", SPIN_PAGES))
    vm.pin(0, cpu, fifo=True)
    vm.dirty_log(True)
    vm.spin({page}, write=True)
    for number in range(CLEARS):
        assert_logged(vm, claim, frozenset({page}), f"clear {number}")
        vm.clear_log({page})
        # The first of them may be a store from before that, which is counted after it.
        vm.spin_wait(2)
    assert_logged(vm, claim, frozenset({page}), "at the end")
    vm.spin_stop()
    vm.verify(range(SPIN_PAGES))


@pytest.mark.deep
def test_clear_log_blocks(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """A block of which a part is cleared from the log can no longer be written as a whole."""
    everything = frozenset(range(BLOCK_PAGES))
    claim.expect(
        f"{BLOCK_PAGES} pages in writable blocks, all of them in the log when it is switched on; "
        f"in each of {ROUNDS + 1} rounds some pages of a block, or of several, are cleared and "
        "others written: a page that the log does not name cannot be written, and it names "
        "exactly what was written and not cleared since"
    )
    vm = populated(_guest(guest, "set", BLOCK_PAGES, "thp"))
    require_blocks(vm, leaves(vm, shell, claim, "populated"))
    vm.dirty_log(True)
    logged = everything
    for number in range(ROUNDS + 1):
        # At first a word of one block, which is whole and writable.
        within = range(BLOCK_PAGES) if number else some_word(rng)
        cleared = frozenset(rng.sample(within, len(within) // 4))
        vm.clear_log(cleared)
        logged -= cleared
        _held(vm, claim, leaves(vm, shell, claim, f"{number}-cleared"), logged, f"{number}-cleared")
        assert_logged(vm, claim, logged, f"{number}-cleared")
        logged, _ = _written(vm, shell, claim, rng, logged, f"{number}-written")
        assert_logged(vm, claim, logged, f"{number}-written")
    vm.verify(everything)


@pytest.mark.deep
def test_clear_log_split(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """What is cleared within a block has all of it split at once, in a VM that asks for that."""
    everything = frozenset(range(BLOCK_PAGES))
    claim.expect(
        f"{BLOCK_PAGES} pages in writable blocks, all of them in the log, in a VM that has blocks "
        "split at once: pages are cleared that are not the first of their block, then such of "
        "several blocks: each of these blocks is mapped by pages; a page that the log does not "
        "name cannot be written, and it names exactly what was written and not cleared since"
    )
    vm = populated(split_eagerly(partial(_guest, guest, "set"), pages=BLOCK_PAGES))
    require_blocks(vm, leaves(vm, shell, claim, "populated"))
    vm.dirty_log(True)
    split = leaves(vm, shell, claim, "logged")
    logged = everything
    for name, places in (("one", [1]), ("several", [0, 2, 3])):
        # Words of the log, none of them the first of its block.
        words = [BLOCK * at + WORD * rng.randrange(1, BLOCK // WORD) for at in places]
        cleared = frozenset(
            page for word in words for page in rng.sample(range(word, word + WORD), 9)
        )
        blocks = stage2.blocks(split, vm.slot.ipa, BLOCK_PAGES)
        if not whole_blocks(cleared, BLOCK) <= blocks:
            raise Unproven(f"{name}: only {len(blocks)} pages are in blocks before any is cleared")
        vm.clear_log(cleared)
        logged -= cleared
        split = leaves(vm, shell, claim, f"{name}-cleared")
        whole = stage2.blocks(split, vm.slot.ipa, BLOCK_PAGES) & whole_blocks(cleared, BLOCK)
        claim.observe(f"{name}: {len(whole)} pages of these blocks are mapped by blocks still")
        assert not whole, f"{name}: {len(whole)} pages are in blocks still: {shorten(whole)}"
        _held(vm, claim, split, logged, f"{name}-cleared")
        logged, split = _written(vm, shell, claim, rng, logged, f"{name}-written")
        assert_logged(vm, claim, logged, f"{name}-written")
    vm.verify(everything)


def some_word(rng: random.Random) -> range:
    """The pages of a word of the log."""
    first = rng.randrange(BLOCK_PAGES // WORD) * WORD
    return range(first, first + WORD)


def _round(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    logged: frozenset[int],
    name: str,
) -> frozenset[int]:
    """One round; the pages that are in the log after it."""
    logged, before = _written(vm, shell, claim, rng, logged, f"{name}-written")
    mark_idle(vm)
    aged = old_pages(vm, shell, claim, f"{name}-aged")
    af_alone(vm, before, aged)
    assert_logged(vm, claim, logged, f"{name}-aged")
    logged = _clear(vm, shell, claim, rng, logged, aged, f"{name}-cleared")

    # Clearing has invalidated what was cached, so that each of these is young again.
    again = pick(rng, PAGES)
    vm.touch(again, write=True)
    logged |= again
    young_pages(vm, shell, claim, again, f"{name}-again")
    assert_logged(vm, claim, logged, f"{name}-again")
    young = leaves(vm, shell, claim, f"{name}-young")
    return _clear(vm, shell, claim, rng, logged, young, f"{name}-again-cleared")


def _written(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    logged: frozenset[int],
    name: str,
) -> tuple[frozenset[int], tuple[stage2.Range, ...]]:
    """Write some pages; the pages that are in the log then, and stage 2, held to these."""
    written = pick(rng, vm.slot.pages)
    vm.touch(written, write=True)
    logged |= written
    ranges = leaves(vm, shell, claim, name)
    _held(vm, claim, ranges, logged, name)
    return logged, ranges


def _clear(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    logged: frozenset[int],
    before: tuple[stage2.Range, ...],
    name: str,
) -> frozenset[int]:
    """Clear a part of the log that begins behind its first word; the pages that are left in it."""
    first = rng.randrange(1, PAGES // WORD - 1)
    span = range(first * WORD, min(PAGES, rng.randrange(first + 2, PAGES // WORD + 2) * WORD))
    # Some of them are not in the log.
    cleared = frozenset(rng.sample(span, len(span) // 2))
    if len({page // WORD for page in cleared & logged}) < 2:
        raise Unproven("what is cleared is in one word of the log")
    vm.clear_log(cleared)
    after = leaves(vm, shell, claim, name)
    logged -= cleared
    _held(vm, claim, after, logged, name)
    ipa = vm.slot.ipa
    # In a word that is named KVM may write-protect the pages between those that it clears.
    other = stage2.differing(before, after, ipa, PAGES, af=True) - frozenset(span)
    assert not other, f"{name}: {len(other)} pages in other words changed: {shorten(other)}"
    young = stage2.young(before, ipa, PAGES) ^ stage2.young(after, ipa, PAGES)
    assert not young, f"{name}: AF changed of {len(young)} pages: {shorten(young)}"
    assert_logged(vm, claim, logged, name)
    return logged


def _held(
    vm: Guest,
    claim: Claim,
    ranges: tuple[stage2.Range, ...],
    logged: frozenset[int],
    when: str,
) -> None:
    """Assert that a page which is not in the log cannot be written."""
    writable = stage2.writable(ranges, vm.slot.ipa, vm.slot.pages)
    claim.observe(f"{when}: {len(writable)} writable")
    past = writable - logged
    assert not past, f"{when}: {len(past)} pages are writable unlogged: {shorten(past)}"


def _guest(
    guest: Callable[..., Guest],
    first: ManualLog,
    pages: int,
    backing: Backing = "anon",
    **options: object,
) -> Guest:
    """A guest with such a log; skips where KVM has none."""
    return or_skip(
        lambda: guest(backing=backing, pages=pages, manual_log=first, **options),
        NO_MANUAL_LOG,
        NO_MANUAL_LOG,
    )
