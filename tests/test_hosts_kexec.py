# SPDX-License-Identifier: GPL-2.0-only
"""What a trip into another kernel does to a machine, step by step; no machine needed."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_machine import BACK, GOOD, Ours, Power, World, machine
from fake_shell import UnaskedShell

from harness.errors import HostDied, HostLost, InfraError
from harness.hosts import aside, at_home, deploy, gate, kexec, pstore, recovery
from harness.hosts import machine as machine_module
from harness.hosts.kexec import (
    IMAGE,
    LEFT,
    PSTORE,
    _and_back,
    _both,
    _bring_home,
    _deployed,
    _load,
    _tidy,
    _to_be_had,
    _Trip,
    boot,
)
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import Running
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Boot
from harness.hosts.recovery import NotBack
from harness.hosts.tenancy import Tenancy


def lost() -> Tenancy:
    return cast(Tenancy, Ours(LeaseLost("it is x's")))


class Copied(UnaskedShell):
    """Takes a file, and is asked to load no kernel."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, command: str, *_: Any, **__: Any) -> Any:
        assert command.startswith("mkdir ")

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.done.append(remote)


def test_what_is_anothers_is_not_tidied_up(tmp_path: Path) -> None:
    """FakeShell fails the test on any command."""
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    with pytest.raises(LeaseLost):
        _tidy(machine(World([GOOD])), lost(), wanted, cast(Any, None), frozenset())


def test_no_kernel_is_loaded_on_it(tmp_path: Path) -> None:
    shell, wanted = Copied(), Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    with pytest.raises(LeaseLost):
        _load(shell, lost(), None, wanted, "")
    assert shell.done == [IMAGE]


def recorded(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    """What _clear(), gate and pstore do to a machine is written down instead."""
    monkeypatch.setattr(kexec, "_clear", lambda _: done.append("clear"))

    def collect(_: object, before: frozenset[str], folder: Path) -> None:
        done.append(f"crashes but {sorted(before)} to {folder.name}")

    def dismiss(*_: object) -> tuple[str, ...]:
        done.append("health")
        return ("1 GiB is gone",)

    monkeypatch.setattr(pstore, "collect", collect)
    monkeypatch.setattr(gate, "dismiss", dismiss)


def test_a_machine_is_tidied_up_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    recorded(monkeypatch, done)
    wanted, ours = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0), cast(Tenancy, Ours())
    before = cast(Any, None)
    _tidy(machine(World([GOOD])), ours, wanted, before, frozenset({"/old"}))
    assert done == ["clear", f"crashes but ['/old'] to {PSTORE}", "health"]
    assert (tmp_path / LEFT).read_text() == "1 GiB is gone\n"


def test_what_a_dead_run_left_is_removed_before_all_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a machine that is set aside, or not well, is lost to the cell before it is rehearsed."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done: list[str] = []
    recorded(monkeypatch, done)

    @contextlib.contextmanager
    def tenant(*_: object) -> Iterator[Ours]:
        done.append("lease")
        yield Ours()

    def admit(*_: object) -> None:
        done.append("admit")
        raise InfraError("it is sick")

    monkeypatch.setattr(at_home, "tenant", tenant)
    monkeypatch.setattr(at_home, "Machine", lambda *_: machine(World([GOOD])))
    monkeypatch.setattr(gate, "admit", admit)
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    host = machine(World([GOOD])).host
    with pytest.raises(HostLost, match="it is sick"), boot("lab", host, wanted):
        pass
    assert done == ["lease", "clear", "admit"]
    aside.set_aside("lab", ("it lost a fan",))
    with pytest.raises(HostLost, match="it lost a fan"), boot("lab", host, wanted):
        pass
    assert done == ["lease", "clear", "admit"], "nobody went there"


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
    world = World([None, ends_in])
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    died = HostDied("hang", "no answer")
    lab = machine(world)
    object.__setattr__(lab, "host", lab.host.model_copy(update={"boot": "kexec"}))
    with pytest.raises(NotBack, match=why):
        _bring_home(lab, cast(Tenancy, Ours()), _Trip(GOOD, jumped=True), died)
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

    monkeypatch.setattr(kexec, "_bring_home", home)
    trip = _Trip(GOOD, jumped=True)
    tape: Any = SimpleNamespace(next=lambda name: tmp_path / name)
    ours = cast(Tenancy, Ours())
    before = signal.signal(signal.SIGTERM, end)
    try:
        with (
            pytest.raises(KeyboardInterrupt),
            _and_back(machine(World([GOOD])), ours, trip, tape, lambda: done.append("tidy")),
        ):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done == ["home", "tidy"]


