# SPDX-License-Identifier: GPL-2.0-only
"""A machine that hangs since the controller of its run was killed; no machine needed."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from fake_machine import BACK, GOOD, LEASE, TEST, Ours, Power, World, machine

from harness.errors import InfraError
from harness.hosts import aside, away, recovery, revive
from harness.hosts import machine as machine_module
from harness.hosts.away import Away
from harness.hosts.leasing import LEASE_SECONDS, Held, LeaseLost
from harness.hosts.machine import Running
from harness.hosts.recovery import NotBack
from harness.hosts.ssh import HostKeyChanged, NoLogin, SshAddress
from harness.hosts.tenancy import Tenancy

FILE = "kvm-harness/away/lab.json"


class Bed:
    """A machine, the file that a killed run left of it, and what was done."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = folder / FILE
        self.world = World([None, BACK])
        self.lab = machine(self.world)
        self.ours = Ours()
        self.took: list[Held] = []
        monkeypatch.setenv("XDG_STATE_HOME", str(folder))
        monkeypatch.setattr(Power, "world", self.world, raising=False)
        monkeypatch.setattr(recovery, "CommandPower", Power)
        monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
        monkeypatch.setattr(revive, "POLL_SECONDS", 0.001)
        monkeypatch.setattr(recovery, "OFF_SECONDS", 0.001)
        monkeypatch.setattr(revive, "Tenancy", self._tenancy)
        with away.answered_for("lab"):
            away.note(self.lab, cast(Tenancy, self.ours), GOOD)
            text = self.file.read_text()
        self.file.write_text(text)
        self.let_time_pass()

    def let_time_pass(self, until: float = 0.0) -> None:
        left = Away.model_validate_json(self.file.read_text())
        self.file.write_text(left.model_copy(update={"until": until}).model_dump_json())

    def go(self, run: str = "run-2") -> list[str]:
        """The orders that the machine was given."""
        revive.revive(self.lab, run)
        return self.orders

    @property
    def orders(self) -> list[str]:
        return [word for word in self.world.done if word in ("reboot", "reset", "off", "on")]

    def _tenancy(self, lab: object, held: Held) -> Ours:
        self.took.append(held)
        return self.ours


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path, monkeypatch)


def test_what_is_written_before_a_jump(bed: Bed) -> None:
    found = away.find("lab")
    assert found is not None
    assert (found.host_key, found.good, found.lease) == ("ssh-ed25519 AAAA", GOOD, LEASE)
    with away.answered_for("lab"):
        away.note(bed.lab, cast(Tenancy, bed.ours), GOOD)
        found = away.find("lab")
        assert found is not None and 50 < found.until - time.time() <= 60
    assert not bed.file.exists(), "whatever became of the machine, this process has told it"


def test_it_is_reset_and_the_file_is_gone(bed: Bed) -> None:
    assert bed.go() == ["reset"]
    assert bed.world.boots == [BACK]
    assert not bed.file.exists()
    assert "the run run-1 was killed while the machine was in a kernel of its" in bed.world.done[0]
    assert bed.took[0].paper()[0] == LEASE, "which the machine has still, and anew from its boot on"
    assert bed.ours.ended


def test_one_that_answers_is_left_to_its_lease(bed: Bed) -> None:
    """Whoever has that then brings it home by SSH."""
    for seen in (TEST, GOOD):
        bed.world.boots = [seen]
        assert bed.go() == []
        assert bed.file.exists()


def test_so_is_one_that_answers_after_a_while(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's run may have booted it just then."""
    looks: list[int] = []

    def looked(self: World) -> None:
        looks.append(1)
        if len(looks) == 3:
            self.boots.pop(0)

    monkeypatch.setattr(World, "looked", looked)
    assert bed.go() == []
    assert bed.world.done[-1] == "it answers again"


def refused(*_: object) -> NoLogin:
    return NoLogin("x", SshAddress("lab", 22, "root", "", None), refused=True)


def of_the_jump_host(*_: object) -> NoLogin:
    return NoLogin("x", SshAddress("gate", 22, "root", "", None), refused=False)


@pytest.mark.parametrize(
    "seen",
    [refused, of_the_jump_host, HostKeyChanged, lambda _: InfraError("refused the key")],
)
def test_nor_is_one_touched_that_is_not_silent(
    seen: Callable[[str], Exception], bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def looked(self: World) -> None:
        raise seen("x")

    monkeypatch.setattr(World, "looked", looked)
    assert bed.go() == []
    assert bed.file.exists()


def test_nor_one_with_another_key(bed: Bed) -> None:
    object.__setattr__(bed.lab, "pins", {"[lab]:22": "ssh-ed25519 BBBB"})
    assert bed.go() == []


def test_nor_one_that_is_set_aside(bed: Bed) -> None:
    aside.set_aside("lab", ("it lost a fan",))
    assert bed.go() == []


def test_nor_one_of_which_nothing_is_written(bed: Bed) -> None:
    bed.file.unlink()
    assert bed.go() == []
    assert bed.world.done == []


def test_a_living_process_brings_its_machine_home_itself(bed: Bed) -> None:
    with (
        away.alone("lab", 0),
        pytest.raises(
            InfraError, match=r"no answer; .*another kvm-harness that works on lab, whose"
        ),
    ):
        bed.go()
    assert bed.orders == []


def test_as_long_as_the_lease_may_hold_another_run_is_refused(bed: Bed) -> None:
    bed.let_time_pass(time.time() - LEASE_SECONDS + 60)
    with pytest.raises(
        InfraError, match=r"no answer; the run run-1 was killed .*lease may hold until"
    ):
        bed.go()
    assert bed.orders == []


def test_and_the_same_run_waits(bed: Bed) -> None:
    bed.let_time_pass(time.time() - LEASE_SECONDS + 0.5)
    started = time.monotonic()
    assert bed.go("run-1") == ["reset"]
    assert time.monotonic() - started > 0.3


def test_without_a_power_switch_it_is_said_who_has_to(bed: Bed) -> None:
    host = bed.lab.host.model_copy(update={"power": None})
    object.__setattr__(bed.lab, "host", host)
    with pytest.raises(InfraError, match="no power switch for it: reset it by hand"):
        bed.go()
    assert bed.file.exists()


def test_a_damaged_file_resets_nothing(bed: Bed) -> None:
    bed.file.write_text("{")
    with pytest.raises(InfraError, match=r"away/lab\.json, .*is damaged; see to the machine"):
        bed.go()
    assert bed.orders == []


@pytest.mark.parametrize("then", [None, Running(BACK.boot_id, "Linux 6.2 #1", "c" * 64, "")])
def test_one_that_does_not_come_back_is_set_aside(then: Running | None, bed: Bed) -> None:
    bed.world.boots = [None, then]
    with pytest.raises(NotBack):
        bed.go()
    with pytest.raises(InfraError, match="after no answer: lab "):
        aside.require_in_use("lab")
    assert not bed.file.exists()


def test_one_that_turns_out_to_be_anothers_is_left(bed: Bed) -> None:
    """Its lease is seen once it answers."""
    bed.ours.lost_at = 1
    with pytest.raises(LeaseLost):
        bed.go()
    assert bed.orders == ["reset"]
    assert not bed.file.exists()
