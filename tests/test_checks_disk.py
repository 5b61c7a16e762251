# SPDX-License-Identifier: GPL-2.0-only
"""A disk of a check's own, and huge pages for shared memory: made, and gone afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.checks import disk, shmem, zram
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven

SHMEM = "always within_size advise [never] deny force\n"


class Host(UnaskedShell):
    """A host that makes the device zram3; its tools are there or not."""

    def __init__(self, *, tools: bool = True, shmem_enabled: str = SHMEM) -> None:
        self.tools = tools
        self.shmem_enabled = shmem_enabled
        self.commands: list[str] = []
        self.written: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if command.startswith("command -v mke2fs"):
            return Result(command, 0 if self.tools else 1, "", "")
        if command == f"cat {shmem.ENABLED}":
            return Result(command, 0, self.shmem_enabled, "")
        self.commands.append(command)
        return Result(command, 0, "", "")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert path == "/sys/class/zram-control/hot_add"
        return "3\n"

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        assert path == shmem.ENABLED
        self.written.append(text.strip())


def test_a_disk_is_made_and_removed() -> None:
    host = Host()
    with disk.file_system(host, 16) as folder:
        _, size, made = host.commands
        assert size == "echo 16M > /sys/block/zram3/disksize"
        assert f"mount -t ext2 /dev/zram3 {folder}" in made
    assert f"umount {disk.FOLDER}" in host.commands[-2]
    assert "echo 3 > /sys/class/zram-control/hot_remove" in host.commands[-1]


def test_a_disk_is_removed_after_a_failure() -> None:
    host = Host()
    with pytest.raises(InfraError, match="first"), disk.file_system(host, 16):
        raise InfraError("first")
    assert "hot_remove" in host.commands[-1]


def test_without_the_tools_for_a_disk_nothing_is_proven() -> None:
    host = Host(tools=False)
    with pytest.raises(Unproven, match="mke2fs"):
        disk.file_system(host, 16).__enter__()
    assert not host.commands


class Busy(LocalShell):
    """A device that somebody has open at first, in a folder that stands for /sys."""

    def __init__(self, sysfs: Path, tries: int) -> None:
        self.sysfs = sysfs
        (sysfs / "block/zram3").mkdir(parents=True)
        (sysfs / "class/zram-control").mkdir(parents=True)
        (sysfs / "tries").write_text(f"{tries}\n")

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        write = "echo 3 > /sys/class/zram-control/hot_remove"
        assert write in command
        stub = (
            "gone() { t=$(cat /sys/tries); echo $((t - 1)) > /sys/tries; "
            "[ $t -lt 2 ] && rmdir /sys/block/zram3; }; sleep() { :; }; "
        )
        command = (stub + command.replace(write, "gone")).replace("/sys/", f"{self.sysfs}/")
        return super().run(command, deadline, check=check)


@pytest.mark.parametrize("tries", [1, 5])
def test_a_device_that_udev_looks_at_is_removed_later(tries: int, tmp_path: Path) -> None:
    host = Busy(tmp_path, tries)
    host.run(zram.Zram(3).remove())
    assert (tmp_path / "tries").read_text() == "0\n"


def test_a_device_that_stays_in_use_is_told(tmp_path: Path) -> None:
    host = Busy(tmp_path, zram.TRIES + 1)
    assert host.run(zram.Zram(3).remove(), check=False).status


def test_huge_pages_by_advice_only_meanwhile() -> None:
    host = Host()
    with shmem.huge_by_advice(host):
        assert host.written == ["advise"]
    assert host.written == ["advise", "never"]


def test_a_kernel_without_huge_shared_memory() -> None:
    with pytest.raises(Unproven, match="shmem_enabled"):
        shmem.huge_by_advice(Host(shmem_enabled="")).__enter__()


@pytest.mark.parametrize("text", ["always never\n", "[always] [never]\n"])
def test_a_file_without_one_choice(text: str) -> None:
    with pytest.raises(InfraError, match="no one choice"):
        shmem.chosen(text)
