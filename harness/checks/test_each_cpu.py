# SPDX-License-Identifier: GPL-2.0-only
"""Who sets the access flag, on each CPU and for each vCPU.

Hardware sets it where VTCR_EL2.HA says so, a register that each CPU has for itself and that KVM
loads whenever a vCPU runs there. Where it is not set, guests fault instead: aging is exact all the
same, so only the faults tell. test_af_mode looks at each kind of CPU with one vCPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import FAULTS, check_faults, situation
from harness.checks.pages import mark_idle, pick, populated, young_pages
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.cpu_list import usable
from harness.observe.tracefs import tracing

PAGES = 256
VCPUS = 2


@pytest.mark.deep
def test_each_cpu(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A touch of an old page faults where it must, whichever vCPU touches it on which CPU."""
    cpus = usable(shell)
    if len(cpus) < 2:
        pytest.skip("one CPU, which all other checks see to")
    # Of a large machine three stand for all.
    some = sorted({cpus[0], rng.choice(cpus), cpus[-1]})
    faults = contract.expect_access_faults(situation(cell))
    words = "no page" if faults == "none" else "each touched page and no other"
    claim.expect(
        f"of {VCPUS} vCPUs on CPUs {some}, each vCPU on each CPU: an access fault for {words}, "
        f"and exactly the touched ones of {PAGES} pages young (seed {cell.seed})"
    )
    vm = populated(guest(pages=PAGES, vcpus=VCPUS))
    with tracing(shell, FAULTS) as session:
        for turn in range(len(some)):
            places = [some[(turn + vcpu) % len(some)] for vcpu in range(VCPUS)]
            claim.observe(f"vCPUs on CPUs {places}")
            for vcpu, cpu in enumerate(places):
                vm.pin(vcpu, cpu)
            mark_idle(vm)
            vm.flush()
            touched = pick(rng, PAGES)
            session.start()
            for vcpu in range(VCPUS):
                vm.touch(_share(touched, vcpu), write=False, vcpu=vcpu)
            counts = session.stop()
            claim.save(f"trace-{turn}.txt", counts.raw)
            young_pages(vm, shell, claim, touched)
            check_faults(claim, faults, counts, vm.slot, touched)


def _share(pages: frozenset[int], vcpu: int) -> frozenset[int]:
    """The pages of the set that are a vCPU's to touch."""
    return frozenset(page for page in pages if page % VCPUS == vcpu)
