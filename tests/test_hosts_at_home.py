# SPDX-License-Identifier: GPL-2.0-only
"""A machine that is had in its known-good kernel, or set aside; no machine needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from fake_machine import BACK, GOOD, TEST, FakeMachine, Ours, Power, World, machine

from harness.errors import InfraError
from harness.hosts import aside, at_home, away, recovery
from harness.hosts import machine as machine_module
from harness.hosts.machine import Running
from harness.hosts.recovery import NotBack
from harness.hosts.tenancy import Tenancy


class Bed:
    """A machine that a run which died has left, and the leases that were taken of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = World([TEST])
        self.lab = machine(self.world)
        self.leases: list[str] = []
        monkeypatch.setattr(Power, "world", self.world, raising=False)
        monkeypatch.setattr(recovery, "CommandPower", Power)
        monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
        monkeypatch.setattr(at_home, "Machine", lambda *_: self.lab)
        monkeypatch.setattr(at_home, "tenant", self.tenant)
        for name in ("POLL_SECONDS", "GONE_SECONDS", "OFF_SECONDS"):
            monkeypatch.setattr(recovery, name, 0.001)

    @contextlib.contextmanager
    def tenant(self, lab: FakeMachine, run: str, wait: float) -> Iterator[Ours]:
        self.leases.append(run)
        with lab.shell():
            yield Ours()

    def go(self, run: str = "run-2") -> Running:
        with at_home.at_home("lab", self.lab.host, run, 0.0, self.world.done.append) as found:
            return found[2]


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return Bed(monkeypatch)


def test_it_is_brought_out_of_the_kernel_of_a_run_that_died(bed: Bed) -> None:
    bed.world.boots = [TEST, BACK]
    assert bed.go() == BACK
    aside.require_in_use("lab")


def test_one_that_does_not_leave_it_is_set_aside(bed: Bed) -> None:
    """Else each cell would try it again, for as long as all its ways home take."""
    with pytest.raises(NotBack, match="did not come back"):
        bed.go()
    why = "in the kernel of a run that died: lab did not come back .*power off and on: "
    with pytest.raises(InfraError, match=why):
        bed.go()
    assert bed.leases == ["run-2"], "it is not even asked for the next cell"


def test_what_a_killed_run_wrote_of_it_is_forgotten_once_it_is_home(bed: Bed) -> None:
    """It would be held against the machine when it does not answer for another reason."""
    with away.answered_for("lab"):
        away.note(bed.lab, cast(Tenancy, Ours()), GOOD)
        path = away._path("lab")
        text = path.read_text()
    path.write_text(text)
    bed.world.boots = [TEST, BACK]
    assert bed.go() == BACK
    assert not path.exists()
