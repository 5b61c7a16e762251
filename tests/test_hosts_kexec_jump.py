# SPDX-License-Identifier: GPL-2.0-only
"""The jump into the kernel of a cell, from its console to its watchdog; no machine needed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fake_machine import GOOD, TEST, FakeMachine, FakeShell, Ours, World, machine

from harness.deadline import Deadline
from harness.errors import ConnectionCut, InfraError
from harness.hosts import away, examine, grub, userspace, watchdog
from harness.hosts import machine as machine_module
from harness.hosts.health import Health
from harness.hosts.kexec import IMAGE, JUMP, LabHost, _there
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import LONGEST_SECONDS
from harness.hosts.protocols import Boot, Result
from harness.hosts.recovery import POWER_SECONDS
from harness.hosts.tenancy import Tenancy
from harness.hosts.trip import BEFORE, Tape, Trip

HEALTH = cast(Health, SimpleNamespace(cpus=(0, 1, 8, 9)))


class Feeder:
    """What feeds the watchdog on the machine; without one it ends at once."""

    def __init__(self, world: World, *, device: bool) -> None:
        self._world, self._device = world, device

    def receive(self, deadline: Deadline) -> str:
        if not self._device:
            raise EOFError
        self._world.done.append("watchdog fed")
        return "armed"

    def send(self, line: str) -> None:
        pass

    def close(self) -> None:
        self._world.done.append("feeder ended")


class Bed:
    """A machine that obeys, and the files of its cell."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.world = World([GOOD, TEST])
        self.ours = Ours()
        self.lab: FakeMachine = machine(self.world)
        self.device = True
        """Whether the kernel of the cell has a watchdog."""
        self.shown = True
        """Whether the console shows what the kernel logs."""
        self.answers = True
        self.given = ""
        """What kexec was told."""
        monkeypatch.setattr(FakeShell, "other", lambda shell, command: self._run(shell, command))
        monkeypatch.setattr(FakeShell, "put", lambda _, __, remote: self._done(f"put {remote}"))
        monkeypatch.setattr(FakeShell, "start", lambda _, argv: self._start(argv))
        monkeypatch.setattr(userspace, "prepare", lambda *_: self._done("user space"))
        monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
        monkeypatch.setenv("XDG_STATE_HOME", str(folder))

    def host(self, **keys: object) -> None:
        """Write keys into the inventory."""
        object.__setattr__(self.lab, "host", self.lab.host.model_copy(update=keys))

    @contextlib.contextmanager
    def there(self, seconds: float = 0.05) -> Iterator[LabHost]:
        wanted = Boot(self.folder / "Image", (), {}, self.folder, "run-1", seconds)
        tape, trip = Tape(self.folder, None), Trip(GOOD, cell=TEST.cell)
        tape.next(BEFORE)
        ours = cast(Tenancy, self.ours)
        jump = contextlib.contextmanager(_there)
        with (
            away.answered_for("lab"),
            jump(self.lab, ours, trip, tape, wanted, HEALTH) as lab,
        ):
            yield lab

    def _done(self, words: str) -> None:
        self.world.done.append(words)

    def _run(self, shell: FakeShell, command: str) -> Result:
        if not self.answers:
            shell.connected = False
            raise InfraError("the connection ended")
        if command == JUMP:
            assert away.there("lab"), "the controller may be killed from here on"
            self.world.order("jump")
        elif "/dev/kmsg" in command:
            self._done("said to the kernel")
            if self.shown:
                (self.folder / BEFORE).write_text(command)
        elif command == watchdog._ARM:
            self._done("device opened")
        elif command.startswith("kexec -a -l "):
            self._done("loaded")
            self.given = command
        return Result(command, 0, "", "")

    def _start(self, argv: Sequence[str]) -> Feeder:
        assert argv[-1] == watchdog._FEED and self.world.boots[0] == TEST
        return Feeder(self.world, device=self.device)


@pytest.fixture
def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bed:
    return Bed(tmp_path, monkeypatch)


