# SPDX-License-Identifier: GPL-2.0-only
"""Which failures of a run get a reproducer, and which steps go into it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness.cell import CellSpec
from harness.errors import InfraError, UsageError
from harness.progress import Progress
from harness.records import append
from harness.reproduce import command
from harness.reproduce.command import BOOT, Failure, select
from harness.reproduce.script import Boot
from harness.reproduce.sign import Sign
from harness.results import SERIES, Cell, Check, Splat, Summary

WARN = "WARNING: CPU: 0 PID: 9 at arch/arm64/kvm/mmu.c:12 f+0x1/0x2"
SPLAT = Splat(kind="warn", title=WARN, key="warn: f")


def cell(kernel: str = "patched", **fields: Any) -> Cell:
    return a_cell(kernel, **{"outcome": "fail", **fields})


def check(name: str, outcome: str = "fail", **fields: Any) -> Check:
    return a_check(name, outcome=outcome, **fields)


def run(cells: tuple[Cell, ...], *checks: Check) -> Summary:
    return a_summary(verdict="fail", cells=cells, checks=checks)


BOTH = (cell("base"), cell())
CHECKS = (
    check("a"),
    check("b", "pass"),
    check("c", "error"),
    check("d"),
    check("a", cell="n1-vhe-base"),
)


def names(found: tuple[Failure, ...]) -> list[tuple[str, str]]:
    return [(failure.cell.kernel, failure.name) for failure in found]


def test_failed_checks_of_the_patched_kernel() -> None:
    assert names(select(run(BOTH, *CHECKS), (), ())) == [("patched", "a"), ("patched", "d")]
    assert names(select(run(BOTH, *CHECKS), ("d",), ())) == [("patched", "d")]
    assert names(select(run(BOTH, *CHECKS), (), ("n1-vhe-base",))) == [("base", "a")]
    assert names(select(run(BOTH[:1], *CHECKS), (), ())) == [("base", "a")], "of the base alone"


def test_a_kernel_that_fails_before_its_checks() -> None:
    dead = cell(reason="panic", death="panic", splats=(SPLAT,))
    (found,) = select(run((dead,)), (), ())
    assert (found.name, found.observed, found.titles) == (BOOT, "panic", (WARN,))


def test_reports_that_the_base_kernel_prints_too_tell_nothing() -> None:
    old = SPLAT.model_copy(update={"title": "old", "on_base": True})
    summary = run(BOTH, check("a", splats=(old, SPLAT)), check("b"), check("c", death="panic"))
    summary = summary.model_copy(update={"cells": (cell(splats=(old, SPLAT)),)})
    assert [one.titles for one in select(summary, (), ())] == [(WARN,), (), (WARN,)]


@pytest.mark.parametrize(
    ("checks", "asked", "words"),
    [
        ((), ((), ()), "nothing in that run failed$"),
        (CHECKS, (("b",), ()), "failed in b"),
        (CHECKS, ((), ("none",)), "failed in none"),
        ((check("build", cell=SERIES),), ((), ()), "the series itself"),
    ],
)
def test_nothing_to_show(
    checks: tuple[Check, ...], asked: tuple[tuple[str, ...], tuple[str, ...]], words: str
) -> None:
    passed = tuple(one.model_copy(update={"outcome": "pass"}) for one in BOTH)
    with pytest.raises(UsageError, match=words):
        select(run(passed, *checks), *asked)


class Spec:
    """What of a CellSpec tells where its records are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder


def spec(folder: Path, *records: dict[str, object], boot: str = ".") -> CellSpec:
    path = folder / boot / "commands.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return cast("CellSpec", Spec(folder))


def failure(name: str, *titles: str) -> Failure:
    return Failure(cell(), name, "", "", "", titles, 1.0)


def work(of: CellSpec, failed: Failure) -> tuple[Any, Any, str]:
    return command._work(of, failed, command._check_of(of, failed))


def test_the_steps_of_a_check_in_whatever_boot_it_ran(tmp_path: Path) -> None:
    spec(tmp_path, {"run": "one"}, {"check": "a"}, {"run": "two"}, boot="cut-1")
    both = spec(tmp_path, {"run": "three"}, {"check": "b"}, {"run": "four"})
    assert work(both, failure("a")) == ([{"run": "one"}], [{"run": "two"}], "")
    assert work(both, failure("b")) == ([{"run": "three"}], [{"run": "four"}], "")
    assert work(both, failure(BOOT)) == ([], [], "")
    assert "did not write down" in work(both, failure("c"))[2]


