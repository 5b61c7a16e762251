# SPDX-License-Identifier: GPL-2.0-only
"""How a Linux guest may end, on a booted host: checks that boot nine guests, to be run by hand.

    kvm-harness run --base-only --host n1 --mode vhe --linux-guest \\
        --checks tests/linux_guest_ends.py

Whatever ends it, what is told names the guest and not the host, and of QEMU and its VM nothing is
left.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.mglru import CGROUP
from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError, LinuxGuestDied
from harness.hosts.protocols import Shell
from harness.linux_guest import guest as guest_module
from harness.linux_guest.guest import LinuxGuest
from harness.linux_guest.machine import GuestMachine, arguments
from harness.linux_guest.memcg import memcg
from harness.observe import kvmstats


def boot(shell: Shell, claim: Claim, cell: CellSpec, cgroup: str | None = None) -> LinuxGuest:
    folder = claim.path("guest-console.log").parent
    within = Deadline(200 * cell.slowdown)
    return LinuxGuest.start(
        shell, GuestMachine(pages=16), folder, within, cgroup=cgroup, slowdown=cell.slowdown
    )


def left(shell: Shell) -> str:
    """What is left of QEMU, its VM and its memcg on the host."""
    script = f"pidof qemu-system-aarch64 linux-guest-vmm; find {kvmstats.KVM}/* {CGROUP} -type d"
    return shell.run(script, check=False).stdout.strip()


def evidence(claim: Claim, name: str) -> str:
    return Path(claim.path(name)).read_text()


@pytest.mark.linux_guest
@pytest.mark.parametrize("signal", ["KILL", "TERM"])
def test_qemu_is_killed(signal: str, shell: Shell, claim: Claim, cell: CellSpec) -> None:
    with boot(shell, claim, cell) as vm:
        assert vm.vm_dir in left(shell)
        shell.run(f"kill -{signal} {vm.pid}")
        with pytest.raises(LinuxGuestDied, match=r"QEMU ended with (signal=9|status=0)") as died:
            vm.touch({1}, write=True)
    claim.observe(str(died.value))
    assert died.value.kind == "guest-gone"
    assert left(shell) == ""


@pytest.mark.linux_guest
def test_what_holds_qemu_is_killed(shell: Shell, claim: Claim, cell: CellSpec) -> None:
    with boot(shell, claim, cell) as vm:
        shell.run("kill -KILL $(pidof linux-guest-vmm)")
        with pytest.raises(InfraError, match="linux-guest-vmm ended") as died:
            vm.touch({1}, write=True)
    claim.observe(str(died.value))
    # Its death is QEMU's, which nobody waits for any more.
    shell.run(f"i=0; while [ -d /proc/{vm.pid} ] && [ $i -lt 50 ]; do i=$((i+1)); sleep 0.1; done")
    assert left(shell) == ""


@pytest.mark.linux_guest
def test_guest_is_left_running(shell: Shell, claim: Claim, cell: CellSpec) -> None:
    vm = boot(shell, claim, cell)
    vm.close()
    claim.observe("closed")
    assert left(shell) == ""


@pytest.mark.linux_guest
def test_guest_hangs(
    shell: Shell, claim: Claim, cell: CellSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with boot(shell, claim, cell) as vm:
        vm.monitor("stop", seconds=20)
        monkeypatch.setattr(guest_module, "ANSWER_SECONDS", 3.0)
        with pytest.raises(LinuxGuestDied, match="gave up waiting for the Linux guest") as died:
            vm.touch({1}, write=True)
        claim.observe(str(died.value))
        registers = evidence(claim, "guest-registers.txt")
        assert "PC=" in registers
        shell.run(f"kill -STOP {vm.pid}")
        with pytest.raises(LinuxGuestDied, match="gave up waiting for QEMU's monitor") as died:
            vm.monitor("query-status", seconds=3)
    claim.observe(str(died.value))
    assert died.value.kind == "guest-hang"
    assert left(shell) == ""


@pytest.mark.linux_guest
def test_guest_panics(
    shell: Shell, claim: Claim, cell: CellSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_init(machine: GuestMachine) -> list[str]:
        words = arguments(machine)
        at = words.index("-append") + 1
        return [*words[:at], f"{words[at]} rdinit=/absent", *words[at + 1 :]]

    monkeypatch.setattr(guest_module, "arguments", without_init)
    with pytest.raises(LinuxGuestDied, match="panicked: Kernel panic - not syncing") as died:
        boot(shell, claim, cell)
    claim.observe(str(died.value))
    assert died.value.kind == "guest-panic"
    assert "Call trace:" in evidence(claim, "guest-console.log")
    assert left(shell) == ""


@pytest.mark.linux_guest
@pytest.mark.parametrize("error", [InfraError, DeadlineExceeded])
def test_start_fails_in_a_memcg(
    error: type[InfraError],
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(vm: LinuxGuest) -> tuple[int, ...]:
        raise error("not the frames that were asked for")

    monkeypatch.setattr(LinuxGuest, "frames", fails)
    with pytest.raises(error, match="not the frames"), memcg(shell, cell.slowdown):
        boot(shell, claim, cell, CGROUP)
    claim.observe("failed")
    assert left(shell) == ""


@pytest.mark.linux_guest
def test_what_holds_qemu_is_killed_in_a_memcg(shell: Shell, claim: Claim, cell: CellSpec) -> None:
    """Nobody waits for QEMU then but who removes its memcg."""
    with (
        pytest.raises(InfraError, match="linux-guest-vmm ended") as died,
        memcg(shell, cell.slowdown),
        boot(shell, claim, cell, CGROUP) as vm,
    ):
        shell.run("kill -KILL $(pidof linux-guest-vmm)")
        vm.touch({1}, write=True)
    claim.observe(str(died.value))
    assert left(shell) == ""
