# SPDX-License-Identifier: GPL-2.0-only
"""A machine's configuration is that of its known-good kernel, read while nobody else has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from fake_machine import BACK, GOOD, TEST, FakeMachine, Ours, World
from fake_machine import machine as machine_of

from harness.errors import InfraError
from harness.hosts import aside, at_home, machine_config, own_config, recovery
from harness.hosts.machine import Running
from harness.kernel.machine import MachineConfig

FOUND = MachineConfig("CONFIG_ARM64=y\n", ())


class Bed:
    """The machine `lab`, and what was done to it, in order."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.machine: FakeMachine = machine_of(world)
        monkeypatch.setattr(at_home, "Machine", lambda *_: self.machine)
        monkeypatch.setattr(at_home, "tenant", self._tenant)
        monkeypatch.setattr(machine_config, "read", self._read)

    @contextlib.contextmanager
    def _tenant(self, machine: object, run: str, wait: float) -> Iterator[Ours]:
        assert (machine, run, wait) == (self.machine, "run-1", 5)
        self.world.done.append("taken")
        yield Ours()
        self.world.done.append("given back")

    def _read(self, shell: object, *, trim: bool) -> MachineConfig:
        self.world.done.append(f"read in {self.world.boots[0]}" + (", trimmed" if trim else ""))
        return FOUND

    def own_config(self, *, trim: bool = True) -> MachineConfig:
        host = self.machine.host.model_copy(update={"trim": trim})
        return own_config.own_config("lab", host, "run-1", 5, cast(Any, None))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


def test_it_is_read_under_a_lease_that_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([GOOD])
    assert Bed(world, monkeypatch).own_config() == FOUND
    assert world.done[0] == "taken"
    assert world.done[-2:] == [f"read in {GOOD}, trimmed", "given back"]


def test_a_kernel_of_a_run_that_died_is_left_first(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([TEST, BACK])
    assert Bed(world, monkeypatch).own_config(trim=False) == FOUND
    assert "reboot" in world.done
    assert world.done[-2] == f"read in {BACK}"


def test_nothing_is_read_of_a_machine_that_is_not_brought_home(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stays(*_: object, **__: object) -> Running:
        raise recovery.NotBack("it stays")

    monkeypatch.setattr(recovery, "bring_back", stays)
    world = World([TEST])
    with pytest.raises(recovery.NotBack):
        Bed(world, monkeypatch).own_config()
    assert not any("read" in words for words in world.done)


def test_one_that_is_set_aside_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    aside.set_aside("lab", ("sick",))
    world = World([GOOD])
    with pytest.raises(InfraError, match="sick"):
        Bed(world, monkeypatch).own_config()
    assert world.done == []
