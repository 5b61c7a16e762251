# SPDX-License-Identifier: GPL-2.0-only
"""Whatever a VM has besides memory, its pages are aged, and made young, as the contract names it.

A fast path that is left for VMs with something of their own (a dirty log, a ring, a second slot,
eager splitting) is one that few guests of the field ever see; one that is taken where it must not
be does harm in a few of them alone (claims 2 and 3). Nor need each VM have its flags set by
hardware: VTCR_EL2 is a VM's own. Other checks know a plain VM, which is the only one of its host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import (
    FAULTS,
    check_faults,
    check_path,
    functions_only,
    promised,
    situation,
    wanted,
)
from harness.checks.pages import mark_idle, old_pages, populated, young_pages
from harness.checks.skips import FEW_BITS, NO_EAGER_SPLIT, NO_MANUAL_LOG, NO_RING
from harness.contract import Contract
from harness.errors import InfraError
from harness.guest_replies import Slot
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import merged
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

PAGES = 64
EVERYTHING = frozenset(range(PAGES))


@dataclass(frozen=True)
class Kind:
    """A kind of VM: what it is started with, done to it, and what refuses it on other machines."""

    options: Mapping[str, object] = field(default_factory=dict)
    refusal: str = ""
    logged: bool = False
    readonly: bool = False


KINDS: Mapping[str, Kind] = {
    "a dirty log": Kind(logged=True),
    "a dirty log that is cleared apart": Kind({"manual_log": "clear"}, NO_MANUAL_LOG, logged=True),
    "dirty rings": Kind({"ring": 256}, NO_RING, logged=True),
    "blocks that are split eagerly": Kind({"eager_split": "huge"}, NO_EAGER_SPLIT),
    "a read-only slot": Kind(readonly=True),
    "a slot at address 0": Kind({"low": True}),
    "a slot across 512 GiB": Kind({"far": True}, FEW_BITS),
    "as many bits of address as can be": Kind({"wide": True}, FEW_BITS),
    "a second slot": Kind({"second": "slot", "vcpus": 2}),
    "a second VM beside it": Kind({"second": "vm", "vcpus": 2}),
    "four vCPUs": Kind({"vcpus": 4}),
}


@pytest.mark.deep
def test_kinds_of_vm(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """page_idle ages each kind of VM by the functions that the contract names, and by no others."""
    # Of a page in two VMs there are two events, and others of who has the memory elsewhere.
    expectation = functions_only(promised(contract, "page_idle", cell, shell, claim))
    faults = contract.expect_access_faults(situation(cell))
    which = "none" if faults == "none" else "each page"
    claim.expect(
        f"{claim.expected}; all old then, and young when they are read, with access faults for "
        f"{which}; for VMs with each of: {', '.join(KINDS)}"
    )
    had = 0
    with tracing(shell, merged(wanted(expectation, "page_idle"), FAULTS)) as session:
        for name, kind in KINDS.items():
            try:
                vm = guest(pages=PAGES, **kind.options)
            except InfraError as exc:
                if not kind.refusal or kind.refusal not in str(exc):
                    raise
                claim.observe(f"no VM with {name} here: {kind.refusal}")
                continue
            had += 1
            with vm:
                if kind.readonly:
                    populated(vm)
                    vm.readonly(True)
                if kind.logged:
                    vm.dirty_log(True)
                for vcpu in range(len(_slots(vm))):
                    vm.touch(EVERYTHING, write=not kind.readonly, vcpu=vcpu)
                session.start()
                mark_idle(vm)
                counts = session.stop()
                word = name.replace(" ", "-")
                claim.save(f"trace-{word}.txt", counts.raw)
                claim.observe(name)
                try:
                    old_pages(vm, shell, claim, word)
                    check_path(claim, expectation, session, counts, vm)
                    if kind.logged:
                        # What a flush is made of would lose the log.
                        vm.dirty_log(False)
                    _read(vm, session, claim, faults, word)
                    young_pages(vm, shell, claim, EVERYTHING, f"{word}-read")
                except AssertionError as exc:
                    raise AssertionError(f"a VM with {name}: {exc}") from exc
    if not had:
        raise Unproven("this host makes none of these VMs")


def _slots(vm: Guest) -> list[Slot]:
    """Where the pages are by each way to them; the vCPU of the way's number goes by it."""
    return [vm.slot] if vm.greeting.second_ipa is None else [vm.slot, vm.second_slot]


def _read(vm: Guest, session: Session, claim: Claim, faults: str, name: str) -> None:
    """Have all pages read by each way that there is to them, and judge the access faults."""
    vm.flush()
    for vcpu, slot in enumerate(_slots(vm)):
        session.start()
        vm.touch(EVERYTHING, write=False, vcpu=vcpu)
        counts = session.stop()
        claim.save(f"trace-{name}-read-{vcpu}.txt", counts.raw)
        check_faults(claim, faults, counts, slot, EVERYTHING)