def test_each_step_of_a_jump(bed: Bed) -> None:
    with bed.there() as lab:
        assert bed.ours.renewed == 1, "in the new boot, where nobody sees yet whose it is"
        lab.shell.run("true")
        bed._done("cell")
    assert bed.world.done == [
        *("copying the kernel", f"put {IMAGE}", "loaded", "jump", "kexec ordered"),
        *("runs the kernel of the cell", "watchdog fed", "user space", "cell", "feeder ended"),
    ]


def test_the_last_cpu_that_is_online_gets_no_tick(bed: Bed) -> None:
    """Of four, the one with the highest number."""
    with bed.there():
        pass
    assert "nohz_full=9 isolcpus=domain,9 rcu_nocbs=9" in bed.given


def test_the_lease_outlasts_a_hang_and_a_reset_in_vain(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    longer: list[float] = []
    vain = 700 + POWER_SECONDS + LONGEST_SECONDS
    monkeypatch.setattr(bed.ours, "hold", lambda seconds, slowdown: longer.append(seconds))
    for power in (None, bed.lab.host.power):
        bed.world.boots = [GOOD, TEST]
        bed.host(power=power, back_seconds=700)
        with bed.there():
            pass
    assert longer[1] - longer[0] == vain


@pytest.mark.parametrize(("boot", "vain"), [("kexec", 1), ("grub", 2)])
def test_the_lease_outlasts_a_boot_and_all_resets_in_vain(
    boot: str, vain: int, bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody renews it from the jump on if the kernel never comes up: its end is the last resort.

    As long as hold() asks for is not enough where a boot takes longer than a hang is noticed in.
    """
    asked: list[float] = []

    def away(shell: object, seconds: float) -> None:
        asked.append(seconds)
        raise InfraError("seen")

    monkeypatch.setattr(bed.ours, "away", away)
    monkeypatch.setattr(grub, "load", lambda *_: None)
    bed.host(boot=boot, back_seconds=900)
    with pytest.raises(InfraError, match="seen"), bed.there(seconds=600):
        pass
    each = POWER_SECONDS + 900 + LONGEST_SECONDS
    assert asked == [600 + LONGEST_SECONDS + vain * each]


def test_its_console_is_seen_before_anything_is_put_on_it(bed: Bed) -> None:
    bed.host(console=("tail",))
    with bed.there():
        pass
    assert bed.world.done[:2] == ["said to the kernel", "copying the kernel"]


def test_one_whose_console_shows_nothing_is_left_as_it_is(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examine, "CONSOLE_SECONDS", 0.1)
    bed.host(console=("tail",))
    bed.shown = False
    with pytest.raises(InfraError, match=re.escape(BEFORE)), bed.there():
        pass
    assert set(bed.world.done) == {"said to the kernel"}


def test_one_that_another_took_while_it_booted_is_left_alone(bed: Bed) -> None:
    """The renewal in the new boot is what finds out."""
    bed.ours.lost_at = 1
    with pytest.raises(LeaseLost), bed.there():
        pass
    assert bed.world.done[-1] == "runs the kernel of the cell"


def test_one_without_a_watchdog_is_fed_by_nobody(bed: Bed) -> None:
    bed.device = False
    with bed.there():
        pass
    assert "watchdog fed" not in bed.world.done


def test_one_that_was_armed_before_the_jump_must_be_fed_after_it(bed: Bed) -> None:
    bed.host(watchdog=True)
    bed.device = False
    with pytest.raises(InfraError, match="this kernel has no driver for it"), bed.there():
        pass
    assert bed.world.done[-5:-1] == ["device opened", "watchdog armed", "jump", "kexec ordered"]


def test_it_is_fed_over_the_next_connection_when_one_is_lost(bed: Bed) -> None:
    with bed.there() as lab:
        bed.answers = False
        with pytest.raises(ConnectionCut):
            lab.shell.run("true")
        assert bed.world.done.count("watchdog fed") == 2
    assert bed.world.done.count("feeder ended") == 2
