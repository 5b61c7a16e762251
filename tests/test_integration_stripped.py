# SPDX-License-Identifier: GPL-2.0-only
"""lockless-aging with a fast path in one mode and not in the other, and as bare diffs.

The verdict is of what a series does: without names, subjects and comments it is the same.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from command import Ended, kvm_harness

from harness.kernel import series
from harness.paths import PROJECT
from harness.results import Summary

pytestmark = pytest.mark.integration

OURS = PROJECT / "series" / "lockless-aging"
RUN = ["run", "--host", "n1", "--mode", "vhe", "--mode", "protected", "-k"]
CHECKS = "(test_access_flag and anon) or test_page_idle or test_protected or test_counters"
# A comment on one line, or one line of a longer one.
COMMENT = re.compile(r"^(\s*/?\*)\s.*[a-z].*?( \*/)?$")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run of the series as it is."""
    return kvm_harness([*RUN, CHECKS, "--series", OURS.name], tmp_path_factory.mktemp("named"))


def stripped(folder: Path) -> Path:
    """A copy of the series as bare diffs whose comments say nothing, by other names."""
    ours = series.load(str(OURS))
    diffs = [patch.diff.decode() for patch in ours.patches]
    lines = [line for diff in diffs for line in diff.splitlines()]
    told = {line[1:] for line in lines if line.startswith("+") and COMMENT.match(line[1:])}
    assert len(told) > 20
    for number, diff in enumerate(diffs, 1):
        # Later patches have these comments around what they change.
        said = [
            line[0] + COMMENT.sub(r"\1\2", line[1:]) if line[1:] in told else line
            for line in diff.split("\n")
        ]
        (folder / f"{number}.patch").write_text("\n".join(said))
    shutil.copy(OURS / series.CONTRACT, folder)
    return folder


def judged(run: Summary) -> dict[tuple[str, str], object]:
    """What a run says of each check in each cell; times and addresses in its words differ."""
    return {(check.cell, check.name): (check.outcome, check.fast_path) for check in run.checks}


def test_verdict_rests_on_no_name_subject_or_comment(named: Ended, tmp_path: Path) -> None:
    bare = tmp_path / "x"
    bare.mkdir()
    nameless = kvm_harness([*RUN, CHECKS, "--series", str(stripped(bare))], tmp_path)
    assert (nameless.returncode, named.returncode) == (0, 0)
    runs = [Summary.model_validate(done.summary) for done in (nameless, named)]
    assert [run.series for run in runs] == ["x", "lockless-aging"]
    assert runs[0].series_digest != runs[1].series_digest
    assert judged(runs[0]) == judged(runs[1])
    assert len(judged(runs[0])) > 8


def test_fast_path_is_taken_where_the_contract_wants_it(named: Ended) -> None:
    assert named.returncode == 0
    seen = {
        check.cell: check.observed
        for check in Summary.model_validate(named.summary).checks
        if check.name == "test_page_idle"
    }
    assert "kvm_age_gfn_lockless 2048" in seen["n1-vhe-patched"]
    for cell in ("n1-vhe-base", "n1-protected-base", "n1-protected-patched"):
        assert "kvm_age_gfn 2048" in seen[cell]
    shown = "fast path: entered in n1-vhe-patched; not seen in n1-protected-patched"
    assert shown in " ".join(named.stdout.split())
