# SPDX-License-Identifier: GPL-2.0-only
"""A sick machine is kept out until it is put back, one in use only while it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import aside, gate
from harness.hosts.health import Health, Process
from harness.hosts.protocols import Shell

WELL = Health(0, 1 << 40, 1 << 36, 1 << 36, 0.0, (0, 1), (), (), (), ())
FULL = replace(WELL, disk_free=0)
USED = replace(WELL, vms=(Process(7, "qemu"),))


class Machine:
    """Is as it is said to be; the script that asks and what reads it have tests of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(folder))
        monkeypatch.setattr(gate, "examine", self._examine)
        self.health = WELL

        monkeypatch.setattr(gate, "PAUSE_SECONDS", 0.0)
        self.later: list[Health] = []

    def _examine(self, shell: Shell) -> Health:
        now = self.health
        if self.later:
            self.health = self.later.pop(0)
        return now


class Up(UnaskedShell):
    """Was started so many seconds ago."""

    def __init__(self, seconds: str) -> None:
        self.seconds = seconds

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert path == "/proc/uptime"
        return f"{self.seconds} 1.00\n"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path)


def test_a_machine_that_is_well_is_admitted(machine: Machine) -> None:
    assert gate.admit("altra", UnaskedShell()) == WELL
    assert gate.dismiss("altra", UnaskedShell(), WELL) == ()


def test_a_sick_machine_is_out_until_it_is_put_back(machine: Machine) -> None:
    machine.health = replace(FULL, vms=USED.vms)
    with pytest.raises(InfraError, match=r"disk has 0 MiB free.*; it runs VMs"):
        gate.admit("altra", UnaskedShell())
    machine.health = WELL
    with pytest.raises(InfraError, match=r"set aside since .* disk has 0 MiB free"):
        gate.admit("altra", UnaskedShell())
    found = aside.find("altra")
    assert found is not None
    assert len(found.reasons) == 1, "that somebody uses it is no illness"


def test_a_machine_in_use_is_out_while_it_is(machine: Machine) -> None:
    machine.health = USED
    with pytest.raises(InfraError, match="altra is not fit for tests: it runs VMs: qemu"):
        gate.admit("altra", UnaskedShell())
    machine.health = WELL
    gate.admit("altra", UnaskedShell())


def test_the_load_of_a_start_is_waited_for(machine: Machine) -> None:
    machine.health, machine.later = replace(WELL, load=4.0), [replace(WELL, load=2.0), WELL]
    assert gate.admit("altra", Up("70.55")) == WELL


@pytest.mark.parametrize("up", ["301.00", "nonsense"])
def test_a_load_that_is_no_starts_is_not(up: str, machine: Machine) -> None:
    machine.health, machine.later = replace(WELL, load=4.0), [WELL]
    with pytest.raises(InfraError, match=r"it is busy: load 4\.00|nonsense"):
        gate.admit("altra", Up(up))


def test_nor_is_one_for_ever(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "SETTLE_SECONDS", 0.0)
    machine.health = replace(WELL, load=4.0)
    with pytest.raises(InfraError, match="it is busy"):
        gate.admit("altra", Up("70.55"))


def test_a_machine_that_a_run_made_sick_is_set_aside(machine: Machine) -> None:
    machine.health = FULL
    (left,) = gate.dismiss("altra", UnaskedShell(), WELL)
    assert "of disk are gone" in left
    with pytest.raises(InfraError, match="set aside"):
        aside.require_in_use("altra")


def test_a_machine_that_a_cell_reported_to_be_sick_is_set_aside(machine: Machine) -> None:
    """Its known-good kernel, which has booted since, knows nothing of that."""
    assert gate.dismiss("altra", UnaskedShell(), WELL, ("Memory failure: 0x1: x",)) == ()
    with pytest.raises(InfraError, match=r"kernel of a cell reported: Memory failure: 0x1: x"):
        aside.require_in_use("altra")


def test_what_is_left_on_a_machine_that_is_well_is_told(machine: Machine) -> None:
    machine.health = replace(WELL, tainted=1 << 9)
    assert gate.dismiss("altra", UnaskedShell(), WELL) == ("new taints: kernel issued warning",)
    aside.require_in_use("altra")
