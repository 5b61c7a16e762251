# SPDX-License-Identifier: GPL-2.0-only
"""What a run is made from, by name, as run.json has it (harness/runinput.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from harness.inventory import Inventory
from harness.kernel.series import Series
from harness.runinput import digest


def chosen(
    stock: Inventory, series: Series | None, checks: Iterable[Path], qemu: str
) -> dict[str, str]:
    """What is known before anything is built; `checks` are files and folders of the user's own."""
    found = {
        "inventory": hashlib.sha256(stock.model_dump_json().encode()).hexdigest()[:16],
        "checks": digest(path for given in checks for path in _python_files(given)),
        "QEMU": qemu,
    }
    if series is not None:
        found["series"] = series.digest
        found["contract"] = digest([series.contract] if series.contract else [])
    return found


def made(build_ids: Mapping[str, str], image: str, files: Iterable[Path]) -> dict[str, str]:
    """What was built or found in the cache: kernels by what they are, the host image, programs."""
    return {**build_ids, "host image": image, "programs": digest(files)}


def _python_files(path: Path) -> Iterable[Path]:
    return path.rglob("*.py") if path.is_dir() else [path]
