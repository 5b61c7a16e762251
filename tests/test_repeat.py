# SPDX-License-Identifier: GPL-2.0-only
"""Many runs: none of their outcomes is lost, however the whole ends."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness import __version__
from harness.errors import InfraError, UsageError
from harness.options import Options
from harness.progress import Progress
from harness.records import write_atomically
from harness.repeat import command
from harness.repeat.results import Place, Repeat
from harness.results import Host, Kernel, Outcome, Summary
from harness.runinput import InputChanged
from harness.verdict import worst


def a_kernel(label: str, **fields: Any) -> Kernel:
    given = {"source": "Debian", "version": "6.12", "build_id": "ab", "config_sha256": "cd"}
    return Kernel.model_validate(
        {"label": label, "cached": True, "build_seconds": 1.0, **given, **fields}
    )


PASS: dict[str, Outcome] = {"test_a": "pass", "test_b": "pass"}


@dataclass
class Plan:
    """What the runs do one after another: outcomes of checks, or an exception on their way."""

    steps: Sequence[dict[str, Outcome] | BaseException]
    options: list[Options] = field(default_factory=list)
    summaries: dict[int, dict[str, Any]] = field(default_factory=dict)
    """Of a run, from 1 on: what its summary has of its own."""


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
        own = self.plan.summaries.get(len(self.plan.options), {})
        options = self.plan.options[-1]
        made = {
            "series": "" if options.base_only else "s",
            "series_digest": "" if options.base_only else "5e71e5",
            "kernels": (a_kernel("base"),),
            "harness_digest": "d1",
            **own,
        }
        summary = a_summary(
            verdict="error" if reason and found != "fail" else found,
            reason=reason,
            seed=options.seed,
            only=("-m quick",),
            emulator="QEMU 7.2",
            hosts=(Host(name="n1", cpu="neoverse-n1", cpus=2, memory_mib=1024),),
            **made,
            cells=tuple(
                a_cell("base", id=name, host=name, outcome=worst(checks.values()))
                for name, checks in cells.items()
            ),
            checks=tuple(
                a_check(name, cell=cell, outcome=outcome, observed="3\nyoung", reason="why" * 200)
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
        monkeypatch.setattr(command, "Run", FakeRun)

    def go(
        self,
        *steps: dict[str, Outcome] | BaseException,
        count: int = 0,
        series: tuple[str, ...] = (),
        **options: Any,
    ) -> int:
        self.plan.steps = steps
        FakeRun.plan = self.plan
        console = Console(file=self._out, width=40)
        asked = Options(output=self._parent, seed=7, series=series, **options)
        return command.repeat(asked, count or len(steps), Progress(console))

    @property
    def text(self) -> str:
        return self._out.getvalue()

    @property
    def record(self) -> Repeat:
        (path,) = self._parent.glob("*/repeat.json")
        assert list(path.parent.glob(".*")) == [], "a half-written file"
        return Repeat.model_validate_json(path.read_text())


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
    keys = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", section, re.MULTILINE))))
    assert keys == set(raw)
    assert set(raw["places"]["n1"]) == {"kernel", "host", "kvm_mode", "af_mode", "variant"}


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


def test_the_record_says_what_was_run(case: Case) -> None:
    asked = ("-k", "not slow", "-m", "quick or deep", "-x")
    case.plan.summaries[2] = {"harness_digest": "d2"}
    case.go(PASS, PASS, series=("x",), debug=True, pytest_args=asked, linux_guest=True)
    record = case.record
    assert (record.series, record.series_digest, record.debug) == ("s", "5e71e5", True)
    assert (record.marks, record.names) == ("quick or deep", "not slow")
    assert (record.own_checks, record.selftests, record.linux_guest) == (False, False, True)
    assert record.only == ("-m quick",)
    assert (record.harness, record.harness_digests) == (__version__, ("d1", "d2"))
    assert (record.emulated, record.emulators) == (True, ("QEMU 7.2",))
    assert [kernel.build_id for kernel in record.kernels] == ["ab"]
    assert [host.name for host in record.hosts] == ["n1"]
    assert record.started.endswith("+00:00")
    assert record.places["a57"] == Place(
        kernel="base", host="a57", kvm_mode="vhe", af_mode="hardware"
    )


def test_the_base_alone_is_of_no_series(case: Case) -> None:
    case.go(PASS)
    assert (case.record.series, case.record.series_digest, case.record.marks) == ("", "", "")


def test_what_did_not_pass_keeps_its_words(case: Case) -> None:
    case.go(PASS, {"test_a": "fail", "test_b": "skip"}, {"test_b": "unproven"})
    first, second = case.record.troubles
    assert (first.seed, first.cell, first.name, first.outcome) == (8, "a57", "test_a", "fail")
    assert first.observed == "3 young"
    assert first.reason.startswith("whywhy") and len(first.reason) < 340
    assert (second.seed, second.cell, second.name) == (9, "a57", "test_b")


def test_a_cell_that_ended_by_itself_keeps_its_reason() -> None:
    cells = (
        a_cell("base", outcome="error", reason="no login\nin 60 s"),
        a_cell("patched", outcome="fail"),
    )
    checks = (a_check("test_x", outcome="fail"),)
    found = list(command.troubles(a_summary(cells=cells, checks=checks)))
    assert [(one.cell, one.name, one.reason) for one in found] == [
        ("n1-vhe-patched", "test_x", ""),
        ("n1-vhe-base", "", "no login in 60 s"),
    ]


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"kernels": (a_kernel("base", build_id="ef"),)}, "base: 6.12, ab then, 6.12, ef now"),
        ({"series": "s", "series_digest": "0"}, "series: 5e71e5 then, 0 now"),
    ],
)
def test_runs_of_other_kernels_are_not_counted_together(
    case: Case, own: dict[str, Any], words: str
) -> None:
    case.plan.summaries[3] = own
    with pytest.raises(InputChanged, match=words):
        case.go(PASS, PASS, {"test_a": "fail"}, PASS, series=("x",))
    record = case.record
    assert [run.verdict for run in record.runs] == ["pass", "pass"]
    assert record.checks["test_a"]["a57"] == {"pass": 2}
    assert words in record.reason


def test_a_record_from_before_it_said_what_was_run_is_read(case: Case) -> None:
    case.go(PASS)
    new = case.record.model_dump(mode="json", by_alias=True)
    kept = ("schema", "count", "reason", "seeds", "runs", "verdict", "checks", "cells")
    old = Repeat.model_validate_json(json.dumps({key: new[key] for key in kept}))
    assert (old.checks, old.started, old.places) == (case.record.checks, "", {})