PANIC = "[   99.000000] Kernel panic - not syncing: sysrq triggered crash\n"
FIRST = "[    0.000000] Booting Linux on physical CPU 0x0\n"


def ended(
    console: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failure: Exception | None = None,
    trouble: InfraError | None = None,
) -> None:
    """A cell, on whose way home the machine says something."""
    monkeypatch.setattr(kexec, "_bring_home", lambda *_: None)

    def tape(name: str) -> Path:
        path = tmp_path / name
        path.write_text(console)
        return path

    def tidy() -> None:
        if trouble is not None:
            raise trouble

    trip, ours = _Trip(GOOD, jumped=True), cast(Tenancy, Ours())
    with _and_back(machine(World([GOOD])), ours, trip, cast(Any, SimpleNamespace(next=tape)), tidy):
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


def test_a_panic_of_its_own_kernel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is why the machine could not be tidied up, and none of the cell's kernel."""
    lost = InfraError("the connection ended")
    with pytest.raises(InfraError, match=r"own kernel panicked: Kernel.*connection ended") as told:
        ended(FIRST + PANIC, tmp_path, monkeypatch, trouble=lost)
    assert not isinstance(told.value, HostDied)
    with pytest.raises(InfraError, match=r"^the connection ended$"):
        ended(FIRST, tmp_path, monkeypatch, trouble=lost)


def test_a_kernel_has_begun_once_it_says_so() -> None:
    trip = _Trip(GOOD)
    last = "[ 1234.000000] Kernel panic - not syncing: in its owner's shutdown\n"
    assert not trip.begun(last)
    assert trip.begun(f"{last}[    0.000000] Booting Linux on physical CPU 0x0\n")
    assert trip.begun(f"[    0.000000] Kernel command line: x kvm_harness.cell={trip.cell}\n")


@pytest.mark.parametrize(
    ("modules", "named", "made", "initrd"),
    [
        (False, None, "/w/initramfs.img", None),
        (False, "/boot/initrd.img", "/w/initramfs.img", "/boot/initrd.img"),
        (True, None, "/w/initramfs.img", "/w/initramfs.img"),
        (True, None, None, None),
        (True, "/boot/initrd.img", None, "/boot/initrd.img"),
    ],
)
def test_which_initramfs_a_kernel_starts_with(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    modules: bool,
    named: str | None,
    made: str | None,
    initrd: str | None,
) -> None:
    asked: list[object] = []

    def put(_: object, archive: Path, release: str, folder: str, *, make: bool) -> str | None:
        asked.append((archive, release, folder, make))
        return made if make else None

    monkeypatch.setattr(deploy, "deploy", put)
    reached = machine(World([GOOD]))
    object.__setattr__(reached, "host", reached.host.model_copy(update={"initrd": named}))
    archive = tmp_path / "modules.tar.gz" if modules else None
    release = "6.12-kvmharness-0123456789ab"
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0, modules=archive, release=release)
    assert _deployed(cast(Any, None), reached, wanted) == initrd
    assert asked == ([(archive, release, PROGRAMS, named is None)] if modules else [])


def test_a_machine_that_cannot_be_had_is_lost_by_no_doing_of_the_cell() -> None:
    for error in (InfraError("no answer"), LeaseLost("it is x's"), NotBack("it is gone")):
        with pytest.raises(HostLost) as caught, _to_be_had():
            raise error
        assert (str(caught.value), caught.value.kind) == (str(error), "unavailable")
    with pytest.raises(KeyboardInterrupt), _to_be_had():
        raise KeyboardInterrupt


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
