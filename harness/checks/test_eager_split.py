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

from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import leaves, pick, populated, require_blocks
from harness.checks.pages import shorten as short
from harness.checks.skips import guest_or_skip
from harness.checks.test_split import PAGES, age_and_touch
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

EVERYTHING = frozenset(range(PAGES))


def split_eagerly(guest: Callable[..., Guest], vcpus: int = 1) -> Guest:
    """A guest of huge memory whose VM has its blocks split so; skips where no VM can."""
    refusal = "this kernel splits no blocks eagerly"
    return guest_or_skip(
        lambda: guest(backing="thp", pages=PAGES, eager_split=True, vcpus=vcpus),
        refusal,
        f"{refusal}: it can from Linux 6.5 on",
    )


@pytest.mark.deep
def test_eager_split(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """Young blocks become young pages, write-protected and with what they held."""
    claim.expect(
        f"{PAGES} young pages in blocks: as soon as the dirty log is on each is mapped by an entry "
        "of its own, is young, and may not be written; the log names exactly the pages written; "
        "aging is exact; no content is lost"
    )
    vm = populated(split_eagerly(guest))
    ipa = vm.slot.ipa
    blocks = leaves(vm, shell, claim, "populated")
    require_blocks(vm, blocks)
    if stage2.young(blocks, ipa, PAGES) != EVERYTHING:
        raise Unproven("not all of the blocks are young to begin with")
    vm.dirty_log(True)
    split = leaves(vm, shell, claim, "split")
    left, young = stage2.blocks(split, ipa, PAGES), stage2.young(split, ipa, PAGES)
    claim.observe(f"after the split: {len(left)} pages in blocks, {len(young)} young")
    assert_writable(vm, claim, split, frozenset(), "after the split")
    if left:
        raise Unproven(f"the dirty log left {len(left)} pages in blocks")
    assert young == EVERYTHING, f"young before, and not after: {short(EVERYTHING - young)}"
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "written"), written, "written")
    assert_logged(vm, claim, written, "written")
    age_and_touch(vm, shell, claim, rng, "split-aged", logging=True)
    vm.verify(EVERYTHING)
