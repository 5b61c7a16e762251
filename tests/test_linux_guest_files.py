# SPDX-License-Identifier: GPL-2.0-only
"""What a run with Linux guests brings to a host, and which checks it then has."""

from __future__ import annotations

import stat
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness import cli, selection
from harness.checks.plugin import check_paths
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import packages, vmm
from harness.hosts.preflight import require_vmm
from harness.hosts.protocols import Result
from harness.linux_guest import files
from harness.linux_guest.machine import INITRAMFS, KERNEL, VMM, GuestMachine, arguments


class Answers(UnaskedShell):
    def __init__(self, status: int, stdout: str = "", stderr: str = "") -> None:
        self.result = Result("", status, stdout, stderr)

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        assert command == "qemu-system-aarch64 --version"
        return self.result


def test_a_host_without_qemu_is_named_before_any_check() -> None:
    said = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)"
    assert require_vmm(Answers(0, f"{said}\nCopyright (c) 2003-2022 ...\n")) == said
    with pytest.raises(InfraError, match=r"install qemu-system-arm\): sh: .* not found"):
        require_vmm(Answers(127, stderr="sh: qemu-system-aarch64: not found\n"))


def test_files_lie_where_the_arguments_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "linux-guest-init").write_bytes(b"init")
    monkeypatch.setattr(files, "guest_programs", lambda deadline: tmp_path)
    kernel = tmp_path / "Image"
    found = files.linux_guest_files(kernel, Deadline(20))
    # A host's QEMU is its own affair, however it comes by one.
    assert sorted(found) == sorted(path.lstrip("/") for path in (KERNEL, INITRAMFS, VMM))
    assert found[KERNEL.lstrip("/")] == kernel
    assert found[VMM.lstrip("/")] == tmp_path / "linux-guest-vmm"
    archive = found[INITRAMFS.lstrip("/")].read_bytes()
    assert archive == files.initramfs(b"init")
    assert {KERNEL, INITRAMFS} <= set(arguments(GuestMachine()))
    (tmp_path / "linux-guest-init").write_bytes(b"other")
    again = files.linux_guest_files(kernel, Deadline(20))
    assert again[INITRAMFS.lstrip("/")].read_bytes() != archive


def test_initramfs_has_a_console_for_its_process() -> None:
    """newc: eight hexadecimal digits for each field; the mode is the second, rdev the tenth."""
    archive = files.initramfs(b"init")
    at = archive.index(b"dev/console\0") - 110
    fields = [int(archive[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i in range(13)]
    assert stat.S_ISCHR(fields[1])
    assert fields[9:11] == [5, 1]
    at = archive.index(b"init\0") - 110
    assert int(archive[at + 14 : at + 22], 16) == stat.S_IFREG | 0o755


def test_qemu_is_unpacked_once_with_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    unpacked: list[Sequence[str]] = []

    def unpack(names: Sequence[str], folder: Path, deadline: Deadline, what: str) -> object:
        unpacked.append(names)
        (folder / "empty.tar").write_bytes(bytes(1024))
        return tarfile.open(folder / "empty.tar")

    def with_libraries(*_: object) -> dict[str, bytes]:
        return {"usr/bin/qemu-system-aarch64": b"qemu", "lib/aarch64-linux-gnu/libz.so.1": b"z"}

    monkeypatch.setattr(packages, "unpack", unpack)
    monkeypatch.setattr(packages, "with_libraries", with_libraries)
    for _ in range(2):
        found = vmm.vmm_files(Deadline(20))
        assert found["usr/bin/qemu-system-aarch64"].read_bytes() == b"qemu"
        assert found["lib/aarch64-linux-gnu/libz.so.1"].read_bytes() == b"z"
    assert unpacked == [("qemu-system-arm",)]


def test_checks_are_there_where_they_are_asked_for() -> None:
    names = (
        "test_linux_guest[1]",
        "test_linux_guest[2]",
        "test_linux_guest[4]",
        "test_linux_guest_mglru",
    )
    assert selection.checks(("-m", "linux_guest"), linux_guest=True) == names
    assert not set(names) & set(selection.checks())
    assert not any("linux_guest" in path for path in check_paths((), selftests=True))


def test_option() -> None:
    assert cli._options(cli._parse(["run", "--linux-guest"])).linux_guest
    assert not cli._options(cli._parse(["run"])).linux_guest
