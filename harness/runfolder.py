# SPDX-License-Identifier: GPL-2.0-only
"""Where a run keeps its records and evidence: $XDG_STATE_HOME/kvm-harness/runs by default."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

from harness.errors import InfraError
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
