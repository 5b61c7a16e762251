# SPDX-License-Identifier: GPL-2.0-only
"""From an inventory and a contract to the cells: none too many, none lost."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import contract_load
from harness.contract import Contract
from harness.contract_file import Variant
from harness.errors import UsageError
from harness.inventory import Inventory
from harness.plan import PlannedCell, left_out, not_booted, not_used, plan

STOCK = Inventory.model_validate(
    {
        "schema": 1,
        "defaults": {"source": "x", "series": "y"},
        "hosts": {
            "n1": {
                "kind": "qemu",
                "cpu": "neoverse-n1",
                "af": "hardware",
                "kvm_modes": ["vhe", "nvhe", "protected"],
            },
            "a57": {
                "kind": "qemu",
                "cpu": "cortex-a57",
                "af": "software",
                "kvm_modes": ["nvhe", "protected"],
            },
        },
    }
)


@pytest.fixture
def contract() -> Contract:
    """The base's own, with two ways more to boot."""
    variants = (
        Variant(name="sw-af", cmdline=("kvm-arm.stage2_sw_af=1",), stage2_af="software"),
        Variant(name="plain", cmdline=("quiet", "a=b")),
    )
    return replace(contract_load.load(None), variants=variants)


def ids(cells: tuple[PlannedCell, ...]) -> list[str]:
    return [cell.id for cell in cells]


def test_base_alone(contract: Contract) -> None:
    assert ids(plan(STOCK, contract, base_only=True)) == [
        *("n1-vhe-base", "n1-nvhe-base", "n1-protected-base"),
        *("a57-nvhe-base", "a57-protected-base"),
    ]


def test_a_series_without_a_contract() -> None:
    cells = plan(STOCK, None)
    assert len(cells) == 10
    assert {cell.variant for cell in cells} == {""}


def test_the_whole_matrix(contract: Contract) -> None:
    cells = plan(STOCK, contract)
    assert len(cells) == 18
    assert len(set(ids(cells))) == 18, "an id is a folder's name"
    assert ids(cells)[:4] == [
        *("n1-vhe-base", "n1-vhe-patched", "n1-vhe-patched-sw-af", "n1-vhe-patched-plain"),
    ]


def test_a_variant_is_booted_where_it_makes_a_difference(contract: Contract) -> None:
    cells = plan(STOCK, contract)
    assert {cell.host for cell in cells if cell.variant == "sw-af"} == {"n1"}
    assert {cell.host for cell in cells if cell.variant == "plain"} == {"n1", "a57"}
    note = "not booted: a57 +sw-af, since software sets the access flag there anyway"
    assert not_booted(STOCK, contract, cells) == (note,)
    assert not_booted(STOCK, contract, plan(STOCK, contract, hosts=("n1",))) == ()
    assert not_booted(STOCK, contract, plan(STOCK, contract, base_only=True)) == ()
    assert not_booted(STOCK, None, cells) == ()


def test_base_comes_before_what_is_held_against_it(contract: Contract) -> None:
    cells = plan(STOCK, contract)
    for at, cell in enumerate(cells):
        before = [c for c in cells[:at] if (c.host, c.kvm_mode) == (cell.host, cell.kvm_mode)]
        assert cell.kernel == "base" or any(c.kernel == "base" for c in before)


def test_each_mode_is_asked_for_on_the_command_line(contract: Contract) -> None:
    asked = {"vhe": (), "nvhe": ("kvm-arm.mode=nvhe",), "protected": ("kvm-arm.mode=protected",)}
    more = {"": (), "sw-af": ("kvm-arm.stage2_sw_af=1",), "plain": ("quiet", "a=b")}
    for cell in plan(STOCK, contract):
        assert cell.cmdline == asked[cell.kvm_mode] + more[cell.variant]


def test_what_all_kernels_need_is_in_every_cell(contract: Contract) -> None:
    plain = plan(STOCK, contract)
    for cell, without in zip(plan(STOCK, contract, cmdline=("page_poison=1",)), plain, strict=True):
        assert set(cell.cmdline) == {*without.cmdline, "page_poison=1"}


