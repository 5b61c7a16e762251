# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's checkpatch is content with the project's own series, and with its programs in C."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness import inventory
from harness.deadline import Deadline
from harness.kernel.source import resolve
from harness.paths import PROJECT
from harness.prepare import SOURCE_SECONDS

pytestmark = pytest.mark.integration


def checkpatch(cwd: Path, *arguments: str | Path) -> str:
    """What it says; nothing but its totals if it is content."""
    tree = resolve(inventory.load().defaults.source, Deadline(SOURCE_SECONDS)).dir
    done = subprocess.run(
        ["perl", tree / "scripts/checkpatch.pl", "--root", tree, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_series_are_what_a_maintainer_would_take(tmp_path: Path) -> None:
    patches = [
        # Outside of git: a file that git tracks it takes for source, not for a patch.
        shutil.copy(patch, tmp_path / f"{patch.parent.name}-{patch.name}")
        for patch in sorted((PROJECT / "series").glob("*/*.patch"))
    ]
    said = checkpatch(tmp_path, "--strict", *patches)
    assert said.count("total: 0 errors, 0 warnings, 0 checks") == len(patches) > 6


def test_programs_are_in_the_kernels_style() -> None:
    """But for what a program has not: u64 and its like (--strict), the names of attributes."""
    sources = [path for end in ("c", "h", "S") for path in (PROJECT / "guests").rglob(f"*.{end}")]
    said = checkpatch(PROJECT, "--file", "--ignore", "PREFER_DEFINED_ATTRIBUTE_MACRO", *sources)
    assert said.count("total: 0 errors, 0 warnings") == len(sources) > 90
