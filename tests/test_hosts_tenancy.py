# SPDX-License-Identifier: GPL-2.0-only
"""A machine is had for a cell: leases by this machine's own sh, in folders of the tests' own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_machine import BACK, GOOD, TEST, FakeShell, Power, World
from fake_machine import machine as machine_of
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import leasing, recovery, tenancy
from harness.hosts.lease import Place
from harness.hosts.leasing import LEASE_SECONDS, Busy, Held, look, take
from harness.hosts.machine import Running
from harness.hosts.ssh import HostKeyChanged
from harness.hosts.trip import Trip

SHELL = LocalShell()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(str(tmp_path / "lease"), str(tmp_path / "motd"))
    monkeypatch.setattr(tenancy, "take", lambda *args, **named: take(*args, **named, place=made))
    monkeypatch.setattr(tenancy, "look", lambda shell: look(shell, made))
    return made


@contextlib.contextmanager
def shell(*_: object) -> Iterator[LocalShell]:
    yield SHELL


def machine(said: list[str]) -> Any:
    return SimpleNamespace(shell=shell, say=said.append)


def test_it_is_taken_kept_through_a_boot_and_given_back(place: Place) -> None:
    said: list[str] = []
    with tenancy.tenant(machine(said), "run-1", 0) as ours:
        ours.check()
        with ours.away(SHELL, 500):
            left = look(SHELL, place).left
            assert LEASE_SECONDS + 490 < left <= LEASE_SECONDS + 500
        ours.renew(SHELL)
        assert look(SHELL, place).left <= LEASE_SECONDS
        with pytest.raises(Busy, match="run-1"):
            take(SHELL, "run-2", place=place)
    assert look(SHELL, place).left == 0
    assert said == ["lease taken", "lease given back"]


def test_nobody_renews_it_while_it_boots(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    going: list[int] = []

    @contextlib.contextmanager
    def renewing(*_: object, **__: object) -> Iterator[None]:
        going.append(1)
        yield
        going.pop()

    monkeypatch.setattr(Held, "renewing", renewing)
    with tenancy.tenant(machine([]), "run-1", 0) as ours:
        assert going == [1]
        with ours.away(SHELL, 5):
            assert going == []
        assert going == [1]
    assert going == []


def test_a_hang_that_is_noticed_late_still_ends_in_a_reset(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel that hangs answers no renewal, so the lease outlasts the longest check."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    now = [1000.0]
    held = Held(
        take(SHELL, "run-1", place=place)._lease,
        1000.0 + LEASE_SECONDS,
        place,
        None,
        lambda: now[0],
    )
    monkeypatch.setattr(FakeShell, "other", lambda _, command: SHELL.run(command))
    world = World([TEST, BACK])
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    lab = machine_of(world)
    ours = tenancy.Tenancy(lab, held)
    ours.hold(200)
    with ours.away(SHELL, 10):
        pass
    now[0] += 180
    assert recovery.bring_back(lab, ours, GOOD, answers=False) == BACK
    assert "reset" in world.done
    assert look(SHELL, place).left <= LEASE_SECONDS, "as usual again, once it is home"
    ours.end()


def test_it_is_given_back_after_an_error(place: Place) -> None:
    with pytest.raises(InfraError, match="x"), tenancy.tenant(machine([]), "run-1", 0):
        raise InfraError("x")
    assert look(SHELL, place).left == 0


def test_anothers_is_refused_and_a_dead_cells_of_the_same_run_waited_for(place: Place) -> None:
    take(SHELL, "run-1", place=place, seconds=1)
    with pytest.raises(Busy, match="run-1"), tenancy.tenant(machine([]), "run-2", 0):
        pass
    with tenancy.tenant(machine([]), "run-1", 0) as ours:
        ours.check()


def test_who_waits_is_not_put_off_by_the_holders_boot(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which cuts every connection, and leaves the machine without an answer for a while."""
    monkeypatch.setattr(leasing, "POLL_SECONDS", 0.01)
    holder = take(SHELL, "run-1", place=place)
    opened: list[int] = []

    @contextlib.contextmanager
    def opens(*_: object) -> Iterator[LocalShell]:
        opened.append(1)
        if len(opened) in (1, 3):
            raise InfraError("no answer")
        if len(opened) == 4:
            holder.release(SHELL)
        yield SHELL

    waiting = SimpleNamespace(shell=opens, say=print)
    with tenancy.tenant(cast(Any, waiting), "run-2", 60) as ours:
        ours.check()
        assert len(opened) == 4
    with pytest.raises(InfraError, match="no answer"):
        opened.clear()
        with tenancy.tenant(cast(Any, waiting), "run-2", 0):
            pass


def test_a_new_host_key_is_not_waited_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def changed() -> None:
        raise HostKeyChanged("another key")

    monkeypatch.setattr(leasing, "POLL_SECONDS", 0.01)
    with pytest.raises(HostKeyChanged):
        leasing.waited(changed, Deadline(60))


def test_a_kernel_is_known_by_its_mark() -> None:
    good = Running("a" * 36, "Linux 6.1", "0" * 64, "root=/dev/sda")
    trip = Trip(good)
    assert not trip.arrived(good)
    own = Running("b" * 36, "Linux 6.12", "1" * 64, f"root=/dev/sda kvm_harness.cell={trip.cell}")
    assert trip.arrived(own)
    assert trip.cell != Trip(good).cell
    for other in ("root=/dev/sda", "root=/dev/sda kvm_harness.cell=ffffffffffffffff"):
        with pytest.raises(InfraError, match="in another boot already"):
            trip.arrived(Running("c" * 36, "Linux 6.1", "0" * 64, other))


def test_another_process_takes_it_over_by_its_token(place: Place) -> None:
    """That of a run that was killed, after the machine was reset."""
    lease, left = take(SHELL, "run-1", place=place).paper()
    assert LEASE_SECONDS - 5 < left <= LEASE_SECONDS
    again = Held(lease, math.inf, place, None)
    again.renew(SHELL)
    assert look(SHELL, place).left > LEASE_SECONDS - 5
    again.release(SHELL)
    assert look(SHELL, place).left == 0
