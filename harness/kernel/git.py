# SPDX-License-Identifier: GPL-2.0-only
"""git, with nobody's configuration but the repository's own, and trees of it as plain folders."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from harness import proc
from harness.deadline import Deadline

# safe.directory: a tree on disk may belong to another user; nothing that it configures for
# hooks or a file monitor is run.
_SETTINGS = ("safe.directory=*", "core.hooksPath=/dev/null", "core.fsmonitor=false")
_COMMAND = ("git", *(word for setting in _SETTINGS for word in ("-c", setting)))


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables for a git that reads no configuration of the user or the system."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    return {
        **kept,
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        **(extra or {}),
    }


def run(
    *args: str | Path,
    deadline: Deadline,
    what: str,
    cwd: Path | None = None,
    extra: Mapping[str, str] | None = None,
    check: bool = True,
) -> proc.Completed:
    """Run git; InfraError names `what` if it fails and `check` is set."""
    argv = [*_COMMAND, *map(str, args)]
    env = environment(extra)
    return proc.run(argv, deadline=deadline, what=what, cwd=cwd, env=env, check=check)


def toplevel(folder: Path, deadline: Deadline) -> Path | None:
    """The top of the work tree that `folder` is in, or None."""
    args = ("rev-parse", "--show-toplevel")
    done = run(*args, deadline=deadline, what=f"git in {folder}", cwd=folder, check=False)
    return Path(done.stdout.rstrip("\n")) if done.returncode == 0 else None


def head(folder: Path, deadline: Deadline) -> str | None:
    """The commit that is checked out, or None before the first one."""
    args = ("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    done = run(*args, deadline=deadline, what=f"git in {folder}", cwd=folder, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def snapshot(folder: Path, scratch: Path, deadline: Deadline) -> tuple[str, dict[str, str]]:
    """The tree id of a work tree as it stands, with the variables that make it readable.

    Changed and untracked files count, ignored ones do not. New objects and the index go to
    `scratch`: nothing is written into the user's repository.
    """
    what = f"reading the work tree {folder}"

    def path_of(name: str) -> Path:
        args = ("rev-parse", "--path-format=absolute", "--git-path", name)
        return Path(run(*args, deadline=deadline, what=what, cwd=folder).stdout.rstrip("\n"))

    index = scratch / "index"
    if path_of("index").exists():
        # Its cached file times spare git the reading of files that have not changed.
        index.write_bytes(path_of("index").read_bytes())
    objects = scratch / "objects"
    objects.mkdir()
    extra = {
        "GIT_INDEX_FILE": str(index),
        "GIT_OBJECT_DIRECTORY": str(objects),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": str(path_of("objects")),
    }
    run("add", "--all", "--", ".", deadline=deadline, what=what, cwd=folder, extra=extra)
    done = run("write-tree", deadline=deadline, what=what, cwd=folder, extra=extra)
    return done.stdout.strip(), extra


def export(
    repository: Path,
    tree: str,
    target: Path,
    scratch: Path,
    deadline: Deadline,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Write the files of a tree object into the folder `target`, without a .git."""
    variables = {**(extra or {}), "GIT_INDEX_FILE": str(scratch / "export-index")}
    what = f"writing out tree {tree[:12]} of {repository}"
    args = ("rev-parse", "--absolute-git-dir")
    found = run(*args, deadline=deadline, what=what, cwd=repository).stdout.rstrip("\n")
    place = (f"--git-dir={found}", f"--work-tree={target}")
    for command in (("read-tree", tree), ("checkout-index", "--all")):
        run(*place, *command, deadline=deadline, what=what, cwd=target, extra=variables)
