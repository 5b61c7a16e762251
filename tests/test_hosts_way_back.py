# SPDX-License-Identifier: GPL-2.0-only
"""A machine on its way home after a cell, and what is said of it then; no machine needed."""

from __future__ import annotations

import errno
import signal
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_machine import BACK, GOOD, TEST, Ours, Power, World, machine

from harness.errors import HostDied, HostLost, InfraError
from harness.hosts import aside, recovery, way_back
from harness.hosts import machine as machine_module
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import Running
from harness.hosts.recovery import NotBack
from harness.hosts.ssh import HostKeyChanged
from harness.hosts.tenancy import Tenancy
from harness.hosts.trip import AFTER, Tape, Trip
from harness.hosts.way_back import _both, and_back, bring_home


@pytest.mark.parametrize(
    ("ends_in", "why"),
    [
        (Running(BACK.boot_id, "Linux 6.2 #1", "c" * 64, ""), "came back with Linux 6.2 #1"),
        (None, "did not come back"),
    ],
)
def test_a_machine_that_does_not_come_home_is_set_aside(
    ends_in: Running | None, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one that comes home to another kernel than its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(recovery, "OFF_SECONDS", 0.001)
    world = World([None, ends_in])
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    died = HostDied("hang", "no answer")
    lab = machine(world)
    object.__setattr__(lab, "host", lab.host.model_copy(update={"boot": "kexec"}))
    with pytest.raises(NotBack, match=why):
        bring_home(lab, cast(Tenancy, Ours()), Trip(GOOD, jumped=True), died)
    with pytest.raises(InfraError, match=f"after no answer: .*{why}"):
        aside.require_in_use("lab")


def test_sigterm_waits_until_the_machine_is_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    def home(*_: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        done.append("home")

    monkeypatch.setattr(way_back, "bring_home", home)
    trip = Trip(GOOD, jumped=True)
    tape: Any = SimpleNamespace(next=lambda name: tmp_path / name)
    ours = cast(Tenancy, Ours())
    before = signal.signal(signal.SIGTERM, end)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            and_back(machine(World([GOOD])), ours, trip, tape, lambda: done.append("tidy")),
        ):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["home", "tidy"]


@pytest.mark.parametrize("failure", [None, HostDied("hang", "no answer")])
def test_a_full_disk_does_not_keep_a_machine_from_its_way_home(
    failure: HostDied | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not recorded for it is told, but what the cell ended with comes first."""
    done: list[str] = []
    monkeypatch.setattr(way_back, "bring_home", lambda *_: done.append("home"))

    def full(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    def tidy() -> None:
        done.append("tidy")

    trip, ours = Trip(GOOD, jumped=True), cast(Tenancy, Ours())
    tape: Any = SimpleNamespace(next=full)
    why = "no answer" if failure else "not recorded.*No space"
    with (
        pytest.raises(InfraError, match=why) as told,
        and_back(machine(World([GOOD])), ours, trip, tape, tidy),
    ):
        if failure is not None:
            raise failure
    assert done == ["home", "tidy"]
    assert isinstance(told.value, HostDied) == (failure is not None)
    with (
        pytest.raises(InfraError, match=r"not all is tidy: .*No space"),
        and_back(machine(World([GOOD])), ours, Trip(GOOD), tape, cast(Any, full)),
    ):
        pass


def test_nothing_is_recorded_for_the_leg_before(tmp_path: Path) -> None:
    """A report of the machine's own kernel in console.log would be held against the cell's."""
    made: Any = SimpleNamespace(stop=threading.Event(), switch=lambda _: None)
    tape = Tape(tmp_path / "gone", made)
    with pytest.raises(FileNotFoundError):
        tape.next(AFTER)
    assert made.stop.is_set()


def test_a_machine_that_cannot_be_set_aside_either_is_told_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def away(*_: object, **__: object) -> None:
        raise NotBack("it is not back")

    monkeypatch.setattr(aside, "set_aside", full)
    monkeypatch.setattr(way_back, "bring_back", away)
    lab = machine(World([None]))
    object.__setattr__(lab, "host", lab.host.model_copy(update={"boot": "kexec"}))
    with pytest.raises(NotBack, match=r"is not back; nor could it be set aside: .*No space"):
        bring_home(lab, cast(Tenancy, Ours()), Trip(GOOD, jumped=True), None)


PANIC = "[   99.000000] Kernel panic - not syncing: sysrq triggered crash\n"
FIRST = "[    0.000000] Booting Linux on physical CPU 0x0\n"


def ended(
    console: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None = None,
    trouble: InfraError | None = None,
    command: tuple[str, ...] | None = None,
) -> None:
    """A cell, on whose way home the machine says something."""
    monkeypatch.setattr(way_back, "bring_home", lambda *_: None)

    def tape(name: str) -> Path:
        path = tmp_path / name
        path.write_text(console)
        return path

    def tidy() -> None:
        if trouble is not None:
            raise trouble

    trip, ours = Trip(GOOD, jumped=True), cast(Tenancy, Ours())
    lab = machine(World([GOOD]))
    object.__setattr__(lab, "host", lab.host.model_copy(update={"console": command}))
    with and_back(lab, ours, trip, cast(Any, SimpleNamespace(next=tape)), tidy):
        if failure is not None:
            raise failure


def test_a_kernel_that_panics_on_its_way_down_has_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(HostDied, match=r"panicked on its way down: Kernel panic.*crash") as died:
        ended(PANIC + FIRST, tmp_path, monkeypatch)
    assert died.value.kind == "panic"
    with pytest.raises(InfraError, match=r"^before$"):
        ended(PANIC + FIRST, tmp_path, monkeypatch, InfraError("before"))
    ended(FIRST, tmp_path, monkeypatch)
    ended(FIRST + PANIC, tmp_path, monkeypatch)


def test_a_console_that_shows_nothing_on_the_way_home_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each reboot has its last words; where there is no console there is nothing to miss."""
    with pytest.raises(InfraError, match=r"console showed nothing on the way home .*console-after"):
        ended("", tmp_path, monkeypatch, command=("tail",))
    with pytest.raises(InfraError, match=r"^before$"):
        ended("", tmp_path, monkeypatch, InfraError("before"), command=("tail",))
    ended(FIRST, tmp_path, monkeypatch, command=("tail",))
    ended("", tmp_path, monkeypatch)


def test_a_panic_of_its_own_kernel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is why the machine could not be tidied up, and none of the cell's kernel."""
    lost = InfraError("the connection ended")
    with pytest.raises(InfraError, match=r"own kernel panicked: Kernel.*connection ended") as told:
        ended(FIRST + PANIC, tmp_path, monkeypatch, trouble=lost)
    assert not isinstance(told.value, HostDied)
    with pytest.raises(InfraError, match=r"^the connection ended$"):
        ended(FIRST, tmp_path, monkeypatch, trouble=lost)


def test_a_kernel_has_begun_once_it_says_so() -> None:
    trip = Trip(GOOD)
    last = "[ 1234.000000] Kernel panic - not syncing: in its owner's shutdown\n"
    assert not trip.begun(last)
    assert trip.begun(f"{last}[    0.000000] Booting Linux on physical CPU 0x0\n")
    assert trip.begun(f"[    0.000000] Kernel command line: x kvm_harness.cell={trip.cell}\n")


def test_whatever_went_before_a_machine_that_is_not_back_is_lost() -> None:
    gone = NotBack("it is not back")
    assert _both(None, gone) is gone
    for failure in (HostDied("hang", "no answer"), InfraError("no answer")):
        found = _both(failure, gone)
        assert isinstance(found, HostLost)
        assert (str(found), found.kind) == ("no answer; it is not back", "down")
    panic = _both(HostDied("panic", "Kernel panic"), gone)
    assert isinstance(panic, HostDied), "the console has shown it"
    assert not isinstance(_both(InfraError("x"), InfraError("cannot tidy")), HostLost)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A machine whose own kernel has died, and that obeys its power switch."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(recovery, "OFF_SECONDS", 0.001)
    world = World([None, BACK])
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    return world


def tidied(world: World, ours: Ours | None = None, trouble: InfraError | None = None) -> None:
    """A cell that ends in its deployment, and what is done to the machine then."""
    lab = machine(world)

    def tidy() -> None:
        with lab.shell():
            if trouble is not None:
                raise trouble
            world.done.append("tidy")

    with and_back(lab, cast(Tenancy, ours or Ours()), Trip(GOOD), cast(Any, None), tidy):
        raise InfraError("copying the kernel failed")


def test_an_own_kernel_that_died_in_the_deployment_is_reset(own: World) -> None:
    """It is none of a cell's kernel's doing, and the machine is left as it was."""
    with pytest.raises(
        InfraError, match=r"copying.* failed; its own kernel did not answer"
    ) as told:
        tidied(own)
    assert not isinstance(told.value, HostDied | HostLost)
    assert [word for word in own.done if word in ("reboot", "reset", "tidy")] == ["reset", "tidy"]
    aside.require_in_use("lab")


def test_one_that_does_not_come_back_then_is_set_aside(own: World) -> None:
    own.boots = [None]
    with pytest.raises(HostLost, match="did not come back"):
        tidied(own)
    with pytest.raises(InfraError, match="after no answer: lab did not come back"):
        aside.require_in_use("lab")


def test_one_that_answers_is_not_reset(own: World) -> None:
    own.boots = [GOOD]
    with pytest.raises(InfraError, match="failed; rm: read-only"):
        tidied(own, trouble=InfraError("rm: read-only"))
    assert "reset" not in own.done


def test_nor_is_one_that_shows_another_key_or_lets_nobody_in(
    own: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(self: World) -> None:
        raise HostKeyChanged("shows the host key")

    monkeypatch.setattr(World, "looked", refuses)
    with pytest.raises(InfraError, match="failed; shows the host key"):
        tidied(own)
    assert "reset" not in own.done


def test_nor_is_one_whose_lease_is_over(own: World) -> None:
    """It may be another's by then."""
    with pytest.raises(HostLost, match="failed; it ran out"):
        tidied(own, Ours(LeaseLost("it ran out")))
    assert "reset" not in own.done


def test_one_that_dies_once_it_is_home_is_reset_too(own: World, tmp_path: Path) -> None:
    """Then it is the boot in which it came home that must end."""
    again = Running(f"{4:036x}", GOOD.release, GOOD.notes, GOOD.cmdline)
    own.boots = [TEST, BACK]
    lab = machine(own)

    def tidy() -> None:
        if own.boots == [BACK]:
            own.boots = [None, again]
        with lab.shell():
            own.done.append("tidy")

    tape: Any = SimpleNamespace(next=lambda name: tmp_path / name)
    with (
        pytest.raises(InfraError, match="its own kernel did not answer, and was started anew"),
        and_back(lab, cast(Tenancy, Ours()), Trip(GOOD, jumped=True), tape, tidy),
    ):
        pass
    orders = [word for word in own.done if word in ("reboot", "reset", "tidy")]
    assert orders == ["reboot", "reset", "tidy"]
