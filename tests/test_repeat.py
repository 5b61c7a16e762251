# SPDX-License-Identifier: GPL-2.0-only
"""Many runs: none of their outcomes is lost, however the whole ends."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness import repeat
from harness.errors import InfraError, UsageError
from harness.options import Options
from harness.progress import Progress
from harness.records import write_atomically
from harness.results import Outcome, Summary
from harness.verdict import worst

PASS: dict[str, Outcome] = {"test_a": "pass", "test_b": "pass"}


@dataclass
class Plan:
    """What the runs do one after another: outcomes of checks, or an exception on their way."""

    steps: Sequence[dict[str, Outcome] | BaseException]
    options: list[Options] = field(default_factory=list)


class FakeRun:
    """A Run with two cells, of which the second ends as planned, or never."""

    plan: Plan

    def __init__(self, options: Options, progress: Progress) -> None:
        self._step = self.plan.steps[len(self.plan.options)]
        self.plan.options.append(options)
        if isinstance(self._step, OSError):
            raise InfraError("no folder")
        assert options.output is not None
        self.folder = options.output / f"run-{len(self.plan.options)}"
        self.folder.mkdir()

    def execute(self) -> Summary:
        step = self._step
        if isinstance(step, BaseException):
            # A first cell was over by then.
            early = {"test_a": "fail" if "FAIL" in str(step) else "pass"}
            self._write({"n1": early}, str(step))  # type: ignore[dict-item]
            raise step
        return self._write({"n1": PASS, "a57": step}, "")

    def _write(self, cells: dict[str, dict[str, Outcome]], reason: str) -> Summary:
        found = worst([outcome for checks in cells.values() for outcome in checks.values()])
        summary = a_summary(
            verdict="error" if reason and found != "fail" else found,
            reason=reason,
            cells=tuple(
                a_cell("base", id=name, host=name, outcome=worst(checks.values()))
                for name, checks in cells.items()
            ),
            checks=tuple(
                a_check(name, cell=cell, outcome=outcome)
                for cell, checks in cells.items()
                for name, outcome in checks.items()
            ),
        )
        write_atomically(self.folder / "summary.json", summary)
        return summary


class Case:
    """repeat() over planned runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, parent: Path) -> None:
        self._parent = parent
        self._out = io.StringIO()
        self.plan = Plan(())
        monkeypatch.setattr(repeat, "Run", FakeRun)

    def go(
        self,
        *steps: dict[str, Outcome] | BaseException,
        count: int = 0,
        series: tuple[str, ...] = (),
    ) -> int:
        self.plan.steps = steps
        FakeRun.plan = self.plan
        console = Console(file=self._out, width=40)
        options = Options(output=self._parent, seed=7, series=series)
        return repeat.repeat(options, count or len(steps), Progress(console))

    @property
    def text(self) -> str:
        return self._out.getvalue()

    @property
    def record(self) -> repeat.Repeat:
        (path,) = self._parent.glob("*/repeat.json")
        assert list(path.parent.glob(".*")) == [], "a half-written file"
        return repeat.Repeat.model_validate_json(path.read_text())


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Case:
    return Case(monkeypatch, tmp_path)


def test_series_is_run_as_well_if_it_is_named(case: Case) -> None:
    assert case.go(PASS, PASS, series=("lockless-aging",)) == 0
    assert [options.base_only for options in case.plan.options] == [False, False]


def test_all_pass(case: Case) -> None:
    assert case.go(PASS, PASS, PASS) == 0
    assert [options.seed for options in case.plan.options] == [7, 8, 9]
    assert all(options.base_only for options in case.plan.options)
    assert "test_a      6 pass      0 fail      0 error      0 unproven\n" in case.text
    assert "\n3 runs: 3 pass\n" in case.text
    record = case.record
    assert (record.count, record.reason, record.verdict) == (3, "", "pass")
    assert record.seeds == (7, 8, 9)
    assert [(run.seed, run.folder) for run in record.runs] == [
        (7, "run-1"),
        (8, "run-2"),
        (9, "run-3"),
    ]
    assert record.checks == {
        "test_a": {"n1": {"pass": 3}, "a57": {"pass": 3}},
        "test_b": {"n1": {"pass": 3}, "a57": {"pass": 3}},
    }
    assert record.cells == {"n1": {"pass": 3}, "a57": {"pass": 3}}


