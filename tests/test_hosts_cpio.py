# SPDX-License-Identifier: GPL-2.0-only
"""Archives that cpio(1) reads, the same byte for byte each time."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from harness.hosts import cpio

ENTRIES = (
    cpio.char_device("dev/console", 5, 1),
    cpio.file("/init", b"#!/bin/sh\n", 0o755),
    cpio.file("usr/lib/a/b", bytes(range(256)) * 5),
    cpio.file("root/.ssh/authorized_keys", b"key\n", 0o600),
    cpio.file("empty", b""),
    cpio.symlink("bin/sh", "../usr/bin/busybox"),
    cpio.directory("dev"),
    cpio.directory("usr/lib"),
)


def read(data: bytes) -> list[tuple[str, dict[str, int], bytes]]:
    """Read a newc archive up to its trailer, as the kernel does it (init/initramfs.c)."""
    names = (
        *("ino", "mode", "uid", "gid", "nlink", "mtime", "size"),
        *("major", "minor", "rmajor", "rminor", "namesize", "check"),
    )
    at = 0
    members: list[tuple[str, dict[str, int], bytes]] = []
    while True:
        assert data[at : at + 6] == b"070701", at
        assert at % 4 == 0
        head = {
            name: int(data[at + 6 + 8 * i : at + 14 + 8 * i], 16) for i, name in enumerate(names)
        }
        name = data[at + 110 : at + 110 + head["namesize"]]
        assert name.endswith(b"\0")
        body = (at + 110 + head["namesize"] + 3) // 4 * 4
        if name == b"TRAILER!!!\0":
            assert not data[body:].strip(b"\0")
            return members
        members.append((name[:-1].decode(), head, data[body : body + head["size"]]))
        at = (body + head["size"] + 3) // 4 * 4


def test_same_bytes_each_time() -> None:
    assert cpio.archive(ENTRIES) == cpio.archive(ENTRIES)
    assert cpio.archive(iter(ENTRIES)) == cpio.archive(ENTRIES)


def test_members() -> None:
    members = read(cpio.archive(ENTRIES))
    names = [name for name, _, _ in members]
    assert len(set(names)) == len(names)
    for name in names:
        parent = name.rpartition("/")[0]
        assert not parent or parent in names[: names.index(name)], "no folder for it yet"
    by_name = {name: (head, body) for name, head, body in members}
    for entry in ENTRIES:
        head, body = by_name[entry.path.strip("/")]
        assert body == entry.data
        assert (head["mode"], head["rmajor"], head["rminor"]) == (entry.mode, *entry.rdev)
    assert {(h["uid"], h["gid"], h["mtime"], h["check"]) for _, h, _ in members} == {(0, 0, 0, 0)}
    assert len({head["ino"] for _, head, _ in members}) == len(members), (
        "the kernel would link them"
    )
    assert len(cpio.archive(ENTRIES)) % 512 == 0


def test_nothing_is_an_archive_too() -> None:
    assert read(cpio.archive([])) == []


def test_a_second_file_of_one_path_is_no_silent_loss() -> None:
    with pytest.raises(ValueError, match="twice in one archive: 'a/x'"):
        cpio.archive([cpio.file("a/x", b"1"), cpio.file("a/x", b"2")])


@pytest.mark.parametrize("path", ["", "/", "../x", "a/../../x", "a//b", "./a"])
def test_paths_that_climb_or_name_nothing(path: str) -> None:
    with pytest.raises(ValueError, match="not a path"):
        cpio.archive([cpio.file(path, b"")])


@pytest.mark.skipif(shutil.which("cpio") is None, reason="no cpio here")
def test_cpio_reads_it(tmp_path: Path) -> None:
    plain = [entry for entry in ENTRIES if not stat.S_ISCHR(entry.mode)]
    subprocess.run(
        ["cpio", "-i", "--quiet", "--no-absolute-filenames"],
        input=cpio.archive(plain),
        cwd=tmp_path,
        check=True,
    )
    assert (tmp_path / "init").read_bytes() == b"#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "usr/lib/a/b").read_bytes() == bytes(range(256)) * 5
    assert str((tmp_path / "bin/sh").readlink()) == "../usr/bin/busybox"
    listing = subprocess.run(
        ["cpio", "-tv", "--quiet"], input=cpio.archive(ENTRIES), capture_output=True, check=True
    ).stdout.decode()
    console = next(line for line in listing.splitlines() if line.endswith("dev/console"))
    assert console.startswith("crw-------")
    assert "5,   1" in console
