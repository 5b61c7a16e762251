# SPDX-License-Identifier: GPL-2.0-only
"""What is asked of a machine that boots from its disk (disk_bed.py), however its kernels come."""

from __future__ import annotations

from pathlib import Path

from command import Ended, kvm_harness
from lab_bed import Lab

from harness.deadline import Deadline
from harness.hosts.grub_look import NAME, look
from harness.hosts.leasing import look as look_at_lease
from harness.hosts.machine import Machine, Running, running
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Shell

CHECK = "test_page_idle"
CELL = "lab-vhe-base"


def reached(machine: Lab) -> Machine:
    return Machine("lab", machine.host, machine.pins)


def run(inventory: Path, state: Path, *args: str) -> Ended:
    where = ["--inventory", str(inventory), "--host", "lab", "--mode", "vhe"]
    return kvm_harness(["run", *where, "-k", CHECK, "--base-only", "--no-lines", *args], state)


def at_home(machine: Lab) -> Running:
    """The kernel that the machine runs, after it was looked at that nothing of ours is left."""
    with reached(machine).shell(Deadline(60)) as shell:
        now = running(shell)
        assert now.cell == "", "it is in a kernel of ours"
        assert look_at_lease(shell).left == 0, "the lease is not free"
        assert shell.run(f"ls {PROGRAMS}", check=False).status != 0, "files are left"
        assert shell.run("cat /sys/kernel/kexec_loaded").stdout.strip() == "0"
        assert nothing_beside_grub(shell)
        assert shell.run("systemctl is-system-running", check=False).stdout.strip() == "running"
    return now


def nothing_beside_grub(shell: Shell) -> bool:
    seen = look(shell)
    files = shell.run("ls /boot /boot/grub").stdout
    left = shell.run("/usr/bin/grub-editenv /boot/grub/grubenv list").stdout
    return (seen.custom, seen.next_entry, left) == (None, "", "") and NAME not in files


def sums(machine: Lab, *paths: str) -> str:
    """What these files of the machine are, to be compared."""
    with reached(machine).shell(Deadline(60)) as shell:
        return shell.run(f"sha256sum {' '.join(paths)}").stdout


def diary(done: Ended) -> str:
    text = (done.folder / "cells" / CELL / "machine.txt").read_text()
    print(text)
    return text


def console(done: Ended, name: str = "console.log") -> str:
    """What the machine said on one leg of the cell's way."""
    return (done.folder / "cells" / CELL / name).read_text()
