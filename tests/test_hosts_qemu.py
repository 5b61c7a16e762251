# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU is told and asked, as far as it needs no QEMU."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.errors import InfraError
from harness.hosts import cpio
from harness.hosts.qemu import (
    LOGS,
    Machine,
    arguments,
    check_qemu,
    check_space,
    first_cmdline,
    overlay,
    parse_qemu_version,
    space_for,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright", "7.2.22"),
        ("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)", "10.0.2"),
        ("QEMU emulator version 8.0 (v8.0)", "8.0"),
    ],
)
def test_versions(text: str, version: str) -> None:
    assert parse_qemu_version(text) == version


@pytest.mark.parametrize("old", ["7.1.0", "5.2.0", "2.11.1", "6.2", "0.15.1"])
def test_too_old_for_feat_hafdbs(old: str) -> None:
    with pytest.raises(InfraError, match=rf"is version {old}; .* needs 7\.2.*FEAT_HAFDBS"):
        parse_qemu_version(f"QEMU emulator version {old} (Debian)")


@pytest.mark.parametrize("text", ["", "Segmentation fault", "version x.y", "QEMU 7.2.22"])
def test_no_version(text: str) -> None:
    with pytest.raises(InfraError, match="does not name a version"):
        parse_qemu_version(text)


def fake_qemu(folder: Path, script: str) -> None:
    program = folder / "qemu-system-aarch64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_the_qemu_on_path_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sh", "setpriv"):
        (tmp_path / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InfraError, match=r"^qemu-system-aarch64 is missing"):
        check_qemu()
    fake_qemu(tmp_path, "echo QEMU emulator version 7.0.0")
    with pytest.raises(InfraError, match=r"7\.0\.0"):
        check_qemu()
    fake_qemu(tmp_path, "echo cannot load libfdt >&2; exit 127")
    with pytest.raises(InfraError, match="cannot load libfdt"):
        check_qemu()
    fake_qemu(tmp_path, "echo QEMU emulator version 9.2.1")
    assert check_qemu() == "9.2.1"


class Options(NamedTuple):
    argv: list[str]

    def values(self, name: str) -> list[str]:
        return [b for a, b in zip(self.argv, self.argv[1:], strict=False) if a == name]


def options(console: str = "/run/console.log") -> Options:
    machine = Machine("n1", "neoverse-n1", cpus=3, memory_mib=1536)
    cmdline = [*first_cmdline(machine), "kvm-arm.mode=nvhe"]
    return Options(arguments(machine, Path("/k"), Path("/i"), cmdline, Path(console)))


def test_the_machine() -> None:
    told = options()
    assert told.argv[0] == "qemu-system-aarch64"
    # EL2, without which there is no KVM in it; GICv3 and TCG whatever the controller is.
    assert told.values("-machine") == ["virt,virtualization=on,gic-version=3"]
    assert told.values("-accel") == ["tcg,thread=multi"]
    assert told.values("-cpu") == ["neoverse-n1"]
    assert told.values("-smp") == ["3"]
    assert told.values("-m") == ["1536M"]
    assert (told.values("-kernel"), told.values("-initrd")) == (["/k"], ["/i"])


def test_the_command_line_is_one_argument() -> None:
    (line,) = options().values("-append")
    words = line.split(" ")
    assert "kvm-arm.mode=nvhe" in words
    assert "console=ttyAMA0" in words
    # A panic must end QEMU: that is how it is told from a hang.
    assert "panic=-1" in words
    assert "-no-reboot" in options().argv
    assert "kvm_harness.host=n1" in words
    # The last of its three CPUs is for a vCPU that never exits.
    assert "nohz_full=2" in words


def test_no_way_to_a_network() -> None:
    told = options()
    (network,) = told.values("-netdev")
    assert network.startswith("user,")
    assert "restrict=on" in network.split(",")
    assert "hostfwd=tcp:127.0.0.1:0-:22" in network.split(",")
    assert "-nodefaults" in told.argv
    assert "-no-user-config" in told.argv


def test_the_console_goes_to_a_file_whatever_its_name() -> None:
    assert options().values("-chardev") == ["file,id=console,path=/run/console.log"]
    (console,) = options("/a,id=x/c.log").values("-chardev")
    assert console == "file,id=console,path=/a,,id=x/c.log"


@pytest.mark.parametrize("size", range(64, 69))
def test_what_is_put_over_an_initramfs_begins_where_the_kernel_looks(
    tmp_path: Path, size: int
) -> None:
    """init/initramfs.c takes an archive that is not packed at a multiple of 4 bytes only."""
    base = tmp_path / "base.gz"
    base.write_bytes(gzip.compress(b"").ljust(size, b"\0")[: size - 1] + b"\xff")
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF...")
    target = tmp_path / "both"
    overlay(base, {"usr/bin/x": program}, target)
    data = target.read_bytes()
    at = data.index(b"070701")
    assert data.startswith(base.read_bytes())
    assert at % 4 == 0
    assert not data[size:at].strip(b"\0")
    assert data[at:] == cpio.archive([cpio.file("usr/bin/x", b"\x7fELF...", 0o755)])


def test_space_is_asked_for_all_that_is_written(tmp_path: Path) -> None:
    initramfs, program = tmp_path / "initramfs", tmp_path / "qemu"
    initramfs.write_bytes(bytes(3 << 20))
    program.write_bytes(bytes(5 << 20))
    assert space_for(initramfs, {"usr/bin/qemu": program}) == LOGS + (8 << 20)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(InfraError, match=f"disk full: {tmp_path} has .* MiB free"):
        check_space(tmp_path, 1 << 62)


def test_the_last_cpu_has_no_tick_unless_the_machine_is_to_have_one() -> None:
    quiet = first_cmdline(Machine("n1", "neoverse-n1", cpus=4))
    ticking = first_cmdline(Machine("n1", "neoverse-n1", cpus=4, tickless=False))
    assert [word for word in quiet if word not in ticking] == [
        *("nohz_full=3", "isolcpus=domain,3", "rcu_nocbs=3")
    ]