def test_who_sets_the_access_flag(contract: Contract) -> None:
    for cell in plan(STOCK, contract):
        software = cell.host == "a57" or cell.variant == "sw-af"
        assert cell.af_mode == ("software" if software else "hardware")


def test_narrowed(contract: Contract) -> None:
    assert ids(plan(STOCK, None, hosts=("a57",), kvm_modes=("protected",))) == [
        *("a57-protected-base", "a57-protected-patched"),
    ]
    some = plan(STOCK, contract, kvm_modes=("vhe",), base_only=True)
    assert ids(some) == ["n1-vhe-base"], "the other host has no VHE and is left out"


def test_nothing_is_left() -> None:
    with pytest.raises(UsageError, match=r"no host has a KVM mode of vhe"):
        plan(STOCK, None, hosts=("a57",), kvm_modes=("vhe",))
    with pytest.raises(UsageError, match=r"no host 'n2'"):
        plan(STOCK, None, hosts=("n2",))


def test_a_record_before_anything_is_proven(contract: Contract) -> None:
    for cell in plan(STOCK, contract):
        record = cell.record(reason="not yet")
        assert (record.outcome, record.reason, record.id) == ("error", "not yet", cell.id)
        assert (record.host, record.kernel, record.variant) == (
            cell.host,
            cell.kernel,
            cell.variant,
        )
        assert (record.build_id, record.boot_id, record.af_observed) == ("", "", None)


LAB = {
    "kind": "ssh",
    "address": "10.0.0.5",
    "agent": True,
    "kvm_modes": ["vhe"],
    "af": "hardware",
    "cmdline": ["x=1"],
}


def with_lab(*others: str) -> Inventory:
    """An inventory with a machine of the lab, and those of the others that are named."""
    plain = STOCK.model_dump(by_alias=True)
    hosts = {"lab1": LAB, **{name: plain["hosts"][name] for name in others}}
    return Inventory.model_validate({**plain, "hosts": hosts})


def test_a_machine_that_a_run_would_reboot_is_left_out_and_named(contract: Contract) -> None:
    both = with_lab(*STOCK.hosts)
    assert plan(both, contract) == plan(STOCK, contract)
    assert not_used(both, ()) == (
        "not used: lab1 (kind ssh: a run reboots it, so --host must name it)",
    )
    assert not_used(both, ("n1",)) == ()
    assert left_out(both, ()) == ("lab1",)
    assert left_out(both, ("lab1",)) == tuple(STOCK.hosts)
    assert left_out(both, ("lab1", *STOCK.hosts)) == ()
    rack = {name: {**LAB, "group": "rack"} for name in ("lab1", "lab2")}
    grouped = Inventory.model_validate({**STOCK.model_dump(by_alias=True), "hosts": rack})
    assert left_out(grouped, ("rack",)) == ()
    assert left_out(grouped, ("lab2",)) == ("lab1",)
    assert not_used(STOCK, ()) == ()


def test_a_machine_of_the_lab_is_used_if_it_is_asked_for() -> None:
    (cell,) = plan(with_lab("n1"), None, hosts=("lab1",), base_only=True)
    assert (cell.id, cell.af_mode, cell.cmdline) == ("lab1-vhe-base", "hardware", ("x=1",))
    with pytest.raises(UsageError, match="no host for a cell: not used: lab1"):
        plan(with_lab(), None)


def test_a_group_has_the_cells_of_one_of_its_machines() -> None:
    plain = STOCK.model_dump(by_alias=True)
    hosts = {name: {**LAB, "group": "lab"} for name in ("lab1", "lab2", "lab3")}
    stock = Inventory.model_validate({**plain, "hosts": hosts})
    assert ids(plan(stock, None, hosts=("lab",))) == ["lab-vhe-base", "lab-vhe-patched"]
    both = plan(stock, None, hosts=("lab1", "lab2"), base_only=True)
    assert ids(both) == ["lab1-vhe-base", "lab2-vhe-base"], "each that is named has its own"
