# SPDX-License-Identifier: GPL-2.0-only
"""A machine is brought back to its known-good kernel, or said not to be; no machine needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import cast

import pytest
from fake_machine import BACK, GOOD, TEST, Ours, Power, World, machine
from local_shell import LocalShell

from harness.errors import InfraError
from harness.hosts import aside, bootargs, recovery, rehearsal
from harness.hosts import machine as machine_module
from harness.hosts.kexec import JUMP
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import Running
from harness.hosts.recovery import REBOOT, NotBack, bring_back
from harness.hosts.rehearsal import find, rehearse, require_same
from harness.hosts.tenancy import Tenancy


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)
    for name in ("POLL_SECONDS", "GONE_SECONDS", "OFF_SECONDS"):
        monkeypatch.setattr(recovery, name, 0.001)


def go(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    *,
    answers: bool,
    power: bool = True,
    ours: Ours | None = None,
) -> Running:
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    tenancy = cast(Tenancy, ours or Ours())
    return bring_back(machine(world, power=power), tenancy, GOOD, answers=answers)


def test_a_kernel_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([TEST, BACK])
    ours = Ours()
    assert go(world, monkeypatch, answers=True, ours=ours) == BACK
    assert [word for word in world.done if word in ("reboot", "reset")] == ["reboot"]
    assert ours.renewed == 2, "before the boot and after it"


def test_one_that_does_not_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([None, BACK])
    assert go(world, monkeypatch, answers=False) == BACK
    assert [word for word in world.done if word in ("reboot", "reset")] == ["reset"]


@pytest.mark.parametrize("stuck", [TEST, None, GOOD])
def test_a_reboot_that_does_not_happen_is_followed_by_a_reset(
    stuck: Running | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a kernel of ours counts for the known-good one, nor the boot from before."""
    world = World([TEST, stuck, BACK])
    assert go(world, monkeypatch, answers=True) == BACK
    assert [word for word in world.done if word in ("reboot", "reset")] == ["reboot", "reset"]


