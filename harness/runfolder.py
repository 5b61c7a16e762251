# SPDX-License-Identifier: GPL-2.0-only
"""Where a run keeps its records and evidence: $XDG_STATE_HOME/kvm-harness/runs by default."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import InfraError, UsageError
from harness.paths import state_home


def runs_home() -> Path:
    """The folder that holds the runs of this user."""
    return state_home() / "runs"


def imported_home() -> Path:
    """The folder that holds the runs of others, which `kvm-harness import` put there."""
    return state_home() / "imported"


def make_run_folder(parent: Path | None = None) -> Path:
    """A new folder for a run, named by the time (UTC) so that the newest sorts last."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = (parent or runs_home()).resolve() / f"{now}-{secrets.token_hex(2)}"
    try:
        (folder / "cells").mkdir(parents=True)
    except OSError as exc:
        raise InfraError(f"cannot make the run folder {folder}: {exc.strerror}") from exc
    return folder


def link_evidence(source: Path, target: Path) -> None:
    """Have the files of a run's cells in the folder of another one too, which lies beside it.

    No byte is copied: what is written once has two names then. So whoever has the one folder has
    all that its summary names.
    """
    for path in sorted((source / "cells").rglob("*")):
        if path.is_file() and not path.is_symlink():
            other = target / path.relative_to(source)
            other.parent.mkdir(parents=True, exist_ok=True)
            other.hardlink_to(path)


def find_run(name: str | None) -> Path:
    """A run's folder: by its path, by its name among this user's and then among the imported ones.

    Without a name it is the newest of this user's own. UsageError if there is none. Whether
    anything was recorded in it is not looked at.
    """
    home = runs_home()
    if name is None:
        # Beside runs lie those of many runs (repeat, --each-patch, mutants), which are no run.
        runs = sorted(path.parent for path in home.glob("*/run.json"))
        if not runs:
            raise UsageError(f"there is no run in {home}: name one by its folder")
        return runs[-1]
    for folder in places(name):
        if name and folder.is_dir():
            return folder.resolve()
    raise UsageError(f"no run {name!r}: neither a folder nor one in {home}")


def places(name: str) -> tuple[Path, Path, Path]:
    """Where a run of that name may be."""
    return Path(name), runs_home() / name, imported_home() / name


def refuse_imported(folder: Path, what: str) -> None:
    """UsageError if a run came from elsewhere, whose word nothing may be done on: `what` is not.

    Its place says so and nothing in it, since all that is in it was written by whoever sent it.
    """
    if folder.resolve().is_relative_to(imported_home().resolve()):
        raise UsageError(f"{folder} was imported, and nothing shows who made it: {what}")
