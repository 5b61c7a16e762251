# SPDX-License-Identifier: GPL-2.0-only
"""Kernels broken on purpose: each is caught by the check that should, through the real command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import kvm_harness

from harness.paths import PROJECT

pytestmark = pytest.mark.integration

BREAKS = PROJECT / "tests" / "breaks"

# The break, a cell in which it can show, and the check that must catch it there.
TABLE = [
    ("change-1.patch", "n1", "vhe", "test_access_flag[anon]"),
    ("change-2.patch", "n1", "vhe", "test_access_flag[anon]"),
    ("change-3.patch", "n1", "vhe", "test_page_idle"),
    ("change-4.patch", "a57", "nvhe", "test_access_flag[anon]"),
    ("change-5.patch", "n1", "protected", "test_protected"),
    ("change-6.patch", "a57", "nvhe", "test_kernel_log"),
]


def test_every_break_is_in_the_table() -> None:
    assert sorted(path.name for path in BREAKS.glob("*.patch")) == [row[0] for row in TABLE]


@pytest.mark.parametrize(("patch", "host", "mode", "check"), TABLE)
def test_break_is_caught(patch: str, host: str, mode: str, check: str, tmp_path: Path) -> None:
    # Under a name and a subject that promise nothing: the verdict must not lean on them.
    text = (BREAKS / patch).read_text()
    renamed = re.sub(r"^Subject: .*$", "Subject: [PATCH] Fix a comment", text, count=1, flags=re.M)
    assert renamed != text
    copy = tmp_path / "0001-fix-a-comment.patch"
    copy.write_text(renamed)
    args = ["run", "--series", str(copy), "--host", host, "--mode", mode, "-m", "quick"]
    done = kvm_harness(args, tmp_path)
    assert done.returncode == 1
    assert done.summary["verdict"] == "fail"
    assert done.outcome(f"{host}-{mode}-base", check) == "pass"
    caught = done.check(f"{host}-{mode}-patched", check)
    assert caught["outcome"] == "fail"
    assert caught["reason"]
    assert caught["evidence"]
    cells = {cell["id"]: cell["outcome"] for cell in done.summary["cells"]}
    assert cells == {f"{host}-{mode}-base": "pass", f"{host}-{mode}-patched": "fail"}
