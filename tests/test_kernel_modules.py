# SPDX-License-Identifier: GPL-2.0-only
"""The archive of a kernel's modules: what may be in it, and that it is the same each time."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.kernel import modules

END = "-kvmharness-0123456789ab"
RELEASE = f"6.12.9{END}"


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """What `make modules_install` leaves."""
    path = tmp_path / "work/.modules/lib/modules" / RELEASE
    (path / "kernel/fs").mkdir(parents=True)
    (path / "kernel/fs/ext4.ko").write_bytes(b"\x7fELF")
    (path / "modules.order").write_text("kernel/fs/ext4.ko\n")
    (path / "build").symlink_to("/build")
    (path / "config").write_text("what a series would have")
    return path


def pack(tmp_path: Path, release: str = RELEASE, name: str = "out") -> Path:
    (tmp_path / "config").write_text("CONFIG_KVM=y\n")
    work = tmp_path / "work"
    modules.archive(work, ".modules", release, END, tmp_path / "config", tmp_path / name)
    return tmp_path / name


def test_files_and_nothing_of_who_made_them(tmp_path: Path, top: Path) -> None:
    first = pack(tmp_path).read_bytes()
    with tarfile.open(tmp_path / "out") as tar:
        members = tar.getmembers()
        config = tar.extractfile(members[0])
        assert config is not None and config.read() == b"CONFIG_KVM=y\n"
    names = [f"{RELEASE}/{name}" for name in ("config", "kernel/fs/ext4.ko", "modules.order")]
    assert [member.name for member in members] == names
    assert {(m.mode, m.uid, m.gid, m.mtime, m.isreg()) for m in members} == {(0o644, 0, 0, 0, True)}
    os.utime(top / "modules.order", (1, 1))
    (top / "modules.order").chmod(0o600)
    assert pack(tmp_path, name="again").read_bytes() == first


def test_links_and_names_that_are_refused(tmp_path: Path, top: Path) -> None:
    (top / "kernel/build").symlink_to("/build")
    with pytest.raises(InfraError, match="'kernel/build' among the modules is no plain file"):
        pack(tmp_path)
    (top / "kernel/build").unlink()
    (top / "kernel/a\nb").write_text("")
    with pytest.raises(InfraError, match=r"'kernel/a\\nb' among the modules"):
        pack(tmp_path)
    (top / "kernel/a\nb").unlink()
    os.mkfifo(top / "fifo")
    with pytest.raises(InfraError, match="'fifo' among the modules"):
        pack(tmp_path)


@pytest.mark.parametrize(
    "release",
    ["6.12.9", "6.12.9-arm64", f"../../etc{END}", f"6.12/..{END}", f"6.12 x{END}", f"{RELEASE}x"],
)
def test_a_release_that_is_not_the_harness_s_own(tmp_path: Path, top: Path, release: str) -> None:
    assert not modules.is_ours(release)
    with pytest.raises(InfraError, match=f"has to end {END}"):
        pack(tmp_path, release)


def test_another_build_s_release(tmp_path: Path, top: Path) -> None:
    other = "6.12.9-kvmharness-ba9876543210"
    assert modules.is_ours(other)
    with pytest.raises(InfraError, match=f"has to end {END}"):
        pack(tmp_path, other)


def test_modules_that_lie_elsewhere(tmp_path: Path, top: Path) -> None:
    top.rename(tmp_path / "elsewhere")
    with pytest.raises(InfraError, match="installed no modules"):
        pack(tmp_path)
    top.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InfraError, match="installed no modules"):
        pack(tmp_path)


def test_too_much(tmp_path: Path, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modules, "MAX_FILES", 2)
    with pytest.raises(InfraError, match="more than 2 files"):
        pack(tmp_path)