def test_the_steps_of_the_check_during_which_the_kernel_reported(tmp_path: Path) -> None:
    both = spec(
        tmp_path,
        {"check": "a"},
        {"run": "one"},
        {"check": "test_kernel_log"},
        {"run": "dmesg | grep x"},
    )
    append(tmp_path / "records.jsonl", check("a", "pass"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/dmesg.txt").write_text(f"[ 1.0] {WARN}\n")
    _, done, why = work(both, failure("test_kernel_log", WARN))
    assert done == [{"run": "one"}]
    assert "during a" in why
    _, done, _ = work(both, failure("test_kernel_log", "BUG: another"))
    assert done == [{"run": "dmesg | grep x"}]


def test_how_far_the_base_kernel_was_asked_for_the_same(tmp_path: Path) -> None:
    done: list[dict[str, object]] = [{"run": "one 1"}, {"run": "two"}]
    base = spec(tmp_path, {"check": "a"}, {"run": "one 2"}, {"run": "three"})
    assert command._alike(base, "a", done) == 1
    assert command._alike(base, "b", done) == 2
    assert command._alike(None, "a", done) == 2


def test_what_is_told_of_a_difference_that_may_not_be_the_failure() -> None:
    boots = [Boot(1, True, {1: frozenset({"1 path=b"})})]
    told = command._tried(Sign("lines", 1, ("1 path=b",), sure=False), boots, boots, "")
    assert told.startswith("A difference between the kernels is seen; whether it is the failure")
    assert "that difference was seen in 1 of 1 boots of this kernel and 1 of 1" in told
    assert command._tried(Sign("lines", 1, ("1 path=b",)), boots, [], "").startswith("When this")


def test_a_check_that_names_a_report_of_its_cell_failed_by_it() -> None:
    named = check("race", reason=f"1 splats: {WARN}")
    (one,) = select(run((cell(splats=(SPLAT,)),), named), (), ())
    assert one.titles == (WARN,)
    (other,) = select(run((cell(splats=(SPLAT,)),), check("race")), (), ())
    assert other.titles == ()


OLD = UsageError("spec.json: not there, or from another version of the harness")


@pytest.fixture
def making(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Path, ...]]:
    """Makes folders of a run whose checks `a` and `d` failed, or ends as is given by check."""
    text = run(BOTH, *CHECKS).model_dump_json(by_alias=True)
    (tmp_path / "summary.json").write_text(text)

    def made(ends: Mapping[str, Exception], said: io.StringIO) -> tuple[Path, ...]:
        def make(of: Path, summary: Summary, failed: Failure, parent: Path, tries: int) -> Any:
            if failed.name in ends:
                raise ends[failed.name]
            return parent / failed.name, "seen in 2 of 2 boots"

        monkeypatch.setattr(command, "_make", make)
        progress = Progress(Console(file=said, width=200))
        return command.reproduce(command.Request(str(tmp_path)), progress)

    return made


GONE = InfraError("the kernel is in the cache no more")


@pytest.mark.parametrize("end", [OLD, GONE, OSError(28, "No space left on device")])
def test_a_failure_without_a_folder_keeps_no_other_from_its_own(
    making: Callable[..., tuple[Path, ...]], end: Exception
) -> None:
    said = io.StringIO()
    assert [path.name for path in making({"a": end}, said)] == ["d"]
    last = said.getvalue().splitlines()[-1]
    assert "1/2 n1-vhe-patched a has no folder: " in last and str(end) in last


def test_no_folder_at_all_is_no_success(making: Callable[..., tuple[Path, ...]]) -> None:
    said = io.StringIO()
    with pytest.raises(InfraError, match="no more"):
        making({"a": InfraError("no more"), "d": OLD}, said)
    assert all(f"{name} has no folder" in said.getvalue() for name in ("a", "d"))
    with pytest.raises(InfraError, match="No space left"):
        making({"a": OSError(28, "No space left on device"), "d": OLD}, said)
