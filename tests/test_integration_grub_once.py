# SPDX-License-Identifier: GPL-2.0-only
"""GRUB itself with what is put on a machine for it: no SSH, no user space, only what it writes.

The disk is written to while the machine is off. The kernel is Debian's own, on its way to a panic.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import disk_bed
import disk_image
import pytest

from harness import proc
from harness.deadline import Deadline
from harness.hosts import grub
from harness.hosts.grub_look import NAME

pytestmark = pytest.mark.lab

FOLDER = "/boot/grub"
START_SECONDS = 300.0
# Panics before there is any user space; no initramfs, so there is no root either.
PANICS = "root=/nonesuch console=ttyAMA0 earlycon panic=5 kvm_harness.cell=0123"


class Disk:
    """A copy of the test bed's disk, for a machine that is off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        made = disk_bed.image()
        self.files = disk_image.Files(
            folder / "disk.img", made.firmware, made.host_key, made.login_key
        )
        subprocess.run(["cp", "--sparse=always", made.disk, self.files.disk], check=True)

    def debugfs(self, *commands: str) -> str:
        program = shutil.which("debugfs", path="/usr/sbin:/sbin")
        assert program is not None
        todo = self.folder / "commands"
        todo.write_text("".join(f"{command}\n" for command in commands))
        argv = [program, "-w", "-f", str(todo), f"{self.files.disk}?offset={disk_image.ROOT_AT}"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def put(self, text: str | bytes, path: str) -> None:
        local = self.folder / "file"
        local.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.debugfs(f"rm {path}", f"write {local} {path}")

    def choose(self, custom: str, image: bytes, **variables: str) -> None:
        """What GRUB finds at the next start; `variables` are in grubenv."""
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        self.debugfs(f"mkdir {FOLDER}/{NAME}")
        self.put(f"# GRUB Environment Block\n{lines}".ljust(1024, "#"), f"{FOLDER}/grubenv")
        self.put(custom, f"{FOLDER}/custom.cfg")
        self.put(image, f"{FOLDER}/{NAME}/Image")

    def grubenv(self) -> set[str]:
        text = self.debugfs(f"cat {FOLDER}/grubenv")
        return {line for line in text.strip("#").splitlines() if "=" in line}

    def kernel(self) -> bytes:
        target = self.folder / "vmlinuz"
        (name,) = (
            word for word in self.debugfs("ls -p /boot").split("/") if word.startswith("vmlinuz-")
        )
        self.debugfs(f"dump /boot/{name} {target}")
        return target.read_bytes()

    def start(self, until: Callable[[str], bool]) -> str:
        """Switch the machine on, and off once its console has said so much."""
        log, variables = self.folder / "console.log", self.folder / "vars.fd"
        log.touch()
        shutil.copy(self.files.firmware[1], variables)
        argv = disk_bed.arguments(self.files, variables, log, self.folder / "qmp", kept=True)
        process = proc.spawn(argv)
        deadline = Deadline(START_SECONDS)
        try:
            while not until(log.read_text(errors="replace")):
                deadline.check("the console")
                time.sleep(0.2)
        finally:
            proc.end(process)
        return log.read_text(errors="replace")


def default_again(console: str) -> bool:
    """Whether the machine's own entry was begun, with what it loads."""
    return "Loading Linux" in console.partition("Booting `Debian GNU/Linux'")[2]


def test_an_entry_is_started_once_and_the_default_ever_after(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    custom = grub.entry(PANICS, initrd=False)
    disk.choose(custom, disk.kernel(), saved_entry="0", next_entry=NAME)
    console = disk.start(default_again)
    first, _, _ = console.partition("Booting `Debian GNU/Linux'")
    assert f"BOOT_IMAGE=(hd0,gpt2){FOLDER}/{NAME}/Image {PANICS}" in first
    assert "Kernel panic - not syncing" in first
    assert console.count("Welcome to GRUB") == 2, "panic= alone has started it again"
    assert disk.grubenv() == {"saved_entry=0", "next_entry="}


def test_a_kernel_that_grub_cannot_load_ends_in_the_default(tmp_path: Path) -> None:
    """That start clears the rehearsal's variable as well: GRUB reads custom.cfg, writes grubenv."""
    disk = Disk(tmp_path)
    _, _, entry = grub.entry(PANICS, initrd=False).partition("\n")
    variables = {"next_entry": NAME, grub.REHEARSAL: "1"}
    disk.choose(grub.REHEARSAL_CFG + entry, bytes(4096), **variables)
    console = disk.start(default_again)
    assert console.count("Welcome to GRUB") == 2
    assert "Linux version" not in console.partition("Booting `Debian GNU/Linux'")[0]
    assert disk.grubenv() == {"next_entry=", f"{grub.REHEARSAL}="}
