# SPDX-License-Identifier: GPL-2.0-only
"""What is taken from a build folder, and how one is built upon."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.kernel import apply, build_folder
from harness.kernel.built import RECORD


@pytest.mark.parametrize("kind", ["missing", "link", "folder-link"])
def test_only_regular_files_are_taken_from_a_build(tmp_path: Path, kind: str) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/Image").write_text("secret")
    (tmp_path / "work").mkdir()
    if kind == "link":
        (tmp_path / "work/boot").mkdir()
        (tmp_path / "work/boot/Image").symlink_to(tmp_path / "secret/Image")
    if kind == "folder-link":
        (tmp_path / "work/boot").symlink_to(tmp_path / "secret")
    with pytest.raises(InfraError, match="left no regular file boot/Image"):
        build_folder.take(tmp_path / "work", "boot/Image", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_configuration_than_the_checked_one_is_seen(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_text("")
    (tmp_path / ".config").write_text("CONFIG_KVM=y\nCONFIG_SWAP=y\n")
    build_folder.require_same_config(
        tmp_path, tmp_path / "vmlinux", "CONFIG_KVM=y\nCONFIG_SWAP=y\n"
    )
    with pytest.raises(InfraError, match=r"the build folder is not the one.*CONFIG_SWAP"):
        build_folder.require_same_config(tmp_path, tmp_path / "vmlinux", "CONFIG_KVM=y\n")
    (tmp_path / ".config").write_text("CONFIG_IKCONFIG=y\n")
    with pytest.raises(InfraError, match="carries no configuration"):
        build_folder.require_same_config(tmp_path, tmp_path / "vmlinux", "CONFIG_IKCONFIG=y\n")


def of_series(tree: Path) -> apply.PatchedTree:
    """A tree of which a series changed one file and removed one."""
    return apply.PatchedTree(
        dir=tree,
        digest="0" * 64,
        source_digest="1" * 64,
        version="6.12",
        description="a tree",
        touched=("mmu.c", "removed.c"),
    )


def built_at(folder: Path, seconds: int) -> Path:
    """The build folder of a base kernel that was complete then."""
    folder.mkdir()
    (folder / RECORD).touch()
    os.utime(folder / RECORD, (seconds, seconds))
    return folder / "build"


def test_what_a_series_changed_is_new_though_a_further_series_is_on_top(tmp_path: Path) -> None:
    """The tree on top is made of hard links; make would take the base's objects for this one's."""
    tree, on_top = tmp_path / "tree", tmp_path / "on-top"
    tree.mkdir()
    on_top.mkdir()
    (tree / "mmu.c").write_text("changed by the series\n")
    os.utime(tree / "mmu.c", (1, 1))
    os.link(tree / "mmu.c", on_top / "mmu.c")
    build_folder.make_newer(of_series(tree), built_at(tmp_path / "base", 1))
    assert (tree / "mmu.c").stat().st_mtime > 1
    assert (tree / "mmu.c").read_text() == "changed by the series\n"
    assert (on_top / "mmu.c").stat().st_mtime == 1
    assert [path.name for path in tree.iterdir()] == ["mmu.c"]


def test_a_clock_that_went_back_is_no_kernel_of_old_objects(tmp_path: Path) -> None:
    """Objects of the base are of tomorrow then, whatever its record says."""
    (tmp_path / "mmu.c").touch()
    start = built_at(tmp_path / "base", 7)
    start.mkdir()
    (start / "mmu.o").touch()
    tomorrow = time.time() + 86400
    os.utime(start / "mmu.o", (tomorrow, tomorrow))
    with pytest.raises(InfraError, match=r"clock went back since .*: .*mmu\.c cannot be dated"):
        build_folder.make_newer(of_series(tmp_path), start)


def test_what_is_newer_than_the_base_keeps_its_date(tmp_path: Path) -> None:
    """Objects of other kernels of this tree are newer than that, and must stay so."""
    (tmp_path / "mmu.c").touch()
    os.utime(tmp_path / "mmu.c", (8, 8))
    build_folder.make_newer(of_series(tmp_path), built_at(tmp_path / "base", 7))
    assert (tmp_path / "mmu.c").stat().st_mtime == 8
