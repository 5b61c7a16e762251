# SPDX-License-Identifier: GPL-2.0-only
"""Whatever a VM has besides memory, its pages are aged in the way that the contract names.

A fast path that is left for VMs with something of their own (a dirty log, a ring, a second slot,
eager splitting) is one that few guests of the field ever see; one that is taken where it must not
be does harm in a few of them alone (claims 2 and 3). Other checks know the path of a plain VM.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import check_path, functions_only, promised, wanted
from harness.checks.pages import mark_idle, old_pages, populated
from harness.checks.skips import FEW_BITS, NO_EAGER_SPLIT, NO_MANUAL_LOG, NO_RING
from harness.contract import Contract
from harness.errors import InfraError
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven

PAGES = 64


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
    claim.expect(f"{claim.expected}; all old then; for VMs with each of: {', '.join(KINDS)}")
    had = 0
    with tracing(shell, wanted(expectation, "page_idle")) as session:
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
                vm.touch(range(PAGES), write=not kind.readonly)
                session.start()
                mark_idle(vm)
                counts = session.stop()
                old_pages(vm, shell, claim, name.replace(" ", "-"))
            claim.save(f"trace-{name.replace(' ', '-')}.txt", counts.raw)
            claim.observe(name)
            try:
                check_path(claim, expectation, session, counts, vm)
            except AssertionError as exc:
                raise AssertionError(f"a VM with {name}: {exc}") from exc
    if not had:
        raise Unproven("this host makes none of these VMs")
