# SPDX-License-Identifier: GPL-2.0-only
"""Power by commands of the lab's own, and by QMP."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from harness import proc
from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.hosts.power import CommandPower, QmpPower
from harness.hosts.protocols import Power
from harness.hosts.qemu import PROGRAM
from harness.hosts.qmp import Monitor
from harness.inventory import PowerCommands


def power(tmp_path: Path, script: str = 'echo "$0" >> log') -> Power:
    def command(name: str) -> tuple[str, ...]:
        return ("sh", "-c", f"cd {tmp_path}; {script}", name)

    commands = PowerCommands(on=command("on"), off=command("off"), reset=command("reset"))
    return CommandPower("lab", commands)


def test_each_has_its_command(tmp_path: Path) -> None:
    switch = power(tmp_path)
    switch.off(Deadline(20))
    switch.on(Deadline(20))
    switch.reset(Deadline(20))
    assert (tmp_path / "log").read_text() == "off\non\nreset\n"


def test_a_command_that_fails(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match=r"power reset of lab failed \(sh exited 4\):\nno BMC"):
        power(tmp_path, "echo no BMC >&2; exit 4").reset(Deadline(20))


def test_a_command_that_does_not_end(tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded, match="power off of lab"):
        power(tmp_path, "sleep 1000").off(Deadline(0.2))


@pytest.mark.integration
def test_the_emulated_machine_by_qmp() -> None:
    """A machine without firmware, which stands still or runs all the same."""
    ours, theirs = socket.socketpair()
    argv = [PROGRAM, "-nodefaults", "-display", "none", "-machine", "virt", "-m", "64M"]
    argv += ["-chardev", f"socket,id=qmp,fd={theirs.fileno()}", "-mon", "chardev=qmp,mode=control"]
    with contextlib.ExitStack() as stack:
        stack.callback(ours.close)
        with theirs:
            process = proc.spawn(argv, pass_fds=(theirs.fileno(),))
        stack.callback(proc.end, process)
        monitor = Monitor(ours, Deadline(20))
        stack.callback(monitor.close)
        switch: Power = QmpPower(monitor)

        def status() -> str:
            return str(monitor.execute("query-status", Deadline(20))["status"])

        def wait_until(wanted: str) -> None:
            deadline = Deadline(20)
            while status() != wanted:
                deadline.check(f"the machine to be {wanted}")

        wait_until("running")
        switch.off(Deadline(20))
        # Reset and not started: what ran before the stop is gone.
        wait_until("prelaunch")
        switch.reset(Deadline(20))
        assert status() == "prelaunch", "a reset gave power to a machine that is off"
        switch.on(Deadline(20))
        wait_until("running")
        switch.reset(Deadline(20))
        wait_until("running")
        monitor.execute("stop", Deadline(20))
        wait_until("paused")
        switch.reset(Deadline(20))
        wait_until("running")