def test_the_file_is_what_is_documented(case: Case) -> None:
    case.go(PASS)
    (path,) = case._parent.glob("*/repeat.json")
    raw = json.loads(path.read_text())
    assert raw["schema"] == 1
    documented = (Path(__file__).parent.parent / "docs" / "summary.md").read_text()
    section = documented.partition("## repeat.json")[2]
    assert all(f"| `{key}` |" in section for key in raw)


def test_a_false_alarm_is_told_with_its_cell_and_seed(case: Case) -> None:
    assert case.go(PASS, {"test_a": "pass", "test_b": "fail"}, {"test_a": "unproven"}) == 1
    lines = [line.strip() for line in case.text.splitlines()]
    assert "test_b      4 pass      1 fail      0 error      0 unproven" in lines
    assert "in a57: 1 fail" in lines
    assert "test_a      5 pass      0 fail      0 error      1 unproven" in lines
    assert "in a57: 1 unproven" in lines
    assert "seed 8 (run-2): fail" in lines
    assert "3 runs: 1 fail, 1 pass, 1 unproven" in lines


@pytest.mark.parametrize(
    ("outcome", "code"), [("pass", 0), ("fail", 1), ("error", 3), ("unproven", 4)]
)
def test_the_exit_code_is_the_worst(case: Case, outcome: Outcome, code: int) -> None:
    assert case.go(PASS, {"test_a": outcome}, PASS) == code


def test_an_error_is_counted_and_the_next_run_goes_on(case: Case) -> None:
    assert case.go(PASS, InfraError("QEMU ended with 1"), PASS) == 3
    assert "3 runs: 1 error, 2 pass" in case.text
    assert "seed 8 (run-2): error: QEMU ended with 1" in case.text
    record = case.record
    assert [run.verdict for run in record.runs] == ["pass", "error", "pass"]
    assert record.checks["test_a"]["n1"] == {"pass": 3}, "what it showed before counts"
    assert record.checks["test_a"]["a57"] == {"pass": 2}


def test_a_failure_before_an_error_stays_a_failure(case: Case) -> None:
    assert case.go(PASS, InfraError("FAIL, then trouble"), PASS) == 1
    assert case.record.runs[1].verdict == "fail"


def test_a_run_without_a_folder_is_an_error(case: Case) -> None:
    assert case.go(PASS, OSError(), PASS) == 3
    assert case.record.runs[1].folder == ""
    assert case.record.runs[1].reason == "no folder"


def test_three_errors_in_a_row_end_it(case: Case) -> None:
    errors = [InfraError(f"number {at}") for at in range(3)]
    assert case.go(errors[0], errors[1], PASS, *errors, PASS) == 3
    assert len(case.plan.options) == 6
    assert "6 runs of 7 (3 runs in a row ended in an error, the last: number 2)" in case.text
    assert case.record.reason.startswith("3 runs in a row")


def test_three_errors_at_the_end_are_no_early_end(case: Case) -> None:
    case.go(PASS, *[InfraError("x") for _ in range(3)])
    assert case.record.reason == ""


@pytest.mark.parametrize("at", [0, 2])
def test_interrupted(case: Case, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        case.go(*[PASS] * at, KeyboardInterrupt(), PASS)
    assert f"{at} runs of {at + 2} (interrupted)" in case.text
    record = case.record
    assert len(record.runs) == at
    assert record.reason == "interrupted"


def test_wrong_input_ends_it_at_once(case: Case) -> None:
    error = UsageError("inventory.yaml:3: unknown key")
    with pytest.raises(UsageError, match="unknown key"):
        case.go(error, PASS)
    assert len(case.plan.options) == 1
    assert case.record.reason == str(error)


def test_an_unexpected_exception_is_not_called_an_interruption(case: Case) -> None:
    with pytest.raises(ZeroDivisionError):
        case.go(PASS, ZeroDivisionError("at x"), PASS)
    assert case.record.reason == "ZeroDivisionError: at x"
    assert len(case.record.runs) == 1


def test_the_record_is_there_while_runs_go_on(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, str]] = []
    execute = FakeRun.execute

    def watched(run: FakeRun) -> Summary:
        if len(case.plan.options) > 1:
            seen.append((len(case.record.runs), case.record.reason))
        return execute(run)

    monkeypatch.setattr(FakeRun, "execute", watched)
    case.go(PASS, PASS, PASS)
    assert seen == [(1, "the runs are not over yet"), (2, "the runs are not over yet")]


def test_a_reason_cannot_write_on_the_terminal(case: Case) -> None:
    case.go(InfraError("a\x1b[2J\nb: 50 pass"), PASS)
    assert "\x1b" not in case.text
    assert "\nb: 50 pass" not in case.text
