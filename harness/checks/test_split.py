# SPDX-License-Identifier: GPL-2.0-only
"""Host memory is huge, stage 2 maps it by pages: one request to age spans 512 leaves.

page_idle asks KVM for the range of a whole THP. All leaves in it must become old, and they answer
for themselves afterwards; with a block (test_access_flag[thp]) there is only one of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.idle_ager import age_huge_page
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.pages import (
    leaves,
    mark_idle,
    old_pages,
    pick,
    populated,
    reads_make_young,
    require_blocks,
    require_huge,
    require_no_blocks,
    show_set,
    shows_stage2,
)
from harness.checks.pages import shorten as short
from harness.checks.test_backing import prepared
from harness.contract import Contract
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

BLOCK = 512
PAGES = 2 * BLOCK
# More than the pages that a vCPU may have ready for tables (KVM_ARCH_NR_OBJS_PER_MEMORY_CACHE).
CACHED = 40
MANY = CACHED + 8


@pytest.mark.parametrize(
    ("cause", "driver"),
    [
        pytest.param("dirty-log", "page_idle", marks=pytest.mark.deep),
        pytest.param("skew", "page_idle", marks=pytest.mark.quick),
        pytest.param("skew", "mglru_walk", marks=pytest.mark.deep),
    ],
)
def test_range(
    cause: str,
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """Aging a range makes each of its leaves old, and each is young again for itself."""
    skew = rng.randrange(1, BLOCK) if cause == "skew" else 0
    vm = guest(backing="thp", pages=PAGES, skew=skew)
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        if not skew:
            vm.dirty_log(True)
        populated(vm)
        require_huge(vm)
        # Only what page_idle has aged can it tell of.
        dump = driver != "page_idle" or shows_stage2(vm, shell, claim, "page_idle")
        if dump:
            require_no_blocks(vm, leaves(vm, shell, claim, "populated"))
        # One of the huge pages stays as it is.
        heads = [(page + skew) // BLOCK for page in range(PAGES)]
        spared = rng.choice(heads)
        touched = frozenset(page for page in pick(rng, PAGES) if heads[page] != spared)
        told = {
            f"then exactly {len(touched)} touched ones young, then all old again": dump,
            "only the untouched huge page is idle": driver == "page_idle",
            "one that is aged alone is all that is old": driver == "page_idle" and dump,
        }
        claim.expect(
            f"{PAGES} pages mapped one by one (by {cause}{f' of {skew} pages' if skew else ''}) "
            f"all old after {driver} aged them by huge page"
            + "".join(f"; {words}" for words, seen in told.items() if seen)
        )
        age()
        old_pages(vm, shell, claim)
        _invalidate(vm, rng, touched, logging=not skew)
        vm.touch(touched, write=False)
        if dump:
            young = stage2.young(leaves(vm, shell, claim, "touched"), vm.slot.ipa, PAGES)
            claim.observe(f"stage 2: {show_set(touched, young)}")
            assert young == touched, f"stage 2: {show_set(touched, young)}"
        if driver == "page_idle":
            asked = frozenset(heads[page] for page in touched)
            idle = vm.idle_read()
            expected = frozenset(page for page in range(PAGES) if heads[page] not in asked)
            claim.observe(f"page_idle: {len(idle)} idle")
            assert idle == expected, f"page_idle says {short(idle)} idle, not {short(expected)}"
        else:
            age()
        if dump:
            old_pages(vm, shell, claim)
        if driver == "page_idle":
            one = rng.choice(heads)
            part = frozenset(page for page in range(PAGES) if heads[page] == one)
            _one_young(vm, claim, rng, part, logging=not skew)
            if dump:
                _one_alone(vm, shell, claim, rng, part, skew)


def _one_young(
    vm: Guest, claim: Claim, rng: random.Random, part: frozenset[int], *, logging: bool
) -> None:
    """Assert that one young leaf makes its huge page young, wherever in the huge page it is.

    Only the first, the last and another one are tried, of the leaves `part`.
    """
    for page in (min(part), max(part), rng.choice(sorted(part))):
        if logging:
            # Whatever was written is write-protected again, so no cached translation will do.
            vm.dirty()
        else:
            vm.flush()
        mark_idle(vm)
        vm.touch({page}, write=logging)
        idle = vm.idle_read()
        expected = frozenset(range(PAGES)) - part
        claim.observe(f"page {page} of {short(part)} young alone: {len(idle)} idle")
        assert idle == expected, f"page {page} is young, but {short(idle)} are idle"


def _one_alone(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    part: frozenset[int],
    skew: int,
) -> None:
    """Assert that aging one huge page, whose pages are `part`, ends where it ends."""
    everything = frozenset(range(PAGES))
    _invalidate(vm, rng, everything, logging=not skew)
    vm.touch(everything, write=False)
    age_huge_page(vm, shell, part, skew)
    young = stage2.young(leaves(vm, shell, claim, "one-aged"), vm.slot.ipa, PAGES)
    expected = everything - part
    claim.observe(f"one huge page of {len(part)} pages aged alone: {show_set(expected, young)}")
    assert young == expected, f"one huge page aged alone: {show_set(expected, young)}"


def _invalidate(vm: Guest, rng: random.Random, touched: frozenset[int], *, logging: bool) -> None:
    """Force a stage-2 TLB invalidation; with the log on by reading it, once some are written."""
    if not logging:
        vm.flush()
        return
    written = frozenset(rng.sample(sorted(touched), 4))
    vm.touch(written, write=True)
    logged = vm.dirty()
    assert logged >= written, f"{len(written - logged)} writes were not logged"


@pytest.mark.deep
@pytest.mark.parametrize("backing", ["thp", "memfdthp"])
def test_split(
    backing: Backing,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
) -> None:
    """Aging is exact before, while and after a dirty log has blocks split into pages."""
    claim.expect(
        f"{PAGES} pages of {backing} memory in blocks, some split by the dirty log, and all in "
        "blocks again when they are written without it: each time all mapped leaves old after "
        "aging, then exactly the touched ones young; the log names exactly the pages written; no "
        "content is lost"
    )
    with prepared(backing, shell), guest(backing=backing, pages=PAGES) as vm:
        _split_and_joined(populated(vm), shell, claim, rng)


def _split_and_joined(vm: Guest, shell: Shell, claim: Claim, rng: random.Random) -> None:
    ipa = vm.slot.ipa
    require_blocks(vm, leaves(vm, shell, claim, "populated"))
    age_and_touch(vm, shell, claim, rng, "blocks")
    vm.dirty_log(True)
    # In the first block only: the second stays one.
    written = pick(rng, BLOCK)
    vm.touch(written, write=True)
    logged = leaves(vm, shell, claim, "written")
    left = stage2.blocks(logged, ipa, PAGES)
    claim.observe(f"{len(left)} of {PAGES} pages in blocks while some are logged")
    # However they are mapped: a block that stays may not be written past the log.
    assert_logged(vm, claim, written, "written")
    assert_writable(vm, claim, logged, written, "written")
    if left & written:
        raise Unproven("the dirty log did not split the block that was written to")
    age_and_touch(vm, shell, claim, rng, "split", logging=True)
    # Then each page has an entry, and a write finds that it may not, and not that there is none.
    vm.touch(range(PAGES), write=False)
    vm.dirty_log(False)
    vm.touch(range(PAGES), write=True)
    joined = stage2.blocks(leaves(vm, shell, claim, "joined"), ipa, PAGES)
    claim.observe(f"{len(joined)} of {PAGES} pages in blocks at the end")
    # Reclaim may have taken one apart, or all of it, meanwhile.
    require_huge(vm)
    apart = frozenset(range(PAGES)) - joined
    assert not apart, f"{len(apart)} pages are not in blocks again: {short(apart)}"
    age_and_touch(vm, shell, claim, rng, "joined")
    vm.verify(range(PAGES))


@pytest.mark.deep
def test_split_many(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """A vCPU splits one block after the other, and at none is it out of pages for tables."""
    pages = MANY * BLOCK
    claim.expect(
        f"a write to each of more than {CACHED} blocks in a row, with the dirty log on: no splat; "
        "the log names exactly the pages written, and no other can be written; no content is lost"
    )
    before = splats(shell)
    vm = populated(guest(backing="thp", pages=pages))
    ipa = vm.slot.ipa
    blocks = stage2.blocks(leaves(vm, shell, claim, "populated"), ipa, pages)
    heads = [page for page in blocks if page % BLOCK == 0]
    if len(heads) <= CACHED:
        raise Unproven(f"stage 2 has {len(heads)} blocks: a vCPU may have tables for all of them")
    vm.dirty_log(True)
    written = frozenset(head + rng.randrange(BLOCK) for head in heads)
    vm.touch(written, write=True)
    logged = leaves(vm, shell, claim, "written")
    assert_logged(vm, claim, written, "written")
    assert_writable(vm, claim, logged, written, "written")
    assert_none_new(shell, claim, before)
    left = stage2.blocks(logged, ipa, pages) & written
    if left:
        raise Unproven(f"the dirty log did not split {len(left)} of {len(heads)} blocks")
    vm.verify(range(pages))


def age_and_touch(
    vm: Guest, shell: Shell, claim: Claim, rng: random.Random, name: str, *, logging: bool = False
) -> None:
    """Assert that all leaves are old after page_idle, and then those young that are touched."""
    mark_idle(vm)
    before = stage2.young(leaves(vm, shell, claim, f"{name}-aged"), vm.slot.ipa, PAGES)
    assert not before, f"{name}: {len(before)} pages young after aging: {short(before)}"
    touched = frozenset(rng.sample(range(PAGES), 8)) if logging else pick(rng, PAGES, BLOCK)
    _invalidate(vm, rng, touched, logging=logging)
    reads_make_young(vm, shell, claim, touched, name)
