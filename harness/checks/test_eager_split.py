# SPDX-License-Identifier: GPL-2.0-only
"""All blocks become tables at once when the dirty log is switched on: "eager page splitting".

A VM that asks for it (KVM_CAP_ARM_EAGER_SPLIT_CHUNK_SIZE, Documentation/virt/kvm/api.rst, from
Linux 6.5 on) has no vCPU wait for that at its first write. The tables are made out of sight and
take the places of their blocks: what a block's entry said, each of their entries has to say.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.checks import test_gib_block
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import (
    leaves,
    mark_idle,
    pick,
    populated,
    require_blocks,
)
from harness.checks.pages import shorten as short
from harness.checks.skips import NO_EAGER_SPLIT, or_skip
from harness.checks.test_split import BLOCK, PAGES, age_and_touch
from harness.guest_words import Backing, Chunk
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

EVERYTHING = frozenset(range(PAGES))
LAST_LEVEL = 3


def split_eagerly(
    guest: Callable[..., Guest],
    backing: Backing = "thp",
    pages: int = PAGES,
    vcpus: int = 1,
    chunk: Chunk = "huge",
) -> Guest:
    """A guest of huge memory whose VM has its blocks split so; skips where no VM can."""
    return or_skip(
        lambda: guest(backing=backing, pages=pages, eager_split=chunk, vcpus=vcpus),
        NO_EAGER_SPLIT,
        f"{NO_EAGER_SPLIT}: it can from Linux 6.5 on",
    )


@pytest.mark.deep
def test_eager_split_gib(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """A block of 1 GiB becomes pages as well, all of it, through tables of two levels."""
    pages = test_gib_block.PAGES
    claim.expect(
        f"a block of 1 GiB: as soon as the dirty log is on each of its {pages} pages is mapped by "
        "an entry of its own, and none may be written; the log names exactly the pages written; no "
        "content is lost"
    )
    vm = or_skip(
        lambda: split_eagerly(guest, "gigantic", pages),
        test_gib_block.REFUSAL,
        test_gib_block.REASON,
    )
    written = pick(rng, BLOCK)
    vm.touch(written, write=True)
    before = stage2.by_level(leaves(vm, shell, claim, "populated"), vm.slot.ipa, pages)
    if before != {test_gib_block.LEVEL: pages}:
        raise Unproven(f"stage 2 maps a page of 1 GiB by leaves of levels {before}")
    vm.dirty_log(True)
    split = leaves(vm, shell, claim, "split")
    after = stage2.by_level(split, vm.slot.ipa, pages)
    claim.observe(f"pages by the level of their leaf: {after}")
    if after == before:
        raise Unproven("the dirty log left the block as it is")
    assert after == {LAST_LEVEL: pages}, f"pages by the level of their leaf: {after}"
    assert_writable(vm, claim, split, frozenset(), "after the split")
    again = pick(rng, BLOCK)
    vm.touch(again, write=True)
    assert_logged(vm, claim, again, "written")
    vm.verify(written | again)


@pytest.mark.deep
def test_eager_split(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """Blocks become pages, those of young ones young, write-protected, with what they held."""
    claim.expect(
        f"{PAGES} pages in two blocks, of which one is young: as soon as the dirty log is on each "
        "is mapped by an entry of its own, those of the one are young, and none may be written; "
        "the log names exactly the pages written; aging is exact; no content is lost"
    )
    vm = populated(split_eagerly(guest))
    ipa = vm.slot.ipa
    first = rng.choice(range(0, PAGES, BLOCK))
    used = frozenset(range(first, first + BLOCK))
    mark_idle(vm)
    # What hides a touch from stage 2 goes with the memory; by a dirty log the blocks would go too.
    vm.advise("dontneed", used)
    vm.touch(used, write=True)
    blocks = leaves(vm, shell, claim, "populated")
    require_blocks(vm, blocks)
    if stage2.young(blocks, ipa, PAGES) != used:
        raise Unproven("not exactly one of the blocks is young to begin with")
    vm.dirty_log(True)
    split = leaves(vm, shell, claim, "split")
    left, young = stage2.blocks(split, ipa, PAGES), stage2.young(split, ipa, PAGES)
    claim.observe(f"after the split: {len(left)} pages in blocks, {len(young)} young")
    assert_writable(vm, claim, split, frozenset(), "after the split")
    if left == EVERYTHING:
        raise Unproven("the dirty log left all pages in blocks")
    # It may give up for want of memory, which there is: it did not for the other block.
    assert not left, f"{len(left)} pages are in a block still: {short(left)}"
    # Linux 6.12 makes young pages of an old block as well.
    assert used <= young, f"young before, and not after: {short(used - young)}"
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "written"), written, "written")
    assert_logged(vm, claim, written, "written")
    age_and_touch(vm, shell, claim, rng, "split-aged", logging=True)
    vm.verify(EVERYTHING)