@pytest.mark.parametrize("answers", [True, False])
def test_without_a_power_switch_it_is_waited_for(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was asked to reboot in vain before, or was not worth asking."""
    world = World([None, None, BACK])
    monkeypatch.setattr(World, "looked", lambda self: self.order("looked"))
    assert go(world, monkeypatch, answers=answers, power=False) == BACK


def test_a_reboot_that_cuts_the_connection_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([TEST, BACK], cut=True)
    assert go(world, monkeypatch, answers=True) == BACK
    assert "reset" not in world.done


@pytest.mark.parametrize("power", [True, False])
def test_a_full_disk_keeps_no_machine_from_its_reboot(
    power: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease that cannot be written has the time that is left, as for a reset."""

    class Full(Ours):
        def renew(self, shell: object, seconds: float = 0.0) -> None:
            super().renew(shell, seconds)
            if self.renewed == 1:
                raise InfraError("No space left on device")

    world = World([TEST, BACK])
    assert go(world, monkeypatch, answers=True, power=power, ours=Full()) == BACK
    assert "lease not renewed: No space left on device" in world.done
    assert "reboot ordered" in world.done and "reset" not in world.done


def test_one_that_is_back_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([BACK])
    assert go(world, monkeypatch, answers=True, power=False) == BACK
    assert "reset" not in world.done
    assert "it is back already" in world.done and "reboot ordered" not in world.done


def test_a_machine_that_is_lost_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([TEST, None])
    with pytest.raises(NotBack, match=r"did not come back .*\(reboot: .*; then reset: .*no answer"):
        go(world, monkeypatch, answers=True)
    with pytest.raises(NotBack, match=r"\(no power switch, so panic= or a watchdog: .*no answer"):
        go(World([None]), monkeypatch, answers=False, power=False)


def test_one_whose_switch_does_not_obey_may_come_by_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World([None, BACK])

    def fails(*_: object) -> None:
        world.order("panic=")
        raise InfraError("the switch is broken")

    monkeypatch.setattr(Power, "reset", fails)
    assert go(world, monkeypatch, answers=False) == BACK
    assert "reset ordered" not in world.done
    world.boots = [None]
    with pytest.raises(NotBack, match=r"reset: the switch is broken; then panic= or a watchdog: "):
        go(world, monkeypatch, answers=False)


def test_one_that_is_off_takes_no_reset_and_is_switched_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuses(*_: object) -> None:
        raise InfraError("not supported in present state")

    monkeypatch.setattr(Power, "reset", refuses)
    world = World([None, BACK])
    assert go(world, monkeypatch, answers=False) == BACK
    assert "on" in world.done

    def fails(*_: object) -> None:
        raise InfraError("no session")

    monkeypatch.setattr(Power, "on", fails)
    words = r"reset: not supported .*; then power on: no session; then panic= or a watchdog: "
    with pytest.raises(NotBack, match=words):
        go(World([None]), monkeypatch, answers=False)


def orders(world: World) -> list[str]:
    return [word for word in world.done if word in ("reboot", "reset", "off", "on")]


@pytest.mark.parametrize("stuck", [None, TEST])
def test_a_reset_that_was_taken_and_does_nothing_is_followed_by_power_off_and_on(
    stuck: Running | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World([stuck, stuck, None, BACK])
    assert go(world, monkeypatch, answers=False) == BACK
    assert orders(world) == ["reset", "off", "on"]
    assert "power off and on ordered" in world.done


def test_a_machine_that_hangs_is_lost_only_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([None])
    with pytest.raises(NotBack, match=r"\(reset: .*; then power off and on: .*no answer"):
        go(world, monkeypatch, answers=False)
    assert orders(world) == ["reset", "off", "on"]


def test_it_is_off_for_a_while_before_it_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted from when it answers no more."""
    world = World([TEST, TEST, TEST, None, BACK])

    def pause(seconds: float) -> None:
        if seconds == recovery.POLL_SECONDS and world.done[-1] in ("off", "polled"):
            world.order("polled")
        elif seconds == recovery.OFF_SECONDS:
            world.done.append("waited")

    monkeypatch.setattr(recovery, "POLL_SECONDS", 1.25)
    monkeypatch.setattr(recovery, "OFF_SECONDS", 7.5)
    monkeypatch.setattr(recovery, "GONE_SECONDS", 20.0)
    monkeypatch.setattr(time, "sleep", pause)
    assert go(world, monkeypatch, answers=False) == BACK
    said = [word for word in world.done if word in ("off", "polled", "waited", "on")]
    assert said == ["off", "polled", "waited", "on"]


def test_one_that_cannot_be_switched_off_is_told_to_be_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its controller may take a reset of a machine that is off, and do nothing."""

    def fails(*_: object) -> None:
        raise InfraError("it is off already")

    monkeypatch.setattr(Power, "off", fails)
    world = World([None, None, BACK])
    assert go(world, monkeypatch, answers=False) == BACK
    assert orders(world) == ["reset", "on"]
    assert "power off: it is off already" in world.done


def test_power_is_not_touched_when_the_lease_ran_out_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is lost for us all the same, and set aside for it."""
    world, ours = World([None]), Ours()

    def check() -> None:
        if any(word.startswith("reset: ") for word in world.done):
            raise LeaseLost("it ran out")

    monkeypatch.setattr(ours, "check", check)
    with pytest.raises(NotBack, match=r"reset: .*; then power off and on: it ran out"):
        go(world, monkeypatch, answers=False, ours=ours)
    assert orders(world) == ["reset"]


def test_the_lease_outlasts_a_reset_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    ours = Ours()
    monkeypatch.setattr(ours, "renew", lambda _, seconds=0.0: asked.append(seconds))
    lab = machine(World([TEST, BACK]), seconds=9)
    monkeypatch.setattr(Power, "world", lab.world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    assert bring_back(lab, cast(Tenancy, ours), GOOD, answers=True) == BACK
    vain = recovery.POWER_SECONDS + 9 + machine_module.LONGEST_SECONDS
    assert asked == [9 + vain, 0.0]
    assert recovery.vain_seconds(lab.host) == vain
    by_grub = lab.host.model_copy(update={"boot": "grub"})
    assert recovery.vain_seconds(by_grub) == 2 * vain
    assert recovery.vain_seconds(machine(lab.world, power=False, seconds=9).host) == 0


def test_a_machine_that_is_anothers_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World([TEST, BACK])
    with pytest.raises(LeaseLost):
        go(world, monkeypatch, answers=True, ours=Ours(LeaseLost("it is x's")))
    assert world.done == []


def test_nor_is_one_whose_loss_is_seen_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    for at in (1, 2):
        world, ours = World([TEST, BACK, BACK]), Ours()
        ours.lost_at = at
        with pytest.raises(LeaseLost):
            go(world, monkeypatch, answers=True, ours=ours)
        assert "reset" not in world.done


def test_a_reboot_is_one_from_the_firmware(tmp_path: Path) -> None:
    """Not into a kernel that kexec has ready, nor a new user space under the same kernel."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(
        '#!/bin/sh\necho "$*, $SYSTEMCTL_SKIP_AUTO_KEXEC, $SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT"\n'
    )
    systemctl.chmod(0o755)
    assert here(REBOOT, tmp_path) == "reboot, 1, 1\n"


@pytest.mark.parametrize(("script", "order"), [(REBOOT, "reboot"), (JUMP, "kexec")])
def test_a_kernel_that_panics_on_its_way_down_starts_the_machine(
    script: str, order: str, tmp_path: Path
) -> None:
    """A machine's own has no panic= of ours; one that cannot be told goes down all the same."""
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f'#!/bin/sh\ncat {tmp_path}/panic\necho "$1"\n')
    systemctl.chmod(0o755)
    (tmp_path / "panic").write_text("0\n")
    assert here(script, tmp_path) == f"{bootargs.PANIC_SECONDS}\n{order}\n"
    (tmp_path / "panic").unlink()
    (tmp_path / "panic").mkdir()
    assert here(script, tmp_path) == f"{order}\n"


