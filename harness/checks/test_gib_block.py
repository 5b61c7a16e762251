# SPDX-License-Identifier: GPL-2.0-only
"""Guest memory of a page of 1 GiB, which stage 2 maps by one entry of level 1.

The same code as for blocks of 2 MiB should do for it, one level higher. Only DAMON ages such
memory (test_damon.py). The kernel makes such pages at boot, where it is told to.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import damon, tables
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import check_path, functions_only, promised, situation, wanted
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.pages import (
    af_alone,
    leaves,
    mapped_pages,
    old_pages,
    young_pages,
)
from harness.checks.skips import or_skip
from harness.contract import Contract, Expectation
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

REFUSAL = "mmap of pages of 1 GiB"
REASON = "no free page of 1 GiB (hugepagesz=1G hugepages=1 at boot)"
LEVEL = 1
PAGES = stage2.SIZE_OF_LEVEL[LEVEL] // PAGE_SIZE
BLOCK = stage2.SIZE_OF_LEVEL[LEVEL + 1] // PAGE_SIZE
# DAMON wants three regions at least, and each has its sample in the one page.
REGIONS = 4
# The ends, and what lies at a boundary of the tables that a split needs.
ENDS = {0, 511, 512, PAGES - 512, PAGES - 1}
SOME = 48


@pytest.mark.deep
def test_gib_block(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """A block of 1 GiB is aged, split for a dirty log and unmapped as smaller ones are."""
    age = promised(contract, "damon", cell, shell, claim)
    claim.expect(
        "of a block of 1 GiB: with a dirty log exactly the pages that the guest writes are logged "
        "and writable, each by a leaf of its own, and with the log off it is a block again; all of "
        "it old after DAMON aged it, all of it young after a touch of one page; nothing mapped "
        "once it is dropped; nothing that was written is lost before that; of the tables that the "
        "log needs none left when it is a block again, nor when the VM has ended; no splat "
        f"(seed {cell.seed})"
    )
    splatted = splats(shell)
    baseline = tables.at_first(shell, claim)
    with or_skip(lambda: guest(backing="gigantic", pages=PAGES), REFUSAL, REASON) as vm:
        written = _some(rng)
        vm.touch(written, write=True)
        if levels := _levels(vm, leaves(vm, shell, claim, "populated")):
            raise Unproven(f"stage 2 maps a page of 1 GiB {levels}")
        whole = None if baseline is None else tables.count(shell)
        written |= _log(vm, shell, claim, rng, whole)
        if whole is not None:
            _tables_joined(shell, claim, whole, cell.slowdown)
        vm.touch(written, write=False)
        vm.verify(written)
        try:
            _age(vm, shell, claim, contract, cell, age)
            _touch_one(vm, shell, claim, rng)
        except Unproven as exc:
            claim.not_judged(f"aging, since {exc}")
        vm.verify(written)
        vm.advise("dontneed", range(PAGES))
        mapped_pages(vm, shell, claim, frozenset(), "dropped")
        tables.assert_none_left(vm, shell, claim, baseline, cell.slowdown)
    assert_none_new(shell, claim, splatted)


@pytest.mark.deep
def test_gib_apart(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A page of 1 GiB at a guest address that is 2 MiB off has no block of 1 GiB, but smaller ones.

    A block maps as much memory as it is large, from its own multiples on: one of 1 GiB would give
    the guest other memory than it has there, and some that is not its own.
    """
    claim.expect(
        "of a page of 1 GiB, 2 MiB off in the guest: what is touched is mapped by blocks of 2 MiB, "
        f"and the guest has what it wrote there, as the owner has (seed {cell.seed})"
    )
    apart = {"backing": "gigantic", "pages": PAGES, "ipa_skew": BLOCK}
    with or_skip(lambda: guest(**apart), REFUSAL, REASON) as vm:
        written = _some(rng)
        vm.touch(written, write=True)
        ranges = leaves(vm, shell, claim, "written")
        levels = set(stage2.by_level(ranges, vm.slot.ipa, PAGES))
        claim.observe(f"leaves of levels {sorted(levels)}")
        assert levels == {LEVEL + 1}, f"mapped by leaves of levels {sorted(levels)}"
        vm.verify(written)
        vm.touch(written, write=False)
        vm.advise("dontneed", range(PAGES))
        mapped_pages(vm, shell, claim, frozenset(), "dropped")


