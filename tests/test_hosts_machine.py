# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel a machine runs, and waiting for another one; no machine needed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from fake_machine import BACK, GOOD, TEST, World, machine
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.hosts import bootargs
from harness.hosts import machine as machine_module
from harness.hosts.machine import NotBooted, Running, running
from harness.hosts.protocols import Result


class Said(UnaskedShell):
    def __init__(self, text: str) -> None:
        self.text = text

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        return Result(command, 0, self.text, "")


def test_this_machine_says_what_it_runs() -> None:
    found = running(LocalShell())
    assert found.release.startswith("Linux ")
    assert found.cell == ""
    assert found == running(LocalShell())


def test_a_kernel_of_ours_has_a_mark() -> None:
    assert (GOOD.cell, TEST.cell) == ("", "c1")
    assert GOOD.same_build(BACK)
    assert not GOOD.same_build(TEST)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x\n",
        f"{1:036x}\nLinux\n{'a' * 63}  -\nquiet\n",
        f"{1:036x}\nLinux\x1b[2J\n{'a' * 64}  -\nquiet\n",
        f"{1:036x}\nLinux\n{'a' * 64}  -\n{'x' * 5000}\n",
        f"{1:036x}\nLinux\n{'a' * 64}  -\nquiet\nmore\n",
    ],
)
def test_nonsense_is_none(text: str) -> None:
    with pytest.raises(InfraError, match="nonsense"):
        running(Said(text))


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "PAUSE_SECONDS", 0.001)


def wait_for(
    world: World, wanted: Callable[[Running], bool], alive: Callable[[], None] = lambda: None
) -> Running:
    with machine(world).booted(wanted, Deadline(0.05), alive) as (_, now):
        return now


@pytest.mark.usefixtures("_quick")
def test_it_is_waited_for() -> None:
    seen: list[Running] = []

    def wanted(now: Running) -> bool:
        seen.append(now)
        world.order("next")
        return now == BACK

    world = World([GOOD, None, BACK])

    def alive() -> None:
        if world.boots[0] is None:
            world.order("comes up")

    assert wait_for(world, wanted, alive) == BACK
    assert seen == [GOOD, BACK]


@pytest.mark.usefixtures("_quick")
def test_what_was_seen_last_is_told() -> None:
    with pytest.raises(NotBooted, match=f"it is in the boot {GOOD.boot_id}") as caught:
        wait_for(World([GOOD]), lambda now: now == BACK)
    assert caught.value.seen == GOOD
    with pytest.raises(NotBooted, match="no answer") as caught:
        wait_for(World([None]), lambda now: True)
    assert caught.value.seen is None


@pytest.mark.usefixtures("_quick")
def test_a_death_ends_the_wait() -> None:
    def dead() -> None:
        raise HostDied("panic", "on the console")

    with pytest.raises(HostDied, match="on the console"):
        wait_for(World([None]), lambda now: True, dead)


def test_the_command_line_of_a_test_kernel() -> None:
    own = "BOOT_IMAGE=/vmlinuz root=/dev/sda2 ro quiet console=ttyS0 kvm-arm.mode=protected panic=0"
    own += " debugfs=off cgroup_disable=memory lockdown=integrity"
    own += " watchdog.stop-on-reboot=0 kvm_arm.mode=nvhe"
    made = bootargs.of_machine(own, ("kvm_harness.cell=c1", *bootargs.tickless(3), "x=1"))
    assert made == (
        "root=/dev/sda2 ro console=ttyS0 earlycon panic=15 kvm_harness.cell=c1 "
        "nohz_full=3 isolcpus=domain,3 rcu_nocbs=3 x=1"
    )


def test_a_machine_s_own_early_console_is_kept() -> None:
    made = bootargs.of_machine("root=/dev/sda2 earlycon=pl011,0x1c090000 quiet", ())
    assert made == "root=/dev/sda2 earlycon=pl011,0x1c090000 panic=15"


@pytest.mark.parametrize(
    ("cmdline", "told"),
    [
        ("console=ttyAMA0 panic=-1 kvm_harness.host=n1 x", "console=ttyAMA0 panic=-1 x"),
        (
            "BOOT_IMAGE=/v root=UUID=ab ro rd.lvm.lv=a/b mitigations=off kvm_harness.cell=c1",
            "ro mitigations=off",
        ),
        ("rootwait ipv6.disable=1 kvm-arm.mode=nvhe", "rootwait ipv6.disable=1 kvm-arm.mode=nvhe"),
    ],
)
def test_what_lasts_of_a_command_line(cmdline: str, told: str) -> None:
    assert bootargs.lasting(cmdline) == told


@pytest.mark.parametrize(
    ("cmdline", "protected"),
    [
        ("root=/dev/sda2", False),
        ("kvm-arm.mode=protected x", True),
        ("kvm-arm.mode=protected kvm-arm.mode=nvhe", False),
        ("kvm-arm.mode=nvhe kvm-arm.mode=protected", True),
        ("kvm_arm.mode=protected", True),
        ("kvm-arm.mode=protected kvm_arm.mode=nvhe", False),
        ("kvm-arm.mode", False),
    ],
)
def test_a_kernel_in_protected_mode(cmdline: str, protected: bool) -> None:
    assert bootargs.protected(cmdline) == protected
