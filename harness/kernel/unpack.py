# SPDX-License-Identifier: GPL-2.0-only
"""Tarballs unpacked into a folder of ours, and nothing of them anywhere else."""

from __future__ import annotations

import os
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import UsageError

# How GNU tar says that it met a member, or the target of a hard link, that climbs out.
_CLIMBS = ("Removing leading", "contains '..'")


def untar(archive: Path, target: Path, deadline: Deadline) -> None:
    """Unpack an archive into the empty folder `target`.

    UsageError if it is none, or if a member has a path or a link that leads out of it. GNU tar
    itself writes such members nowhere else: it strips, refuses, and makes links last.
    """
    what = f"unpacking {archive}"
    where = (f"--file={archive}", f"--directory={target}", "--force-local")
    argv = ("tar", "--extract", "--no-same-owner", "--no-same-permissions", *where)
    env = {**os.environ, "LC_ALL": "C", "TAR_OPTIONS": ""}
    done = proc.run(argv, deadline=deadline, what=what, env=env, check=False)
    climbing = [line for line in done.stderr.splitlines() if any(c in line for c in _CLIMBS)]
    if climbing:
        raise UsageError(f"{archive} has members that climb out of it: {climbing[0]}")
    if "No space left on device" in done.stderr:
        raise OSError(28, f"No space left on device: {what}")
    if done.returncode != 0:
        raise UsageError(f"{archive} is no archive that tar can unpack:\n{done.tail(5)}")
    refuse_links_out(target, str(archive))


def refuse_links_out(root: Path, origin: str) -> None:
    """UsageError if a symbolic link below `root` leads out of it."""
    top = root.resolve()
    for folder, subfolders, files in os.walk(root):
        for name in (*subfolders, *files):
            path = Path(folder) / name
            if path.is_symlink() and not leads_inside(path, top):
                where = path.relative_to(root)
                raise UsageError(f"{origin}: {where} is a link out of the tree: {path.readlink()}")


def leads_inside(link: Path, top: Path) -> bool:
    """Whether a symbolic link, followed to its end, stays below `top` (which is resolved)."""
    if link.readlink().is_absolute():
        return False
    try:
        return link.resolve().is_relative_to(top)
    except (RuntimeError, OSError):  # a loop of links leads nowhere
        return True
