# SPDX-License-Identifier: GPL-2.0-only
"""Where things live on the controller: the project's tree, XDG's folders for cache and state."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def cache_home() -> Path:
    """$XDG_CACHE_HOME/kvm-harness, made if absent (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".cache"
    path = root / "kvm-harness"
    path.mkdir(parents=True, exist_ok=True)
    return path


def state_home() -> Path:
    """$XDG_STATE_HOME/kvm-harness, not made if absent (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    root = Path(base) if Path(base).is_absolute() else Path.home() / ".local" / "state"
    return root / "kvm-harness"