def _some(rng: random.Random) -> frozenset[int]:
    return frozenset({*ENDS, *rng.sample(range(PAGES), SOME)})


def _levels(vm: Guest, ranges: tuple[stage2.Range, ...]) -> str:
    """By what stage 2 maps the page, in words, unless it is one block."""
    mapped = stage2.by_level(ranges, vm.slot.ipa, PAGES)
    if mapped == {LEVEL: PAGES}:
        return ""
    levels = ", ".join(map(str, sorted(mapped)))
    return f"to {mapped.total()} of {PAGES} pages, by leaves of level {levels or 'none'}"


def _log(
    vm: Guest, shell: Shell, claim: Claim, rng: random.Random, whole: int | None
) -> frozenset[int]:
    """Assert that what the guest writes under a dirty log is all that it may write, by pages.

    With the log off one block must map them again. Returns the pages that were written. `whole` is
    how many tables there are while one block maps them, if that is known.
    """
    everything = frozenset(range(PAGES))
    assert_writable(vm, claim, leaves(vm, shell, claim, "log-off"), everything, "before the log")
    vm.dirty_log(True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "log-on"), frozenset(), "with the log on")
    some = _some(rng)
    vm.touch(some, write=True)
    ranges = leaves(vm, shell, claim, "written")
    assert_writable(vm, claim, ranges, some, "written")
    coarse = stage2.blocks(ranges, vm.slot.ipa, PAGES) & some
    assert not coarse, f"{len(coarse)} pages are written by way of a block, unlogged ones beside"
    assert_logged(vm, claim, some, "written")
    if whole is not None:
        _tables_apart(shell, claim, whole, len({page // BLOCK for page in some}))
    vm.dirty_log(False)
    # One that has no leaf yet, for which the block comes back.
    last = rng.choice(sorted(everything - some))
    vm.touch({last}, write=True)
    levels = _levels(vm, leaves(vm, shell, claim, "joined"))
    claim.observe(levels or "one block again with the log off")
    assert not levels, f"with the log off stage 2 maps a page of 1 GiB {levels}"
    return some | {last}


def _tables_apart(shell: Shell, claim: Claim, whole: int, touched: int) -> None:
    """Unproven unless so many tables of the last level stand where the block was, and more."""
    made = tables.count(shell) - whole
    claim.observe(f"{made} tables where the block was, {touched} of them for the pages written")
    if made <= touched:
        raise Unproven(f"{made} tables were made where {touched} and one above them were expected")


def _tables_joined(shell: Shell, claim: Claim, whole: int, slowdown: float) -> None:
    """Assert that all tables are gone in whose place there is one block, the lowest ones too.

    Only the highest is unlinked then. What hangs below it is freed later, by a walk that has to be
    told at which level it begins (stage2_map_walk_table_pre(), arch/arm64/kvm/hyp/pgtable.c).
    """
    left = tables.falls_to(shell, claim, whole, slowdown) - whole
    claim.observe(f"{left} tables more than at first when it is a block again")
    assert not left, f"{left} pages of tables stay whose memory one block maps"


def _age(
    vm: Guest, shell: Shell, claim: Claim, contract: Contract, cell: CellSpec, age: Expectation
) -> None:
    """Assert that all of it is old when DAMON has aged it, by the contract's path."""
    size = PAGES * PAGE_SIZE // REGIONS
    starts = [vm.greeting.slot_hva + number * size for number in range(REGIONS)]
    before = leaves(vm, shell, claim, "before")
    if len(stage2.young(before, vm.slot.ipa, PAGES)) != PAGES:
        raise Unproven("the block is not young before any aging")
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(tracing(shell, wanted(functions_only(age), "damon")))
        with counted(vm, shell, claim, contract.expect_counters(situation(cell))):
            session.start()
            stack.enter_context(damon.sampling(shell, vm.greeting.pid, starts, size, cell.slowdown))
            counts = session.stop()
        claim.save("trace-aging.txt", counts.raw)
        check_path(claim, functions_only(age), session, counts, vm)
        aged = old_pages(vm, shell, claim)
    af_alone(vm, before, aged)


def _touch_one(vm: Guest, shell: Shell, claim: Claim, rng: random.Random) -> None:
    """Assert that a touch of one page makes all of it young."""
    vm.flush()
    vm.touch({rng.randrange(PAGES)}, write=False)
    young_pages(vm, shell, claim, frozenset(range(PAGES)))
