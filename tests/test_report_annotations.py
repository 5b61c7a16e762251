# SPDX-License-Identifier: GPL-2.0-only
"""Annotations of GitHub Actions: what is no pass, and no command that a run could smuggle in."""

from __future__ import annotations

import re
from typing import Any

import pytest
from made_up import a_cell, a_check, a_summary

from harness.report import annotations as from_junit
from harness.report.annotations import MOST
from harness.report.junit import junit
from harness.results import SERIES, Check, Figure, Splat, Summary

COMMAND = re.compile(r"::(error|warning|notice) (?:file=([^,:]+),line=(\d+),)?title=([^,:]+)::(.*)")


def check(outcome: str = "fail", **fields: Any) -> Check:
    given = {"name": "test_x[a]", "reason": "it is not", "outcome": outcome}
    return a_check(**{**given, **fields})


def run(*checks: Check, **fields: Any) -> Summary:
    cells = dict.fromkeys(one.cell for one in checks if one.cell != SERIES)
    given = {"cells": tuple(a_cell(id=name) for name in cells), **fields}
    return a_summary(verdict="fail", checks=checks, **given)


def github(run: Summary) -> str:
    return from_junit.github(junit(run))


def parsed(text: str) -> list[tuple[str, ...]]:
    lines = text.split("\n")
    assert lines.pop() == ""
    found = []
    for line in lines:
        match = COMMAND.fullmatch(line)
        assert match, line
        found.append(match.groups(""))
    return found


def test_what_passes_is_not_told() -> None:
    assert github(run(check("pass"), check("skip"), cells=(a_cell(),))) == ""


@pytest.mark.parametrize(
    ("outcome", "kind", "words"),
    [
        ("fail", "error", "fails"),
        ("error", "warning", "ends in error"),
        ("unproven", "warning", "is unproven"),
    ],
)
def test_kinds(outcome: str, kind: str, words: str) -> None:
    ((found, file, line, title, message),) = parsed(github(run(check(outcome))))
    assert (found, file, line) == (kind, "", "")
    assert title == f"test_x[a] {words} in n1-vhe-patched"
    assert message == "it is not%0A    expected%3A old".replace("%3A", ":") + (
        "%0A    observed: young"
    )


def test_one_for_all_cells_where_it_ended_alike() -> None:
    checks = [check(cell=name) for name in ("a", "b", "c")] + [check("error", cell="d")]
    first, second = parsed(github(run(*checks)))
    assert first[3] == "test_x[a] fails in a%2C b%2C c"
    assert first[4].startswith("in a: it is not")
    assert second[:1] == ("warning",)


def test_a_check_of_the_series_is_in_no_cell() -> None:
    ((_, _, _, title, _),) = parsed(github(run(check(cell=SERIES, name="build"))))
    assert title == "build fails"


def test_a_figure_that_is_worse_is_a_notice_for_all_its_places() -> None:
    one = Figure(
        metric="cost-idle", what="", unit="instructions", host="n1", kvm_mode="vhe",
        af_mode="hardware", base=(1.0,), patched=(2.0,), verdict="worse",
    )  # fmt: skip
    other = one.model_copy(update={"host": "a57"})
    same = one.model_copy(update={"verdict": "same"})
    ((kind, _, _, title, message),) = parsed(github(run(figures=(same, one, other))))
    assert kind == "notice"
    assert title == "cost-idle is worse on n1 vhe hardware AF%2C a57 vhe hardware AF"
    assert message.startswith("worse: cost-idle on n1 vhe hardware AF: base 1 (n=1), patched 2")
    assert "%0A    worse: cost-idle on a57" in message


def test_file_and_line_of_what_the_kernel_reported() -> None:
    def of(site: str) -> tuple[str, ...]:
        splat = Splat(kind="warn", title="WARNING", key="k", site=site)
        return parsed(github(run(check(splats=(splat,)))))[0][1:3]

    assert of("arch/arm64/kvm/mmu.c:1640") == ("arch/arm64/kvm/mmu.c", "1640")
    for hostile in ("../../.bashrc:1", "/etc/passwd:1", "a/b.c:1::error", "a/b.c,x=y:1", "b.c", ""):
        assert of(hostile) == ("", "")


def test_the_end_of_a_run_and_of_a_cell() -> None:
    dead = a_cell(outcome="fail", reason="panic", death="panic")
    titles = {kind: title for kind, _, _, title, _ in parsed(github(run(cells=(dead,))))}
    assert titles == {"error": "n1-vhe-patched fails"}
    ((kind, _, _, title, message),) = parsed(github(run(reason="disk full")))
    assert (kind, title, message) == ("warning", "the run did not come to its end", "disk full")


def test_what_ended_a_cell_comes_before_checks_and_names_its_file() -> None:
    splats = tuple(
        Splat(kind="warn", title="WARNING", key="k", site=site) for site in ("", "mm/rmap.c:7")
    )
    dead = a_cell(id="d", outcome="fail", reason="panic", death="panic", splats=splats)
    found = parsed(github(run(check(cell="a"), cells=(a_cell(id="a"), dead))))
    assert [title for *_, title, _ in found] == ["d fails", "test_x[a] fails in a"]
    assert found[0][1:3] == ("mm/rmap.c", "7")


def test_they_say_what_the_document_says_and_nothing_else() -> None:
    document = junit(run(check(also_on_base=True), check("unproven", name="test_y")))
    changed = document.replace("it is not", "it is otherwise").replace("test_y", "test_z")
    found = parsed(from_junit.github(changed))
    assert [title for *_, title, _ in found] == [
        *("test_x[a] fails in n1-vhe-patched", "test_z is unproven in n1-vhe-patched")
    ]
    assert [message.partition("%0A")[0] for *_, message in found] == [
        *("it is otherwise (the base kernel as well)", "it is otherwise")
    ]
    assert document.count("<failure ") == 1
    assert from_junit.github(document.replace("failure", "system-out")).count("::error") == 0


def test_no_more_than_github_shows() -> None:
    checks = [check(name=f"test_{at}") for at in range(MOST + 3)]
    found = parsed(github(run(*checks, check("unproven"))))
    assert [kind for kind, *_ in found] == ["error"] * MOST + ["warning"]
    assert found[MOST - 1][3] == "and 4 more"
    assert len(parsed(github(run(*checks[:MOST])))) == MOST


@pytest.mark.parametrize(
    "text",
    ["a\n::error::b", "a\r::stop-commands::x", "%0A::add-mask::x", "x,file=/etc/passwd", "\x1b[2J"],
)
def test_a_run_cannot_say_a_command_of_its_own(text: str) -> None:
    hostile = check(name=text, cell=text, expected=text, observed=text, reason=text)
    (found,) = parsed(github(run(hostile)))
    assert found[1:3] == ("", "")
    whole = "".join(found)
    assert not re.search(r"[\r\n\x1b]", whole)
    assert not re.search(r"%(?!25|0A|3A|2C)", whole)
