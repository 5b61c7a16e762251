# SPDX-License-Identifier: GPL-2.0-only
"""A machine of a lab, emulated: it boots from its disk by UEFI and GRUB, with systemd and OpenSSH.

Reached by SSH alone, with QMP for a power switch and no more, as the other test bed (lab_bed.py);
but nothing is given to it when it starts. What is written to its disk is there after its next
start, and gone with the end of the bed.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import disk_image
from lab_bed import Lab, write_inventory
from lab_power import ask

from harness import inventory, proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import qemu
from harness.hosts.machine import Machine
from harness.hosts.protocols import Shell
from harness.kernel import cache
from harness.observe.text import run_script

FRAGMENT = Path(__file__).with_name("data") / "lab-disk.config"
CPU = "neoverse-n1"
MEMORY_MIB = 3072
# From its start, through firmware, GRUB and systemd, to a login: a tenth of that on idle cores.
BOOT_SECONDS = 600.0
FINISH_SECONDS, OFF_SECONDS, MONITOR_SECONDS = 900.0, 300.0, 30.0
MAKE_SECONDS = 3600.0
OWN = (
    f"boot_seconds: {BOOT_SECONDS:.0f}",
    f"back_seconds: {BOOT_SECONDS:.0f}",
    f"fragments: [{FRAGMENT}]",
    "initrd: /boot/initrd.img",
)


@contextlib.contextmanager
def disk_lab(folder: Path, *, boot: str) -> Iterator[Lab]:
    """Switch the machine on, and off for good at the end of the block.

    `boot` is how its inventory has kernels started.
    """
    with _started(image(), folder, kept=False, more=(f"boot: {boot}",)) as (machine, _):
        with _up(machine):
            pass
        yield machine


def image() -> disk_image.Files:
    """The machine, made unless cached."""
    entry = cache.get_or_make(
        "images",
        f"disk-{disk_image.digest()}",
        _make,
        deadline=Deadline(MAKE_SECONDS),
        what="the disk of the test bed",
        need=disk_image.NEED,
    )
    return disk_image.files(entry.path)


def _make(folder: Path) -> None:
    """Make the disk, start the machine, and let it make what only it can."""
    made = disk_image.make(folder)
    work = folder / "first-boot"
    work.mkdir()
    with _started(made, work, kept=True) as (machine, process):
        with _up(machine) as shell:
            run_script(shell, disk_image.FINISH, Deadline(FINISH_SECONDS))
            shell.run("systemctl poweroff")
        try:
            process.wait(OFF_SECONDS)
        except subprocess.TimeoutExpired:
            raise InfraError("the machine does not switch itself off") from None


@contextlib.contextmanager
def _up(machine: Lab) -> Iterator[Shell]:
    """A shell on it, once it is there."""
    reached = Machine("lab", machine.host, machine.pins)
    with reached.booted(lambda now: not now.cell, Deadline(BOOT_SECONDS)) as (shell, _):
        yield shell


@contextlib.contextmanager
def _started(
    made: disk_image.Files, folder: Path, *, kept: bool, more: tuple[str, ...] = ()
) -> Iterator[tuple[Lab, subprocess.Popen[bytes]]]:
    """The machine, switched on; `kept` says whether what it writes to its disk stays there."""
    log, monitor, variables = folder / "machine.log", folder / "qmp", folder / "vars.fd"
    log.touch()
    shutil.copy(made.firmware[1], variables)
    with contextlib.ExitStack() as stack:
        errors = stack.enter_context((folder / "qemu.err").open("wb"))
        argv = arguments(made, variables, log, monitor, kept=kept)
        process = proc.spawn(argv, stdout=errors, stderr=errors)
        stack.callback(proc.end, process)
        deadline = Deadline(MONITOR_SECONDS)
        while not monitor.exists():
            if trouble := qemu.ended(process, folder):
                raise trouble
            deadline.check("the monitor of QEMU")
            time.sleep(0.05)
        text = ask(str(monitor), "human-monitor-command", **{"command-line": "info usernet"})
        path = write_inventory(
            folder, qemu.forwarded_port(text), made.login_key, monitor, log, "hardware", more + OWN
        )
        host = inventory.load(path).ssh("lab")
        yield Lab(path, path, host, made.host_key, monitor, log), process


def arguments(
    made: disk_image.Files, variables: Path, log: Path, monitor: Path, *, kept: bool
) -> list[str]:
    """QEMU's argument vector: what starts is what the firmware finds on the disk."""

    def flash(unit: int, path: Path, more: str) -> tuple[str, str]:
        return ("-drive", f"if=pflash,unit={unit},format=raw,file={path}{more}")

    # Without ACPI: the devices of the machine are in a device tree, and the kernel has no PCI.
    return [
        *(qemu.PROGRAM, "-nodefaults", "-no-user-config", "-display", "none"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny"),
        *("-machine", "virt,virtualization=on,gic-version=3,acpi=off"),
        *("-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", "2", "-m", f"{MEMORY_MIB}M"),
        *flash(0, made.firmware[0], ",readonly=on"),
        *flash(1, variables, ""),
        *("-drive", f"if=none,id=disk,format=raw,file={made.disk}{'' if kept else ',snapshot=on'}"),
        *("-device", "virtio-blk-device,drive=disk"),
        *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
        *("-device", "virtio-net-device,netdev=net"),
        *("-chardev", f"file,id=console,path={log}", "-serial", "chardev:console"),
        *("-qmp", f"unix:{monitor},server=on,wait=off"),
    ]
