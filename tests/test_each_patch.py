# SPDX-License-Identifier: GPL-2.0-only
"""A walk along a series: which patch it names, and what it does not know."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from command import in_process
from kernel_helpers import AGE, GIT_ENV, as_mail, create, edit, toy_tree
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness import cli, each_patch
from harness.cli import main
from harness.each_patch import EachPatchRun
from harness.errors import InfraError, UsageError
from harness.kernel import series
from harness.kernel.build import KernelBuildError
from harness.kernel.config import ConfigError
from harness.kernel.series import Series
from harness.options import Options
from harness.paths import PROJECT
from harness.progress import Progress
from harness.report.evidence import reader
from harness.results import EachPatch, Outcome, Summary
from harness.run import Run, Step, load_series
from harness.runrecord import RunRecord
from harness.verdict import Verdict, worst

OURS = PROJECT / "series" / "lockless-aging"
End = Outcome | BaseException


def summary(kernel: str, outcome: Outcome) -> Summary:
    cell = a_cell(kernel, outcome=outcome)
    check = a_check("test_a", cell=cell.id, outcome=outcome, reason="3 young")
    return a_summary(verdict=worst([outcome]), seconds=12, cells=(cell,), checks=(check,))


@dataclass
class Plan:
    """How the base's run and those of the patches end, in this order."""

    ends: Sequence[End]
    asked: list[tuple[Options, Step | None]] = field(default_factory=list)
    verdict: Verdict = "error"
    """What was known when one was ended by an error."""


class FakeRun:
    plan: Plan

    def __init__(self, options: Options, progress: Progress, step: Step | None = None) -> None:
        self._end = self.plan.ends[len(self.plan.asked)]
        self._kernel = "patched" if step else "base"
        self.plan.asked.append((options, step))
        assert options.output is not None
        self.folder = options.output / f"run-{len(self.plan.asked)}"

    @property
    def verdict(self) -> Verdict:
        return self.plan.verdict

    def execute(self, *, show: bool) -> Summary:
        if isinstance(self._end, BaseException):
            raise self._end
        return summary(self._kernel, self._end)


class Case:
    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        mails = [as_mail(f"[PATCH {n}/3] Part {n}", create(f"{n}.c", "\n")) for n in (1, 2, 3)]
        (tmp_path / "three.mbox").write_text("".join(mails))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        self.options = Options(
            series=(str(tmp_path / "three.mbox"),),
            source=f"tree:{toy_tree(tmp_path / 'toy')}",
            output=tmp_path / "runs",
            seed=7,
        )
        self.plan = Plan(())
        self.out = io.StringIO()
        monkeypatch.setattr(each_patch, "Run", FakeRun)
        monkeypatch.setattr(FakeRun, "plan", self.plan, raising=False)

    def go(self, *ends: End) -> EachPatch:
        self.plan.ends = ends
        walk = EachPatchRun(self.options, Progress(Console(file=self.out, width=200)))
        try:
            return walk.execute()
        finally:
            assert len(self.plan.asked) == len(ends), "all of these runs and no other"

    @property
    def index(self) -> EachPatch:
        (path,) = self.options.output.glob("*/each-patch.json")  # type: ignore[union-attr]
        return EachPatch.model_validate_json(path.read_text())


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    return Case(tmp_path, monkeypatch)


def findings(index: EachPatch) -> list[str]:
    return [record.finding for record in index.patches]


def test_every_patch_is_good(case: Case) -> None:
    index = case.go("pass", "pass", "pass", "pass")
    assert index == case.index
    assert (index.verdict, index.first_bad, index.reason) == ("good", None, "")
    assert findings(index) == ["good"] * 3
    assert [record.folder for record in index.patches] == ["run-2", "run-3", "run-4"]
    assert (index.base_folder, index.base_verdict) == ("run-1", "pass")
    assert "2/3   good   12 s Part 2" in case.out.getvalue()


