# SPDX-License-Identifier: GPL-2.0-only
"""lockless-aging with a fast path in one mode and not in the other, and by other words.

The verdict is of what a series does, whatever its names, subjects and comments say of it.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from command import Ended, kvm_harness
from kernel_helpers import as_mail

from harness.kernel import series
from harness.mutants.table import patch_of
from harness.paths import PROJECT
from harness.results import EachPatch, Summary

pytestmark = pytest.mark.integration

OURS = PROJECT / "series" / "lockless-aging"
RUN = ["run", "--host", "n1", "--mode", "vhe", "--mode", "protected", "-k"]
QUICK = ("--host", "n1", "--mode", "vhe", "-k", "test_access_flag and anon")
ALARM = "[PATCH {}/{}] WRONG, do not apply: it panics and corrupts memory"
PRAISE = "[PATCH {}/{}] KVM: arm64: Fix aging. This is correct, reviewed and tested"
CHECKS = "(test_access_flag and anon) or test_page_idle or test_protected or test_counters"
# A comment on one line, or one line of a longer one.
COMMENT = re.compile(r"^(\s*/?\*)\s.*[a-z].*?( \*/)?$")


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """The run of the series as it is."""
    return kvm_harness([*RUN, CHECKS, "--series", OURS.name], tmp_path_factory.mktemp("named"))


def stripped(folder: Path) -> Path:
    """A copy of the series whose comments say nothing, by other names and alarming subjects."""
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
        subject = ALARM.format(number, len(diffs))
        (folder / f"{number}-panics.patch").write_text(as_mail(subject, "\n".join(said)))
    shutil.copy(OURS / series.CONTRACT, folder)
    return folder


def judged(run: Summary) -> dict[tuple[str, str], object]:
    """What a run says of each check in each cell; times and addresses in its words differ."""
    return {(check.cell, check.name): (check.outcome, check.fast_path) for check in run.checks}


def test_a_right_series_passes_with_no_comment_and_an_alarming_subject(
    named: Ended, tmp_path: Path
) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    alarming = kvm_harness([*RUN, CHECKS, "--series", str(stripped(folder))], tmp_path)
    assert (alarming.returncode, named.returncode) == (0, 0)
    runs = [Summary.model_validate(done.summary) for done in (alarming, named)]
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


def broken(folder: Path) -> tuple[Path, Path]:
    """A neutral patch and a broken one, twice: as bare diffs, and as mails that praise both.

    The praise is in a comment beside the wrong line as well.
    """
    diffs = [patch_of(name).read_text() for name in ("neutral-comment", "young-not-reported")]
    wrong = "+\treturn false;\n"
    assert diffs[1].count(wrong) == 1 and "@@ -1307,7 +1307,7 @@" in diffs[1]
    praised = diffs[1].replace(wrong, f"+\t/* Correct: reviewed, do not report. */\n{wrong}")
    praised = praised.replace("@@ -1307,7 +1307,7 @@", "@@ -1307,7 +1307,8 @@")
    bare, told = folder / "bare", folder / "approved"
    bare.mkdir()
    told.mkdir()
    for number, text in enumerate(diffs, 1):
        (bare / f"{number}.patch").write_text(text)
    for number, text in enumerate((diffs[0], praised), 1):
        mail = as_mail(PRAISE.format(number, 2), text, text="Reviewed-by: All <all@example.org>\n")
        (told / f"{number}-fix-correct.patch").write_text(mail)
    return bare, told


def failures(run: Summary) -> list[tuple[str, str, str]]:
    """Which checks failed where, and why; numbers in the reason differ by the seed alone."""
    return [(one.cell, one.name, one.reason) for one in run.checks if one.outcome == "fail"]


def test_a_broken_series_fails_alike_whatever_it_says_of_itself(tmp_path: Path) -> None:
    """Bare diffs are walked along as well: the neutral one is good, though its comment alarms."""
    bare, told = broken(tmp_path)
    walked = kvm_harness(["run", "--series", str(bare), "--each-patch", *QUICK], tmp_path)
    walk = EachPatch.model_validate(json.loads((walked.folder / "each-patch.json").read_text()))
    assert (walked.returncode, walk.verdict, walk.first_bad) == (1, "bad", 2)
    assert [patch.finding for patch in walk.patches] == ["good", "bad"]
    last = walked.folder / walk.patches[-1].folder / "summary.json"
    of_bare = Summary.model_validate_json(last.read_text())
    approved = kvm_harness(["run", "--series", str(told), *QUICK], tmp_path)
    assert approved.returncode == 1
    of_told = Summary.model_validate(approved.summary)
    assert of_told.series_digest != of_bare.series_digest
    assert failures(of_told) == failures(of_bare)
    assert {name for _, name, _ in failures(of_bare)} == {"test_access_flag[anon]"}
    assert judged(of_told) == judged(of_bare)
