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


def make_run_folder(parent: Path | None = None) -> Path:
    """A new folder for a run, named by the time (UTC) so that the newest sorts last."""
    now = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = (parent or runs_home()).resolve() / f"{now}-{secrets.token_hex(2)}"
    try:
        (folder / "cells").mkdir(parents=True)
    except OSError as exc:
        raise InfraError(f"cannot make the run folder {folder}: {exc.strerror}") from exc
    return folder


def find_run(name: str | None) -> Path:
    """A run's folder: by its path, by its name among this user's, or the newest without either.

    UsageError if there is none. Whether anything was recorded in it is not looked at.
    """
    home = runs_home()
    if name is None:
        # Beside runs lie those of many runs (repeat, --each-patch, mutants), which are no run.
        runs = sorted(path.parent for path in home.glob("*/run.json"))
        if not runs:
            raise UsageError(f"there is no run in {home}: name one by its folder")
        return runs[-1]
    for folder in (Path(name), home / name):
        if name and folder.is_dir():
            return folder.resolve()
    raise UsageError(f"no run {name!r}: neither a folder nor one in {home}")
