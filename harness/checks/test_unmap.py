# SPDX-License-Identifier: GPL-2.0-only
"""What the host takes away is gone from stage 2, at once, and nothing else is.

A walker without the MMU lock meets unmapping: tables that are freed under it, entries that were
old when they went. Here nothing races; it shows that unmapping itself is still whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.groups import grouped
from harness.checks.pages import (
    leaves,
    mark_idle,
    pick,
    populated,
    require_blocks,
    require_huge,
    shorten,
    shows_stage2,
)
from harness.guest_exchanges import take_away
from harness.guest_words import Advice, Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.unproven import Unproven

TABLE = 512
# Two blocks, or the table that has them would go with the one, and all translations with that.
SPIN_PAGES: dict[Backing, int] = {"anon": 64, "thp": 2 * TABLE}
# One table of stage 2 and a part of the next; huge pages come whole.
PAGES = {"anon": TABLE + 128, "memfd": TABLE + 128, "thp": 2 * TABLE}
# The host splits huge pages and makes new ones (khugepaged) as it likes, and whole ranges leave
# stage 2 with that: for thp only what the guest reads is judged of the pages that stay.
ADVICE: dict[str, Advice] = {"anon": "dontneed", "memfd": "remove", "thp": "dontneed"}


@pytest.mark.parametrize(
    ("backing", "aged"),
    [
        pytest.param("anon", False, id="young", marks=pytest.mark.quick),
        pytest.param("anon", True, id="old", marks=pytest.mark.quick),
        pytest.param("thp", False, id="block", marks=pytest.mark.deep),
    ],
)
def test_unmap_hot(
    backing: Backing,
    aged: bool,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """A page that is taken away is unreachable at once to a vCPU that never exits."""
    cpu = free_cpu(shell, cell)
    pages = SPIN_PAGES[backing]
    page = rng.randrange(pages)
    age = "old" if aged else "young"
    claim.expect(
        f"once MADV_DONTNEED of page {page} ({backing}, {age}) has returned, the vCPU that reads "
        "it without end and without an exit takes a fault and reads zeroes"
    )
    vm = populated(guest(backing=backing, pages=pages))
    if backing == "thp":
        _require_blocks(vm, shell, claim)
    vm.pin(0, cpu, fifo=True)
    vm.spin({page}, write=False)
    seen = take_away(vm, page, aged=aged)
    vm.spin_stop()
    exits = seen.after.exits.exits - seen.before.exits.exits
    claim.observe(f"it read {seen.old:#x}, then {seen.new:#x} with {exits} exits between")
    if not seen.old:
        raise Unproven("the page held zeroes before it was taken away")
    assert seen.new == 0, f"it still reads {seen.new:#x} from a page that is gone"
    assert exits > 0, "it took no fault on a page that is gone"


def _require_blocks(vm: Guest, shell: Shell, claim: Claim) -> None:
    """Unproven unless blocks map it; where stage 2 is not shown, unless it is huge to the host."""
    if shows_stage2(vm, shell, claim, "what the host says of huge pages"):
        require_blocks(vm, leaves(vm, shell, claim, "populated"))
    else:
        require_huge(vm)


@pytest.mark.parametrize("backing", grouped(sorted(ADVICE), stress=["memfd"]))
def test_unmap_part(
    backing: str,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
) -> None:
    """Pages taken away leave stage 2, the others stay with what they hold, round after round."""
    pages = PAGES[backing]
    counted = backing != "thp" and tables.at_first(shell, claim) is not None
    vm = guest(backing=backing, pages=pages)
    dump = shows_stage2(vm, shell, claim, "what the guest reads")
    claim.expect(_expected(backing, dump=dump))
    populated(vm)
    needed = tables.count(shell) if counted else 0
    everything = frozenset(range(pages))
    one_table = frozenset(range(TABLE)) | pick(rng, pages)
    # The third time, the table that became empty in the second is in use again.
    for name, gone in (
        ("some", pick(rng, pages)),
        ("table", one_table),
        ("again", pick(rng, pages)),
    ):
        vm.drain()
        if backing == "thp":
            # khugepaged may hold pages of it off the LRU lists at this moment.
            vm.idle_mark()
        else:
            mark_idle(vm)
        kept = everything - gone
        vm.touch(pick(rng, pages), write=False)
        vm.advise(ADVICE[backing], gone)
        claim.observe(f"{name}: {len(gone)} taken away")
        if dump:
            mapped = stage2.mapped(leaves(vm, shell, claim, name), vm.slot.ipa, pages)
            claim.observe(f"{len(mapped)} mapped")
            left, lost = mapped & gone, kept - mapped
            assert not left, f"{name}: {len(left)} pages are mapped still: {shorten(left)}"
            assert not lost or backing == "thp", f"{name}: {len(lost)} others went: {shorten(lost)}"
        # kvm-guest compares what the guest reads with what it wrote, or with zero.
        vm.touch(everything, write=False)
        vm.touch(gone, write=True)
        vm.verify(everything)
        if dump and backing != "thp":
            mapped = stage2.mapped(leaves(vm, shell, claim, f"{name}-back"), vm.slot.ipa, pages)
            assert mapped == everything, f"{name}: only {len(mapped)} pages are mapped again"
        if counted:
            # One that was freed and is in use all the same is counted no more.
            again = tables.falls_to(shell, claim, needed, cell.slowdown)
            assert again == needed, f"{name}: {again} pages of tables, {needed} at first"


def _expected(backing: str, *, dump: bool) -> str:
    """What test_unmap_part expects, as far as this kernel lets it be seen."""
    read = "the guest reads zeroes from the ones and what it wrote from the others"
    whole = "all mapped again, stage 2 has as many tables as at first (but for thp)"
    pages = PAGES[backing]
    if dump:
        return (
            f"of {pages} pages of {backing} memory those that are taken away leave stage 2, the "
            f"others stay mapped; {read}; {whole}"
        )
    return f"of {pages} pages of {backing} memory some are taken away: {read}; {whole}"
