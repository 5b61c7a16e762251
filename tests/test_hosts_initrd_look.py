# SPDX-License-Identifier: GPL-2.0-only
"""An initramfs that is not there, or that test kernels cannot unpack, is told before a build."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.errors import UsageError
from harness.hosts import initrd_look
from harness.hosts.machine import MARK
from harness.inventory import SshHost
from harness.paths import PROJECT

SERVER = PROJECT / "kernel-configs/lab/server.config"
CPIO = b"070701" + b"0" * 104
ZSTD, LZ4 = b"\x28\xb5\x2f\xfd\x04", b"\x02\x21\x4c\x18"


def host(path: Path | str | None, *fragments: Path, config: str = "harness") -> SshHost:
    return SshHost.model_construct(
        kind="ssh",
        initrd=None if path is None else str(path),
        fragments=fragments,
        config=config,
    )


def words(path: Path, *fragments: Path, config: str = "harness") -> tuple[str, str]:
    (one,) = initrd_look.findings(LocalShell(), host(path, *fragments, config=config), "quiet")
    assert one.what == "initrd"
    return one.mark, one.words


def test_none_is_asked_for() -> None:
    assert initrd_look.findings(LocalShell(), host(None), "") == ()


def test_a_test_kernel_that_was_left_has_files_of_its_own(tmp_path: Path) -> None:
    left = f"console=ttyAMA0 {MARK}n1-vhe-base"
    (one,) = initrd_look.findings(UnaskedShell(), host(tmp_path / "none"), left)
    assert one.mark == "note" and "a test kernel runs" in one.words


def test_one_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("none of that name", "empty"):
        mark, said = words(tmp_path / name, SERVER)
        assert mark == "missing" and f"{tmp_path / name} is not there or empty" in said


# What gzip makes has the time in it, and names of tests must be the same in each process.
@pytest.mark.parametrize("data", [CPIO, gzip.compress(CPIO)], ids=["cpio", "gzip"])
def test_what_every_kernel_unpacks(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(data)
    assert words(tmp_path / "initrd") == ("ok", str(tmp_path / "initrd"))


@pytest.mark.parametrize(
    ("data", "symbol"),
    [(ZSTD, "ZSTD"), (LZ4, "LZ4"), (lzma.compress(CPIO), "XZ")],
    ids=["zstd", "lz4", "xz"],
)
def test_what_a_fragment_must_ask_for(data: bytes, symbol: str, tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.write_bytes(data)
    mark, said = words(path)
    assert mark == "missing" and said.endswith(f"have CONFIG_RD_{symbol}=y in `fragments`")
    assert words(path, SERVER)[0] == "ok", "the fragment for servers has all that they use"
    assert words(path, config="machine")[0] == "ok", "its own kernel has unpacked it"


def test_a_fragment_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "initrd").write_bytes(ZSTD)
    with pytest.raises(UsageError, match=r"fragment .*none\.config cannot be read"):
        words(tmp_path / "initrd", tmp_path / "none.config")


def test_a_host_without_od_is_believed() -> None:
    assert initrd_look.judge(host("/initrd.img"), "there\n").mark == "ok"
