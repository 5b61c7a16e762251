# SPDX-License-Identifier: GPL-2.0-only
"""A failure is seen by a folder and QEMU alone, and is not seen on the kernel that is right."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from command import kvm_harness

from harness.mutants.table import patch_of

pytestmark = pytest.mark.integration

BOOT_SECONDS = 300


def run_sh(folder: Path, *args: str) -> int:
    """The exit code of run.sh, with nothing of the harness but what lies in the folder."""
    done = subprocess.run(
        ["sh", "run.sh", *args],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(folder.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BOOT_SECONDS,
    )
    print(done.stdout, done.stderr)
    return done.returncode


def test_a_broken_kernel_is_known_again(tmp_path: Path) -> None:
    args = ["run", "--series", str(patch_of("young-not-reported")), "--host", "n1", "--mode", "vhe"]
    done = kvm_harness([*args, "-k", "test_access_flag and anon", "--no-lines"], tmp_path)
    assert done.returncode == 1
    made = kvm_harness(["reproduce", str(done.folder), "--tries", "1"], tmp_path)
    assert made.returncode == 0
    assert made.folder.parent == done.folder / "reproducers"
    assert "seen in 1 of 1 boots of this kernel and 0 of 1" in (made.folder / "README").read_text()

    # Somewhere else, as it would be sent.
    shutil.unpack_archive(f"{made.folder}.tar.gz", tmp_path / "else where", filter="data")
    shutil.rmtree(made.folder)
    folder = tmp_path / "else where" / made.folder.name
    assert run_sh(folder) == 0
    spec = json.loads((done.folder / "cells" / "n1-vhe-base" / "spec.json").read_text())
    shutil.copy(spec["kernel"]["image"], folder / "Image")
    assert run_sh(folder) == 1
    (folder / "Image").unlink()
    assert run_sh(folder) == 2