def test_each_step_is_one_patch_more_held_against_one_base(case: Case) -> None:
    case.go("pass", "pass", "pass", "pass")
    (base, nothing), *steps = case.plan.asked
    assert base.base_only and nothing is None
    assert all(not options.base_only for options, _ in steps)
    assert [len(step.series.patches) for _, step in steps if step] == [1, 2, 3]
    assert [step.whole for _, step in steps if step] == [False, False, True]
    assert {step.base.cells[0].kernel for _, step in steps if step} == {"base"}
    digests = {step.series.digest for _, step in steps if step}
    assert len(digests) == 3
    assert series.load(case.options.series[0]).digest in digests, "shared with a whole run"


def test_failure_that_was_proven_before_the_trouble_stays_one(case: Case) -> None:
    case.plan.verdict = "fail"
    index = case.go("pass", "pass", InfraError("disk full"))
    assert (index.verdict, index.first_bad) == ("bad", 2)
    assert index.patches[1].reason == "disk full"


def test_configuration_that_cannot_be_had_any_more_is_the_fault_of_the_patch(case: Case) -> None:
    index = case.go("pass", ConfigError("CONFIG_KVM is not set", ()))
    assert (index.verdict, index.first_bad) == ("bad", 1)


def test_the_first_bad_patch_ends_the_walk(case: Case) -> None:
    index = case.go("pass", "pass", "fail")
    assert (index.verdict, index.first_bad) == ("bad", 2)
    assert findings(index) == ["good", "bad"]
    assert index.patches[1].reason == "test_a in n1-vhe-patched: fail: 3 young"
    text = case.out.getvalue()
    assert "verdict: bad: a patch breaks the kernel; the first is 2/3, Part 2" in text
    assert "three.mbox" in text


def test_a_patch_that_does_not_compile_is_bad(case: Case, tmp_path: Path) -> None:
    broken = KernelBuildError("it does not compile", "mm/a.c:1: error", tmp_path / "log")
    index = case.go("pass", "pass", broken)
    assert (index.verdict, index.first_bad) == ("bad", 2)
    assert index.patches[1].reason == "it does not compile: mm/a.c:1: error"


@pytest.mark.parametrize("end", ["unproven", "error", InfraError("disk full")])
def test_what_cannot_be_told_is_passed_over(case: Case, end: End) -> None:
    index = case.go("pass", "pass", end, "pass")
    assert (index.verdict, index.first_bad) == ("unknown", None)
    assert findings(index) == ["good", "unknown", "good"]
    assert index.patches[1].reason


@pytest.mark.parametrize(
    ("ends", "others"),
    [
        (("pass", "fail"), ""),
        (("unproven", "fail"), " (or 1, of which it could not be told)"),
        (("unproven", "error", "fail"), " (or 1 or 2, of which it could not be told)"),
        (("pass", "unproven", "fail"), " (or 2, of which it could not be told)"),
        # The second is good with the first in it.
        (("unproven", "pass", "fail"), ""),
    ],
)
def test_the_first_bad_one_may_be_an_earlier_one_since_the_last_good(
    case: Case, ends: Sequence[End], others: str
) -> None:
    index = case.go("pass", *ends)
    assert (index.verdict, index.first_bad) == ("bad", len(ends))
    (line,) = (line for line in case.out.getvalue().splitlines() if line.startswith("verdict: bad"))
    assert line.endswith(f"the first is {len(ends)}/3, Part {len(ends)}{others}")


def test_a_base_that_does_not_pass_says_nothing_of_a_patch(case: Case) -> None:
    index = case.go("fail")
    assert (index.verdict, index.patches) == ("unknown", ())
    assert "without the series does not pass" in index.reason


@pytest.mark.parametrize("end", [KeyboardInterrupt(), UsageError("the disk is full")])
def test_index_and_table_are_there_however_it_ends(case: Case, end: BaseException) -> None:
    with pytest.raises(type(end)):
        case.go("pass", "pass", end)
    assert findings(case.index) == ["good"]
    assert case.index.verdict == "unknown"
    why = "interrupted" if isinstance(end, KeyboardInterrupt) else "the disk is full"
    assert case.index.reason == why
    said = case.out.getvalue()
    assert "1/3   good   12 s Part 1" in said and f"verdict: unknown: {why}" in said


