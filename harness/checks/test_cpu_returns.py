# SPDX-License-Identifier: GPL-2.0-only
"""A CPU that went off line runs vCPUs again, and the access flag is set there by whom it was.

What KVM has on a CPU (its vectors, and without VHE all of EL2, under pKVM the host's own
stage 2 as well) is set up anew when that CPU comes back (arch/arm64/kvm/arm.c, cpu_hyp_init()).
Machines do it to save power, and for each suspend.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import FAULTS, check_faults, situation
from harness.checks.pages import idle_tells, mark_idle, pick, populated, young_pages
from harness.checks.undo import undone
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.cpu_list import usable
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 256
ONLINE = "/sys/devices/system/cpu/cpu{cpu}/online"


@pytest.mark.stress
def test_cpu_returns(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """On a CPU that went off line and came back, while there was a guest, aging is exact."""
    cpus = usable(shell)
    others = cpus[1:-1]
    if not others:
        # Of the first the kernel has its time, and the last one is isolated: Linux 6.12 lets
        # neither go (tick_nohz_cpu_hotpluggable(), and dl_bw_deactivate(), kernel/sched/core.c).
        pytest.skip("of two CPUs neither can go off line")
    leaving = rng.choice(others)
    faults = contract.expect_access_faults(situation(cell))
    words = "no page" if faults == "none" else "each touched page and no other"
    claim.expect(
        f"CPU {leaving} goes off line and comes back; of {PAGES} pages exactly those are young "
        f"that a vCPU touches there then, access faults for {words} (seed {cell.seed})"
    )
    vm = populated(guest(pages=PAGES))
    vm.pin(0, cpus[0])
    mark_idle(vm)
    with _away(shell, claim, leaving):
        # The guest is at work meanwhile: what is torn down is that CPU's alone.
        touched = pick(rng, PAGES)
        vm.flush()
        vm.touch(touched, write=False)
        claim.observe(f"CPU {leaving} is off line")
        young_pages(vm, shell, claim, touched, "away")
    vm.pin(0, leaving)
    with tracing(shell, FAULTS) as session:
        mark_idle(vm)
        vm.flush()
        touched = pick(rng, PAGES)
        session.start()
        vm.touch(touched, write=False)
        counts = session.stop()
    claim.save("trace.txt", counts.raw)
    young_pages(vm, shell, claim, touched)
    check_faults(claim, faults, counts, vm.slot, touched)
    idle_tells(vm, claim, touched)
    vm.verify(range(PAGES))


@contextmanager
def _away(shell: Shell, claim: Claim, cpu: int) -> Iterator[None]:
    """Have a CPU off line meanwhile; assert that it comes back.

    Skips the check if the machine does not let it go, as one that firmware needs.
    """
    file = ONLINE.format(cpu=cpu)
    with undone(lambda: shell.run(f"grep -qx 1 {file} || echo 1 > {file}", check=False)):
        gone = shell.run(f"echo 0 > {file}", check=False)
        if gone.status != 0:
            pytest.skip(f"CPU {cpu} cannot go off line: {gone.stderr.strip()[:200]}")
        yield
        back = shell.run(f"echo 1 > {file}", check=False)
    claim.observe(f"CPU {cpu} {'is back' if back.status == 0 else 'stays off line'}")
    assert back.status == 0, f"CPU {cpu} does not come back: {back.stderr.strip()[:200]}"
    if cpu not in usable(shell):
        raise Unproven(f"CPU {cpu} is back, but nothing of ours may run there any more")
