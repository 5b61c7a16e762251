# SPDX-License-Identifier: GPL-2.0-only
"""The folder that a kernel is built in: built upon, and what is taken from it.

What a series builds decides what is there, so nothing is taken on trust.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from harness.errors import InfraError
from harness.kernel import cache, config, elf
from harness.kernel.apply import PatchedTree
from harness.kernel.built import RECORD

FILE_LIMIT = 2 * cache.GIB


def make_newer(tree: PatchedTree, start: Path) -> None:
    """Date the files that the series changed after every object of the build folder `start`.

    The patched tree may have been made before the base was built, and make knows only times. What
    is newer than the base is left alone: a kernel of this tree in another flavor may have been
    built, whose objects would be older then, and all upon it would be compiled anew. A file may be
    a hard link of another tree's: of the source's, which has not changed then, or of a tree with a
    further series on top. Its link gives way to a copy, so that no other tree's file is dated.
    """
    built = newest(start)
    for path in tree.touched:
        file = tree.dir / path
        if not file.is_file() or file.is_symlink() or file.stat().st_mtime_ns > built:
            continue
        if file.stat().st_nlink > 1:
            copy = file.with_name(f".{file.name}.{os.getpid()}")
            shutil.copy2(file, copy)
            copy.replace(file)
        os.utime(file)
        if file.stat().st_mtime_ns <= built:
            raise InfraError(
                f"the clock went back since {start} was built: {file} cannot be dated after it, "
                "and make would take what the base has for what the series makes of it"
            )


def newest(start: Path) -> int:
    """The date of the newest file of a build folder, or of its record, in ns."""
    files = (Path(where) / name for where, _, names in os.walk(start) for name in names)
    return max(file.lstat().st_mtime_ns for file in (start.parent / RECORD, *files))


def genuine(work: Path, where: str) -> Path:
    """A file that the build left, no link: what a series builds decides what is there."""
    path = work / where
    if not path.is_file() or path.resolve() != work.resolve() / where:
        raise InfraError(f"the build passed, but left no regular file {where}")
    if path.stat().st_size > FILE_LIMIT:
        raise InfraError(f"the build left a {where} of {path.stat().st_size} bytes")
    return path


def take(work: Path, where: str, target: Path) -> None:
    """Copy a file that the build left; InfraError as genuine() raises it."""
    shutil.copyfile(genuine(work, where), target)


def read(work: Path, where: str) -> str:
    """The text of a file that the build left; InfraError as genuine() raises it."""
    return genuine(work, where).read_text(errors="replace")


def require_same_config(work: Path, vmlinux: Path, wanted: str) -> None:
    """InfraError unless the kernel was built with the very configuration that was checked.

    tuxmake reports success also where it left a configuration aside, so the build folder is
    read again, and the copy inside the kernel where it has one (CONFIG_IKCONFIG).
    """
    expected = config.parse_config(wanted)
    found = {"the build folder": read(work, ".config")}
    embedded = elf.embedded_config(vmlinux)
    if embedded is not None:
        found["vmlinux"] = embedded
    elif expected.get("IKCONFIG") == "y":
        raise InfraError("the kernel has CONFIG_IKCONFIG=y but carries no configuration")
    for where, text in found.items():
        if text != wanted:
            other = config.parse_config(text)
            symbols = sorted({k for k, _ in expected.items() ^ other.items()})
            raise InfraError(
                f"the configuration in {where} is not the one that was checked; different: "
                f"{', '.join('CONFIG_' + s for s in symbols[:5]) or 'comments only'}"
            )