def here(script: str, folder: Path) -> str:
    """What a script of a machine with systemd says that is run here, with a kernel.panic apart."""
    places = {"/run/systemd/system": folder, "/proc/sys/kernel/panic": folder / "panic"}
    for place, other in places.items():
        assert place in script
        script = script.replace(place, str(other))
    return LocalShell().run(f"PATH={folder}:$PATH\n{script}").stdout


# ---- the rehearsal ------------------------------------------------------------------------------


def rehearsed(world: World, monkeypatch: pytest.MonkeyPatch, *, power: bool = True) -> Running:
    monkeypatch.setattr(Power, "world", world, raising=False)
    monkeypatch.setattr(recovery, "CommandPower", Power)
    return rehearse(machine(world, power=power), cast(Tenancy, Ours()), GOOD)


@pytest.mark.parametrize(("power", "way"), [(True, "reset"), (False, "reboot")])
def test_it_is_done_once_for_a_kernel(
    power: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World([GOOD, BACK])
    assert rehearsed(world, monkeypatch, power=power) == BACK
    assert [word for word in world.done if word in ("sync", way)][-2:] == (
        ["sync", "reset"] if power else ["reboot"]
    )
    again = World([GOOD])
    assert rehearsed(again, monkeypatch, power=power) == GOOD
    assert again.done == []
    found = find(machine(again), GOOD)
    assert found is not None and found.way == way
    assert find(machine(again), TEST) is None, "another kernel is rehearsed again"
    anew = machine(again)
    object.__setattr__(anew, "pins", {"[lab]:22": "ssh-ed25519 BBBB"})
    assert find(anew, GOOD) is None, "and so is a machine that was set up anew"


def test_a_machine_that_fails_it_is_refused_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotBack):
        rehearsed(World([GOOD, None]), monkeypatch)
    with pytest.raises(InfraError, match="in the rehearsal of its recovery: lab did not come back"):
        aside.require_in_use("lab")
    assert find(machine(World([GOOD])), GOOD) is None


def test_a_switch_that_does_not_obey_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the machine may start just then."""
    world = World([GOOD, BACK])

    def fails(*_: object) -> None:
        world.order("by itself")
        raise InfraError("the switch is broken")

    monkeypatch.setattr(Power, "reset", fails)
    with pytest.raises(NotBack, match="the switch is broken"):
        rehearsed(world, monkeypatch)


def test_a_switch_that_takes_a_reset_and_does_nothing_fails_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To find that out is what it is for: no power is taken from a machine that is well."""
    world = World([GOOD])
    with pytest.raises(NotBack, match="reset, which the power switch took and did not do: lab was"):
        rehearsed(world, monkeypatch)
    assert orders(world) == ["reset"]


def test_another_kernel_than_the_known_good_one_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    other = Running(BACK.boot_id, "Linux 6.2 #1", BACK.notes, "")
    with pytest.raises(
        NotBack, match=r"came back with Linux 6\.2 #1; its known-good kernel is Linux"
    ):
        rehearsed(World([GOOD, other]), monkeypatch)
    other = Running(BACK.boot_id, GOOD.release, "c" * 64, "")
    with pytest.raises(NotBack, match=r"came back with Linux 6\.1 #1, of another build; its known"):
        rehearsed(World([GOOD, other]), monkeypatch)
    with pytest.raises(NotBack):
        require_same(machine(World([GOOD])), GOOD, TEST)


def test_a_damaged_record_is_no_rehearsal(tmp_path: Path) -> None:
    path = rehearsal._path("lab")
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(InfraError, match="is damaged; remove it"):
        find(machine(World([GOOD])), GOOD)
