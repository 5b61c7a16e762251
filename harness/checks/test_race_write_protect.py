# SPDX-License-Identifier: GPL-2.0-only
"""Aging while dirty logging is switched on, which takes write permission from every entry.

An ager that loaded an entry before and stores it after that gives the permission back, and the
guest's next write to the page passes the dirty log by: live migration loses it (claim 4). So does
one that the switch gives up on since an ager has changed it meanwhile. Kprobes on the callbacks of
both walks keep either between its load and its store for most of its time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import ager, reached
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import (
    AGE_CALLBACK,
    COMMITTED,
    PREPARED,
    SET_FLAGS,
    between,
    meetings,
    slot_range,
)
from harness.checks.pages import leaves, populated, shorten
from harness.checks.racing import Shows, entering, entries, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guest_exchanges import write_then_log
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.collect import NoDump
from harness.observe.trace import PROBE_FULL, Counts, returned, slowed_entry
from harness.observe.tracefs import Session, tracing

# Two words of the dirty log, small enough to be young still when the switch comes to them.
PAGES = 128
# A store that is blind to the change shows in two of three.
SWITCHES = 8


@pytest.mark.deep
def test_race_write_protect(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """Write permission that dirty logging took does not come back with aging; no splat."""
    by = entering(contract, cell)
    shows = Shows.of(contract, by, cell)
    claim.expect(
        f"another process ages {PAGES} pages that the guest has just written, by {by}, while dirty "
        f"logging is switched on, {SWITCHES} times: no page is writable then, and the log names "
        "each of them when the guest has written it again; no splat; some agings begin during a "
        "switch"
    )
    before = splats(shell)
    wanted = shows.wanted(
        contract,
        SET_FLAGS,
        returns=(PREPARED, COMMITTED),
        slowed={AGE_CALLBACK: PROBE_FULL, SET_FLAGS: PROBE_FULL},
    )
    met = entered = 0
    evidence = Evidence()
    vm = guest(pages=PAGES)
    with reached(by, vm, shell), tracing(shell, wanted) as session:
        populated(vm)
        with ager(vm, shell, vm.pfns().values(), by):
            for number in range(SWITCHES):
                counts = _switch(vm, shell, session, claim, number)
                met += evidence.read(partial(_met, counts, shows, vm), 0)
                entered += entries(counts, shows.fast)
        vm.verify(range(PAGES))
    claim.observe(f"{met} agings began during the switches")
    not_widened(claim, session.absent, *map(slowed_entry, (AGE_CALLBACK, SET_FLAGS)))
    assert_none_new(shell, claim, before)
    evidence.prove("" if met else "no aging began while write permission was being taken")
    evidence.prove(never_entered(shows.fast, entered))


def _switch(vm: Guest, shell: Shell, session: Session, claim: Claim, number: int) -> Counts:
    """Switch the log on and off once, and tell what was recorded meanwhile."""
    _, counts = kept(session, claim, f"trace{number}.txt", partial(write_then_log, vm))
    try:
        ranges = leaves(vm, shell, claim, f"{number}-logged")
    except NoDump as exc:
        claim.observe(f"switch {number}: by the log alone, since {exc.reason}")
    else:
        writable = stage2.writable(ranges, vm.slot.ipa, PAGES)
        assert not writable, (
            f"switch {number}: {len(writable)} pages are writable, and nobody has written to them "
            f"since the log was switched on: {shorten(writable)}"
        )
    vm.touch(range(PAGES), write=True)
    missing = frozenset(range(PAGES)) - vm.dirty()
    assert not missing, (
        f"switch {number}: {len(missing)} writes were not logged: {shorten(missing)}"
    )
    vm.dirty_log(False)
    return counts


def _met(counts: Counts, shows: Shows, vm: Guest) -> int:
    """How many agings began while the log was switched on."""
    begins, ends = (counts.events(returned(name)) for name in (PREPARED, COMMITTED))
    spans = between(begins, ends, *slot_range(vm))
    return meetings(spans, shows.agings(counts, vm))
