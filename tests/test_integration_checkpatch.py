# SPDX-License-Identifier: GPL-2.0-only
"""The project's own series are what a maintainer would take: the kernel's checkpatch is content."""

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


def test_checkpatch_has_nothing_to_say(tmp_path: Path) -> None:
    tree = resolve(inventory.load().defaults.source, Deadline(SOURCE_SECONDS)).dir
    patches = [
        # Outside of git: a file that git tracks it takes for source, not for a patch.
        shutil.copy(patch, tmp_path / f"{patch.parent.name}-{patch.name}")
        for patch in sorted((PROJECT / "series").glob("*/*.patch"))
    ]
    done = subprocess.run(
        ["perl", tree / "scripts/checkpatch.pl", "--root", tree, "--strict", *patches],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("total: 0 errors, 0 warnings, 0 checks") == len(patches) > 6
