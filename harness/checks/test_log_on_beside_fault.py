# SPDX-License-Identifier: GPL-2.0-only
"""The dirty log is switched on while a vCPU's write fault is under way: no page escapes it.

A fault looks its memslot up as it begins, and maps its page for writing if that has no log. The
switch waits for all who may have seen the slot as it was (kvm->srcu), and only then takes write
permission from what is mapped; whoever does not wait has pages written that no log will name
(claim 4).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.driver import GUEST
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import FAULT, LOOK_UP, PREPARED, slot_range, stays
from harness.checks.pages import leaves, populated, shorten
from harness.checks.racing import Tally, kept, not_widened_at_look_up
from harness.guest_exchanges import log_anew
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.trace import PROBE_FULL, Counts, Wanted, by_tasks, returned
from harness.observe.tracefs import tracing

# With fewer all would be writable by the time that a busy host switches the log.
PAGES = 64
ENTRY = "kvm:kvm_entry"
# Switches, until so many came while a page was being mapped.
ROUNDS, ENOUGH = 32, 12


@pytest.mark.deep
def test_log_on_beside_fault(guest: Callable[..., Guest], shell: Shell, claim: Claim) -> None:
    """What may be written when the log has been switched on beside write faults is in the log."""
    claim.expect(
        f"a vCPU writes {PAGES} pages in turn without end, and faults at each, since the dirty "
        "log has them; it is switched off and on again, "
        f"{ROUNDS} times at most: each page that may be written then is in the log; no splat; "
        f"{ENOUGH} switches begin during a fault"
    )
    last = several(shell, "nobody switches a log while a vCPU faults")[-1]
    before = splats(shell)
    vm = populated(guest(pages=PAGES))
    wanted = Wanted(
        (FAULT, ENTRY),
        filters=dict.fromkeys((FAULT, ENTRY), by_tasks(GUEST)),
        returns=dict.fromkeys((PREPARED, *LOOK_UP), by_tasks(GUEST)),
        # A fault has looked its slot and its page up, and not yet mapped it.
        slowed=dict.fromkeys(LOOK_UP, 6 * PROBE_FULL),
    )
    tally = Tally(ENOUGH)
    # Or the one that switches the log waits for the CPU until the fault is over.
    vm.pin(0, last)
    vm.dirty_log(True)
    vm.spin(range(PAGES), write=True)
    with tracing(shell, wanted) as session:
        for number in range(ROUNDS):
            # None may be written then, and each write faults.
            vm.dirty()
            _, counts = kept(session, claim, f"trace{number}.txt", partial(log_anew, vm))
            # The log after the dump: what comes to be writable is in it before that.
            writable = stage2.writable(leaves(vm, shell, claim, str(number)), vm.slot.ipa, PAGES)
            logged = vm.dirty()
            if escaped := writable - logged:
                # A page is in the log a moment after it is mapped; the vCPU has not gone on before.
                vm.spin_wait(1)
                escaped -= vm.dirty()
            assert not escaped, (
                f"round {number}: {len(escaped)} pages may be written and are not in the log: "
                f"{shorten(escaped)}"
            )
            if tally.over(partial(_met, counts, vm)):
                break
    vm.spin_stop()
    claim.observe(f"{tally.met} of {number + 1} switches began during a fault")
    not_widened_at_look_up(claim, session.absent)
    assert_none_new(shell, claim, before)
    tally.prove("the log was never switched on during a fault")


def _met(counts: Counts, vm: Guest) -> int:
    """How many switches began during a fault on a tested page, which ends as the vCPU goes on."""
    # Every second one switches the log off.
    switches = [event.time for event in counts.events(returned(PREPARED))][1::2]
    faults = [
        event
        for event in counts.events(FAULT)
        if (event.fields["ipa"] - vm.slot.ipa) // PAGE_SIZE in range(PAGES)
    ]
    lasting = stays(faults, counts.events(ENTRY), *slot_range(vm))
    return sum(one.begin < time < one.end for one in lasting for time in switches)