def test_a_patch_that_does_not_apply_is_found_before_anything_runs(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says nothing of a commit, nor of the patches before it."""
    stale = edit("kvm/mmu.c", AGE).replace("page + 1", "page + 9")
    diffs = [create("1.c", "\n"), stale, create("3.c", "\n")]
    mails = [as_mail(f"[PATCH {n}/3] Part {n}", text) for n, text in enumerate(diffs, 1)]
    mbox = tmp_path / "stale.mbox"
    mbox.write_text("".join(mails))
    case.options = replace(case.options, series=(str(mbox),))
    where = (
        rf"patch 2/3 \(Part 2\) of {mbox} does not apply: kvm/mmu.c: hunk 1 of 1 \(line [0-9]+\)"
    )
    with pytest.raises(UsageError, match=where):
        case.go()
    assert (case.index.verdict, case.index.first_bad, case.index.patches) == ("unknown", None, ())
    assert re.fullmatch(where, case.index.reason)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    argv = ["run", "--each-patch", "--series", str(mbox), "--source", str(case.options.source)]
    done = in_process(argv, capsys)
    assert done.returncode == 125
    assert re.search(f"input error: {where}", done.stderr)
    assert not case.plan.asked


def test_a_series_for_another_base_is_refused_before_anything_runs(
    case: Case, tmp_path: Path
) -> None:
    mail = as_mail("[PATCH] Part", create("1.c", "\n")) + f"\nbase-commit: {'1' * 40}\n"
    (tmp_path / "other.mbox").write_text(mail)
    commits = tmp_path / "commits"
    shutil.copytree(tmp_path / "toy", commits)
    for args in (("init", "-q"), ("add", "."), ("commit", "-qm", "toy")):
        subprocess.run(("git", *args), cwd=commits, env={**os.environ, **GIT_ENV}, check=True)
    case.options = replace(
        case.options, series=(str(tmp_path / "other.mbox"),), source=f"git:{commits}#HEAD"
    )
    with pytest.raises(UsageError, match="is based on commit 1111"):
        case.go()
    case.options = replace(case.options, allow_other_base=True)
    assert case.go("pass", "pass").verdict == "good"


def test_the_patches_of_an_mbox_under_a_contract(case: Case, tmp_path: Path) -> None:
    """The base has neither."""
    ours = tmp_path / "ours"
    ours.mkdir()
    (ours / series.CONTRACT).write_text(Path(OURS / series.CONTRACT).read_text())
    mbox = Path(case.options.series[0])
    case.options = replace(case.options, series=(str(ours),), mbox=mbox)
    assert case.go("pass", "pass", "pass", "pass").series == "ours"
    base, step = case.plan.asked[0][0], case.plan.asked[1][1]
    assert (base.base_only, base.series, base.mbox) == (True, (), None)
    assert step is not None and step.series.contract == ours / series.CONTRACT
    with pytest.raises(UsageError, match="--mbox needs --series"):
        EachPatchRun(replace(case.options, series=()), Progress(Console(quiet=True)))


def test_quick_checks_unless_the_user_selects(case: Case) -> None:
    case.go("fail")
    assert case.plan.asked[0][0].pytest_args == ("-m", "quick")
    case.options = replace(case.options, pytest_args=("-k", "idle"))
    case.plan.asked.clear()
    case.go("fail")
    assert case.plan.asked[0][0].pytest_args == ("-k", "idle")


def test_there_must_be_a_series(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--base-only has none"):
        EachPatchRun(Options(base_only=True, output=tmp_path), Progress(Console()))
    assert not list(tmp_path.iterdir())


def test_ending_at_the_first_failure_selects_no_checks() -> None:
    assert not Options(pytest_args=("-x",)).narrowed
    assert Options(pytest_args=("-m", "quick", "-x")).narrowed


def test_stress_checks_run_where_they_are_asked_for() -> None:
    assert Options(pytest_args=("-x",)).selection == ("-x", "-m", "not stress")
    less = Options(pytest_args=("-m", "not deep", "-x"))
    assert less.selection == ("-m", "((not deep) and not stress) or last", "-x")
    assert Options(pytest_args=("-m", "stress")).selection == ("-m", "(stress) or last")
    assert Options(pytest_args=("-m", "stress and not last")).selection[1] == "stress and not last"
    assert Options(pytest_args=("-k", "race")).selection == ("-k", "race")
    assert Options(checks=(Path("mine.py"),)).selection == ()


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], 2),
        (["--bisect"], 125),
        (["--each-patch"], 125),
        (["--each-patch", "--junitxml", "x.xml"], 125),
        (["--bisect", "--mode", "none"], 125),
        (["--mode", "none"], 2),
    ],
)
def test_the_exit_code_of_the_command(
    options: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A series that is not there says nothing of a commit, and git bisect must hear that."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with pytest.raises(SystemExit) as ended:
        main(["run", "--series", str(tmp_path / "none"), *options])
    assert ended.value.code == code


@pytest.mark.parametrize(
    ("bisect", "of_all", "of_patched", "code"),
    [
        (False, "fail", "error", 1),
        # A base kernel that failed says nothing of the commit.
        (True, "fail", "error", 3),
        (True, "fail", "fail", 1),
        (True, "pass", "pass", 3),
    ],
)
def test_a_run_that_ends_in_an_error_is_bad_by_what_it_has_proven(
    bisect: bool, of_all: str, of_patched: str, code: int, tmp_path: Path
) -> None:
    def execute() -> Summary:
        raise InfraError("the disk is full")

    one = SimpleNamespace(execute=execute, verdict=of_all, of_patched=of_patched, folder=tmp_path)
    assert cli._execute(cast(Run, one), bisect=bisect) == code


@pytest.mark.parametrize(
    ("base", "patched", "of_patched"),
    [("fail", "pass", "error"), ("fail", "fail", "error"), ("pass", "fail", "fail")],
)
def test_a_run_s_record_tells_the_patched_kernel_apart(
    base: Outcome, patched: Outcome, of_patched: Verdict, tmp_path: Path
) -> None:
    cells = [a_cell(kernel) for kernel in ("base", "patched")]
    ends = zip(cells, (base, patched), strict=True)
    checks = [a_check(cell=cell.id, outcome=outcome, reason="3 young") for cell, outcome in ends]
    record = RunRecord(tmp_path, 1, False, cells, checks)
    assert (record.verdict, record.of_patched) == ("fail", "fail"), "no series"
    record.series = cast(Series, SimpleNamespace(name="x"))
    assert (record.verdict, record.of_patched) == ("fail", of_patched)
    # The run ended before that of the base did: what fails may fail there as well.
    record.cells = cells[1:]
    record.checks = checks[1:]
    assert record.of_patched != "fail"


def test_the_base_s_evidence_is_in_the_folder_of_each_patch(tmp_path: Path) -> None:
    """So reports show it, and an archive has it."""
    place = tmp_path / "base/cells/n1-vhe-base/test_a"
    place.mkdir(parents=True)
    (place / "error.txt").write_text("what went wrong")
    base = summary("base", "pass")
    named = base.checks[0].model_copy(update={"evidence": ("cells/n1-vhe-base/test_a/error.txt",)})
    patches = load_series(Options(series=("lockless-aging",)))
    step = Step(patches, True, base.model_copy(update={"checks": (named,)}), tmp_path / "base")
    run = Run(Options(output=tmp_path / "out"), Progress(Console(quiet=True)), step)
    assert run.verdict == "pass"
    read = reader(run.folder)
    assert [read(path) for path in named.evidence] == ["what went wrong"]
