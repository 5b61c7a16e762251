# SPDX-License-Identifier: GPL-2.0-only
"""One request ages many leaves while others of them change: those that did not are all old.

page_idle asks KVM for the range of a whole huge page, which stage 2 maps by pages here, as their
addresses are skewed. Dirty logging takes write permission from every leaf meanwhile, and so gets
ahead of the ager, at one leaf: that may stay young, since the ager finds it changed. A walk that
ends there leaves all that come after it young as well (kvm_pgtable_walk_continue() of pgtable.c
says which errors end one), and the host takes for used what its guest has left alone (claim 12).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.idle_ager import HUGE, beside, later
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    COMMITTED,
    PREPARED,
    agings,
    between,
    overlapping,
    slot_range,
    walk_functions,
)
from harness.checks.pages import (
    leaves,
    mark_idle,
    populated,
    require_huge,
    require_no_blocks,
    shorten,
)
from harness.checks.racing import Tally, entries, fast_functions, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import PROBE_FULL, Counts, Wanted, returned, slowed_entry
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = HUGE
# An ager takes a hundred milliseconds and more for them (emulated); the switch one or two.
SLOWED = PROBE_FULL // 3
ROUNDS, ENOUGH = 10, 6
# Each time the switch goes through all leaves while the ager is at one. It may be held up on its
# way, so that the ager gets ahead of it, and meets it at another leaf.
MOST = 8
# Milliseconds, of those that the ager takes.
AFTER = (4, 12, 30)


@pytest.mark.deep
def test_range_beside_log(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A request for hundreds of leaves makes them old, but for those that change just then."""
    skew = rng.randrange(HUGE // 4, 3 * HUGE // 4)
    claim.expect(
        f"another process ages {PAGES} young pages of huge memory, mapped one by one (by skew of "
        f"{skew} pages), once by page_idle, while dirty logging is switched on, {ENOUGH} to "
        f"{ROUNDS} times: {MOST} leaves at most stay young; no splat; it is switched on while "
        "pages are being aged"
    )
    several(shell, "nobody ages while the log is switched")
    before = splats(shell)
    fast, entered = fast_functions(contract, cell), 0
    vm = populated(guest(backing="thp", pages=PAGES, skew=skew))
    require_huge(vm)
    require_no_blocks(vm, leaves(vm, shell, claim, "populated"))
    heads = {pfn - (page + skew) % HUGE for page, pfn in vm.pfns().items()}
    tally = Tally(ENOUGH)
    wanted = Wanted(
        (AGE,),
        walk_functions(contract),
        returns=dict.fromkeys((AGED, PREPARED, COMMITTED), ""),
        slowed={AGE_CALLBACK: SLOWED},
    )
    with tracing(shell, wanted) as session, beside(vm, shell, heads) as both:
        for number in range(ROUNDS):
            mark_idle(vm)
            # A cached translation would hide the touch from stage 2.
            vm.flush()
            vm.touch(range(PAGES), write=True)
            log = partial(later, AFTER[number % len(AFTER)], partial(vm.dirty_log, True))
            _, counts = kept(session, claim, f"trace{number}.txt", partial(both, log))
            young = stage2.young(leaves(vm, shell, claim, str(number)), vm.slot.ipa, PAGES)
            claim.observe(f"round {number}: {len(young)} young")
            assert len(young) <= MOST, (
                f"round {number}: aging left {len(young)} pages young: {shorten(young)}"
            )
            vm.dirty_log(False)
            entered += entries(counts, fast)
            if tally.over(partial(_met, counts, vm)):
                break
    not_widened(claim, session.absent, slowed_entry(AGE_CALLBACK))
    vm.verify(range(PAGES))
    assert_none_new(shell, claim, before)
    tally.prove("the log was never switched on during an aging")
    if missing := never_entered(fast, entered):
        raise Unproven(missing)


def _met(counts: Counts, vm: Guest) -> int:
    """How many switches of the log went on while pages were being aged."""
    begins, ends = (counts.events(returned(name)) for name in (PREPARED, COMMITTED))
    return overlapping(between(begins, ends, *slot_range(vm)), agings(counts))
