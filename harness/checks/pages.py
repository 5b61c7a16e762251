# SPDX-License-Identifier: GPL-2.0-only
"""Steps that several checks share: pages that are ready to be aged, and words for sets of pages."""

from __future__ import annotations

import random
from collections.abc import Sequence

from harness.checks.claim import Claim
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.collect import Dump, NoDump, dump_by, refusal, refuse
from harness.observe.unproven import Unproven
from harness.ranges import format_ranges


def pick(rng: random.Random, pages: int, block: int = 1) -> frozenset[int]:
    """A random set of pages: one in each of a quarter to three quarters of all blocks.

    `block` is the pages that one leaf of stage 2 is thought to map.
    """
    blocks = pages // block
    chosen = rng.sample(range(blocks), rng.randint(max(1, blocks // 4), max(1, 3 * blocks // 4)))
    return frozenset(at * block + rng.randrange(block) for at in chosen)


def populated(vm: Guest) -> Guest:
    """Have the guest write every page and bring the pages to the LRU lists.

    Unproven if the kernel keeps some of them off the lists: nothing could age those.
    """
    vm.populate()
    return on_lists(vm)


def on_lists(vm: Guest) -> Guest:
    """Bring all pages to the LRU lists; Unproven if one is absent or kept off them."""
    vm.drain()
    flags = vm.flags()
    pages = vm.slot.pages
    if flags["present"] != pages or flags["lru"] != pages:
        raise Unproven(f"of {pages} pages {flags['present']} are present, {flags['lru']} on an LRU")
    return vm


def require_huge(vm: Guest) -> None:
    """Unproven unless all of the memory is of huge pages, as the host has it."""
    huge, pages = vm.flags()["thp"], vm.slot.pages
    if huge != pages:
        raise Unproven(f"{huge} of {pages} pages are huge to the host")


def require_blocks(vm: Guest, ranges: tuple[stage2.Range, ...]) -> None:
    """Unproven unless blocks map all of the memory in stage 2, as these ranges have it."""
    blocks = len(stage2.blocks(ranges, vm.slot.ipa, vm.slot.pages))
    if blocks != vm.slot.pages:
        raise Unproven(f"stage 2 maps {blocks} of {vm.slot.pages} pages by blocks: all must be")


def require_no_blocks(vm: Guest, ranges: tuple[stage2.Range, ...]) -> None:
    """Unproven if a block maps any of the memory."""
    blocks = stage2.blocks(ranges, vm.slot.ipa, vm.slot.pages)
    if blocks:
        raise Unproven(f"stage 2 maps {len(blocks)} pages by blocks, where pages should be")


def whole_blocks(pages: frozenset[int], size: int) -> frozenset[int]:
    """All pages of the blocks of so many pages that have a page of the set."""
    return frozenset(
        page for at in pages for page in range(at // size * size, (at // size + 1) * size)
    )


def mark_idle(vm: Guest, absent: int = 0) -> None:
    """Age every tested page by page_idle; Unproven if it passed some over but so many absent."""
    mark = vm.idle_mark()
    if mark.marked + absent != vm.slot.pages:
        raise Unproven(
            f"page_idle marked {mark.marked} of {vm.slot.pages} pages; {mark.absent} are absent, "
            f"{len(mark.unmarked)} on no LRU list"
        )


def require_marks_kept(vm: Guest) -> None:
    """Mark every tested page idle, and touch it; Unproven where that ends the mark by itself.

    With the classic LRU the fault does (folio_mark_accessed() of mm/swap.c), and then nobody asks
    KVM about the page any more.
    """
    mark_idle(vm)
    vm.flush()
    vm.touch(range(vm.slot.pages), write=True)
    if unmarked := frozenset(range(vm.slot.pages)) - vm.flagged("idle"):
        raise Unproven(f"{len(unmarked)} pages are not idle to the host after a touch: nobody asks")


def forget_references(vm: Guest, shell: Shell) -> None:
    """Make all pages of the guest's owner old to the host, and take its marks of use from them.

    That is the access flag of its own page tables, PG_referenced, and PG_young, which page_idle
    leaves behind and reclaim takes for a reference. No MMU notifier is asked
    (Documentation/filesystems/proc.rst, clear_refs).
    """
    shell.write(f"/proc/{vm.greeting.pid}/clear_refs", "1\n")


def old_pages(
    vm: Guest, shell: Shell, claim: Claim, name: str = "aged"
) -> tuple[stage2.Range, ...]:
    """Assert that stage 2 maps every tested page, and all of them old; returns its ranges.

    Where the kernel does not show stage 2, page_idle alone tells, and there are no ranges. It
    needs an idle_mark() before, and tells the same: what is idle still has no AF at stage 2.
    """
    pages = vm.slot.pages
    try:
        dump = dumped(vm, shell)
    except NoDump as exc:
        claim.observe(f"by page_idle alone, since {exc.reason}")
        found = _not_idle(vm)
        claim.observe(f"after aging {len(found)} of {pages} young")
        assert not found, f"pages that are young after aging: {shorten(found)}"
        return ()
    claim.save(f"stage2-{name}.txt", dump.raw)
    mapped = stage2.mapped(dump.ranges, vm.slot.ipa, pages)
    if len(mapped) != pages:
        raise Unproven(f"stage 2 maps {len(mapped)} of {pages} pages, so the others have no AF")
    young = stage2.young(dump.ranges, vm.slot.ipa, pages)
    claim.observe(f"after aging {len(young)} of {pages} young")
    assert not young, f"pages that are young after aging: {shorten(young)}"
    return dump.ranges


def dumped(vm: Guest, shell: Shell) -> Dump:
    """The dump of the guest's stage 2, read by kvm-guest: no process has to start for it.

    NoDump if this kernel cannot show it.
    """
    refuse_no_dump(vm, shell)
    return dump_by(vm.vm_dir, vm.stage2())


def refuse_no_dump(vm: Guest, shell: Shell) -> None:
    """NoDump where the dump is absent, or does not show the guest's stage 2.

    The host is asked once for each VM: to start a program takes longer than the dump.
    """
    if vm.dump_refusal is None:
        vm.dump_refusal = refusal(shell, vm.vm_dir)
    refuse(vm.dump_refusal)


def shows_stage2(vm: Guest, shell: Shell, claim: Claim, otherwise: str) -> bool:
    """Whether this kernel shows a guest's stage 2; if not, say what tells `otherwise`.

    A check that goes on without it must not expect what it alone shows.
    """
    try:
        refuse_no_dump(vm, shell)
    except NoDump as exc:
        claim.observe(f"by {otherwise} alone, since {exc.reason}")
        return False
    return True


def leaves(vm: Guest, shell: Shell, claim: Claim, name: str) -> tuple[stage2.Range, ...]:
    """The ranges of stage 2 now; the dump is kept as stage2-NAME.txt."""
    dump = dumped(vm, shell)
    claim.save(f"stage2-{name}.txt", dump.raw)
    return dump.ranges


def young_pages(
    vm: Guest, shell: Shell, claim: Claim, expected: frozenset[int], name: str = "touched"
) -> None:
    """Assert that in stage 2 exactly the pages `expected` are young, or by page_idle alone."""
    try:
        dump = dumped(vm, shell)
    except NoDump as exc:
        claim.observe(f"by page_idle alone, since {exc.reason}")
        idle_tells(vm, claim, expected)
        return
    claim.save(f"stage2-{name}.txt", dump.raw)
    seen = stage2.young(dump.ranges, vm.slot.ipa, vm.slot.pages)
    claim.observe(f"stage 2: {show_set(expected, seen)}")
    assert seen == expected, f"stage 2: {show_set(expected, seen)}"


def idle_tells(vm: Guest, claim: Claim, young: frozenset[int]) -> None:
    """Assert that page_idle finds exactly these pages young."""
    found = _not_idle(vm)
    claim.observe(f"page_idle: {show_set(young, found)}")
    assert found == young, f"page_idle: {show_set(young, found)}"


def mapped_pages(
    vm: Guest, shell: Shell, claim: Claim, expected: frozenset[int], name: str
) -> None:
    """Assert that stage 2 maps exactly these pages."""
    mapped = stage2.mapped(leaves(vm, shell, claim, name), vm.slot.ipa, vm.slot.pages)
    claim.observe(f"{name}: {len(mapped)} mapped")
    left, lost = mapped - expected, expected - mapped
    assert not left, f"{name}: {len(left)} pages are mapped still: {shorten(left)}"
    assert not lost, f"{name}: {len(lost)} pages are not mapped: {shorten(lost)}"


def af_alone(vm: Guest, before: Sequence[stage2.Range], aged: Sequence[stage2.Range]) -> None:
    """Assert that aging changed nothing but AF of the leaves of the tested pages."""
    changed = stage2.differing(before, aged, vm.slot.ipa, vm.slot.pages, af=False)
    assert not changed, f"aging changed more than AF of {len(changed)} pages: {shorten(changed)}"


def aging_is_exact(vm: Guest, shell: Shell, claim: Claim, rng: random.Random, name: str) -> None:
    """Age all pages by page_idle, have some read, and assert that just their leaves are young."""
    pages, ipa = vm.slot.pages, vm.slot.ipa
    mark_idle(vm)
    vm.flush()
    young = stage2.young(leaves(vm, shell, claim, f"{name}-aged"), ipa, pages)
    assert not young, f"{name}: {len(young)} pages are young after aging: {shorten(young)}"
    reads_make_young(vm, shell, claim, pick(rng, pages), name)


def reads_make_young(
    vm: Guest, shell: Shell, claim: Claim, touched: frozenset[int], name: str
) -> frozenset[int]:
    """Have these pages read, all being old, and assert that just their leaves are young.

    Returns the pages of these leaves.
    """
    pages, ipa = vm.slot.pages, vm.slot.ipa
    vm.touch(touched, write=False)
    found = leaves(vm, shell, claim, f"{name}-touched")
    expected = stage2.by_leaf(found, ipa, pages, touched)
    young = stage2.young(found, ipa, pages)
    claim.observe(f"{name}: {show_set(expected, young)}")
    assert young == expected, f"{name}: {show_set(expected, young)}"
    return expected


def _not_idle(vm: Guest) -> frozenset[int]:
    """The pages that page_idle finds young; asked again, it says the same of them."""
    return frozenset(range(vm.slot.pages)) - vm.idle_read()


def show_set(expected: frozenset[int], seen: frozenset[int], word: str = "young") -> str:
    """Where a set of pages, which are so, differs from the expected one, in a sentence."""
    if expected == seen:
        return f"{len(seen)} {word}, exactly those expected"
    missing, extra = expected - seen, seen - expected
    parts = [f"{len(seen)} {word} where {len(expected)} are expected"]
    parts += [f"{len(missing)} not {word}: {shorten(missing)}"] if missing else []
    parts += [f"{len(extra)} {word} without a touch: {shorten(extra)}"] if extra else []
    return "; ".join(parts)


def shorten(pages: frozenset[int]) -> str:
    """A set of pages, cut to what fits a line; the evidence has it whole."""
    text = format_ranges(pages)
    return text if len(text) <= 60 else f"{text[:57]}..."
