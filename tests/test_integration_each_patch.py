# SPDX-License-Identifier: GPL-2.0-only
"""lockless-aging patch by patch: each builds, boots and ages; and `git bisect run` finds a bad one.

Each step is a kernel of its own, built upon the base's build folder unless the cache has it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from command import argv, environment, kvm_harness
from kernel_helpers import GIT_ENV, edit

from harness import inventory
from harness.deadline import Deadline
from harness.kernel import series
from harness.kernel.source import resolve
from harness.mutants.table import patch_of
from harness.paths import PROJECT
from harness.prepare import SOURCE_SECONDS
from harness.results import EachPatch

pytestmark = pytest.mark.integration

FOLDER = PROJECT / "series" / "lockless-aging"
PATCHES = sorted(FOLDER.glob("*.patch"))
WHERE = ("--host", "n1", "--mode", "vhe", "-k", "test_access_flag and anon")
PGTABLE = "arch/arm64/kvm/hyp/pgtable.c"
# The patch that has guests aged by the new functions, the last but one, and what makes it wrong.
BAD = -2
RIGHT = "stage2_age_range(kvm, range, true, KVM_PGTABLE_WALK_SHARED)"
WRONG = RIGHT.replace("true", "false")


def git(folder: Path, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """What git says; it must exit 0."""
    done = subprocess.run(
        ["git", *args],
        cwd=folder,
        env={**(env or os.environ), **GIT_ENV},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def repository(folder: Path, patches: Sequence[Path]) -> Path:
    """The files that the series touches, each patch a commit; the tag `base` is before the first.

    The rest of the kernel is the source's: a repository of all of it takes minutes to make.
    """
    source = resolve(inventory.load().defaults.source, Deadline(SOURCE_SECONDS)).dir
    folder.mkdir()
    for path in series.load(str(FOLDER)).touched:
        if (source / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, folder / path)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "The kernel without the series")
    git(folder, "tag", "base")
    git(folder, "am", "--quiet", *patches)
    return folder


def broken(folder: Path) -> list[Path]:
    """The patches with one of them that has the new functions clear no access flag."""
    folder.mkdir()
    copies = [Path(shutil.copy(patch, folder)) for patch in PATCHES]
    text = copies[BAD].read_text()
    assert text.count(RIGHT) == 1
    copies[BAD].write_text(text.replace(RIGHT, WRONG))
    return copies


def test_each_patch_builds_and_boots_and_ages(tmp_path: Path) -> None:
    done = kvm_harness(["run", "--series", "lockless-aging", "--each-patch", *WHERE], tmp_path)
    walk = EachPatch.model_validate(json.loads((done.folder / "each-patch.json").read_text()))
    assert (done.returncode, walk.verdict, walk.reason) == (0, "good", "")
    assert [patch.finding for patch in walk.patches] == ["good"] * len(PATCHES)


def test_the_first_that_does_not_compile_is_named_though_the_next_mends_it(tmp_path: Path) -> None:
    """The whole series compiles; the kernel after its second patch does not."""
    source = resolve(inventory.load().defaults.source, Deadline(SOURCE_SECONDS)).dir
    typo = tmp_path / "typo"
    (typo / PGTABLE).parent.mkdir(parents=True)
    right = (source / PGTABLE).read_text()
    (typo / PGTABLE).write_text(right.replace("return data.young;", "return data.yung;"))
    folder = tmp_path / "patches"
    folder.mkdir()
    shutil.copy(patch_of("neutral-comment"), folder / "1.patch")
    wrong = edit(PGTABLE, {"return data.young;": "return data.yung;"}, source)
    mends = edit(PGTABLE, {"return data.yung;": "return data.young;"}, typo)
    (folder / "2.patch").write_text(wrong)
    (folder / "3.patch").write_text(mends)
    done = kvm_harness(["run", "--series", str(folder), "--each-patch", *WHERE], tmp_path)
    walk = EachPatch.model_validate(json.loads((done.folder / "each-patch.json").read_text()))
    assert (done.returncode, walk.verdict, walk.first_bad) == (1, "bad", 2)
    assert [patch.finding for patch in walk.patches] == ["good", "bad"]
    # The file is compiled twice, at the same time: nvhe/../pgtable.c as well.
    why = r"it does not compile: arch/arm64/kvm/hyp/(nvhe/\.\./)?pgtable\.c:[0-9]+:.*'yung'.*"
    assert re.fullmatch(why, walk.patches[1].reason)


def test_git_bisect_finds_the_patch(tmp_path: Path) -> None:
    """Between the fourth and the last there are two steps: one is good, one bad."""
    commits = repository(tmp_path / "linux", broken(tmp_path / "patches"))
    source = inventory.load().defaults.source
    command = argv("run", "--bisect", "--source", source, "--series", "git:.#base..HEAD", *WHERE)
    git(commits, "bisect", "start", "HEAD", f"HEAD~{len(PATCHES) - 4}")
    said = git(commits, "bisect", "run", *command, env=environment(tmp_path / "state"))
    print(said)
    found = git(commits, "log", "-1", "--format=%s", "refs/bisect/bad").strip()
    assert found == series.load(str(FOLDER)).patches[BAD].subject
    assert "is the first bad commit" in said
    verdicts = [
        json.loads(path.read_text())["verdict"]
        for path in sorted((tmp_path / "state").rglob("summary.json"))
    ]
    assert verdicts == ["pass", "fail"]
