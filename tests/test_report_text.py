# SPDX-License-Identifier: GPL-2.0-only
"""The report on the terminal: complete, literal, and deaf to what a host wrote."""

from __future__ import annotations

import io
import re
from typing import Literal, get_args

import pytest
from made_up import a_cell, a_check, a_summary
from rich.console import Console

from harness.report.matrix import short_name
from harness.report.text import EACH_CHECK, EMULATION, MAX_EVIDENCE, MAX_SPLATS, text_report
from harness.results import SERIES, Cell, Check, KernelLabel, Outcome, Splat, Summary

Verdict = Literal["pass", "fail", "error", "unproven"]
STYLE = re.compile(r"\x1b\[[0-9;]*m")
MARKS = {"pass": "ok", "fail": "FAIL", "error": "error", "unproven": "?", "skip": "-"}
HOSTILE = "a[2J\x1b[2J\x1b]0;owned\x07 \x9b31m \u202egnp.exe\r\nverdict: pass: all well\x08"


def cell(
    kernel: KernelLabel = "base",
    outcome: Outcome = "pass",
    *,
    mode: Literal["vhe", "nvhe", "protected"] = "vhe",
    reason: str = "",
    variant: str = "",
    seen: Literal["hardware", "software"] | None = "hardware",
) -> Cell:
    return a_cell(
        kernel,
        id="-".join(part for part in ("n1", mode, kernel, variant) if part),
        kvm_mode=mode,
        af_observed=seen,
        variant=variant,
        outcome=outcome,
        reason=reason,
    )


def check(
    of: Cell,
    outcome: Outcome = "pass",
    name: str = "test_page_idle",
    *,
    expected: str = "4096 young",
    observed: str = "4095 young",
    reason: str = "",
    evidence: tuple[str, ...] = ("cells/x/dump.txt",),
    also: bool = False,
) -> Check:
    return a_check(
        name,
        cell=of.id,
        outcome=outcome,
        expected=expected,
        observed=observed,
        reason=reason,
        evidence=evidence,
        also_on_base=also,
    )


def summary(
    cells: tuple[Cell, ...] = (),
    checks: tuple[Check, ...] = (),
    verdict: Verdict = "pass",
    *,
    reason: str = "",
    emulated: bool = True,
    notes: tuple[str, ...] = (),
) -> Summary:
    return a_summary(
        verdict=verdict,
        reason=reason,
        seconds=61.6,
        emulated=emulated,
        notes=notes,
        cells=cells,
        checks=checks,
    )


def shown(run: Summary, *, terminal: bool = False, width: int = 160) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, highlight=False)
    console.print(text_report(run))
    return out.getvalue()


def row(text: str, *words: str) -> list[str]:
    (found,) = [line for line in text.splitlines() if line.split()[: len(words)] == list(words)]
    return found.split()


def legend(text: str) -> list[str]:
    """The entries of the lines that tell what numbers and marks mean."""
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("1 "))
    entries = []
    for line in lines[start:]:
        if not line.strip():
            break
        entries += re.split(r"   +", line.strip())
    return entries


def test_the_matrix() -> None:
    cells = (
        cell("patched", "fail", mode="protected", seen=None),
        cell("patched", variant="sw-af", seen="software"),
        cell("patched"),
        cell("base"),
    )
    checks = (check(cells[0], "fail"), check(cells[3]), check(cells[3], "skip", "test_thp"))
    text = shown(summary(cells, checks, "fail"))
    lines = text.splitlines()
    assert [line.split() for line in lines[:2]] == [
        ["AF", "AF"],
        ["host", "KVM", "mode", "kernel", "expected", "observed", "1", "2", "verdict"],
    ]
    assert [line.split()[1:4] for line in lines[2:6]] == [
        ["vhe", "base", "hardware"],
        ["vhe", "patched", "hardware"],
        ["vhe", "patched", "+sw-af"],
        ["protected", "patched", "hardware"],
    ]
    assert row(text, "n1", "vhe", "base")[3:] == ["hardware", "hardware", "ok", "-", "pass"]
    assert row(text, "n1", "protected")[3:] == ["hardware", "-", "FAIL", ".", "FAIL"]
    assert legend(text) == ["1 page idle", "2 thp", "- skipped", ". did not run"]


@pytest.mark.parametrize("width", [80, 120])
def test_more_checks_than_fit_are_numbers_by_cell(width: int) -> None:
    cells = (cell("patched", "fail", mode="protected"), cell("base"))
    checks = [check(of, name=f"test_{at}[x]") for of in cells for at in range(64)]
    checks += [check(cells[0], "fail", "test_64"), check(cells[1], "skip", "test_64")]
    text = shown(summary(cells, tuple(checks), "fail"), width=width)
    assert row(text, "host")[6:] == ["pass", "FAIL", "skip", "verdict"]
    assert row(text, "n1", "vhe", "base")[5:] == ["64", "0", "1", "pass"]
    assert row(text, "n1", "protected", "patched")[5:] == ["64", "1", "0", "FAIL"]
    assert EACH_CHECK in text
    assert "\u2026" not in text


def test_a_width_that_is_enough_has_a_column_for_each_check() -> None:
    one = cell()
    checks = tuple(check(one, name=f"test_{at}") for at in range(64))
    text = shown(summary((one,), checks), width=260)
    assert row(text, "n1", "vhe", "base")[5:] == ["ok"] * 64 + ["pass"]
    assert legend(text)[63] == "64 63"
    assert EACH_CHECK not in text


def test_a_run_without_cells_has_no_matrix() -> None:
    assert "KVM mode" not in shown(summary())


def test_column_has_the_worst_of_a_check_with_all_its_parameters() -> None:
    one = cell(outcome="fail")
    checks = (
        check(one, "pass", "test_a[anon]"),
        check(one, "fail", "test_a[thp]"),
        check(one, "skip", "test_b[x]"),
        check(one, "pass", "test_b[y-z]"),
    )
    text = shown(summary((one,), checks, "fail"))
    assert row(text, "n1", "vhe", "base")[-3:] == ["FAIL", "ok", "FAIL"]
    assert legend(text) == ["1 a", "2 b", "- skipped"]


def test_marks_that_are_not_used_are_not_explained() -> None:
    one = cell()
    assert legend(shown(summary((one,), (check(one),)))) == ["1 page idle"]


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_legend_entry_stands_in_one_piece(width: int) -> None:
    one = cell()
    names = [f"test_the_long_name_of_{number}" for number in range(12)]
    text = shown(summary((one,), tuple(check(one, name=name) for name in names)), width=width)
    assert legend(text) == [f"{at} the long name of {at - 1}" for at in range(1, 13)]
    assert all(len(line) <= width for line in text.splitlines())


def test_ten_checks_fit_a_terminal_of_80_columns() -> None:
    one = cell("patched", mode="protected", variant="sw-af", seen="software")
    checks = tuple(check(one, name=f"test_{number}") for number in range(10))
    lines = shown(summary((one,), checks), width=80).splitlines()
    assert lines[1].split() == [
        *("host", "KVM", "mode", "kernel", "expected", "observed"),
        *(str(number) for number in range(1, 11)),
        "verdict",
    ]
    assert lines[2].split()[1:] == ["protected", "patched", "hardware", "software"] + 10 * [
        "ok"
    ] + ["pass"]
    assert lines[3].split() == ["+sw-af"]


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome(outcome: Outcome) -> None:
    one = cell(outcome=outcome)
    text = shown(summary((one,), (check(one, outcome, reason="because"),)))
    word = "FAIL" if outcome == "fail" else outcome
    assert row(text, "n1", "vhe", "base")[5:] == [MARKS[outcome], word]
    told = f"{word}  test_page_idle in n1-vhe-base" in text
    assert told == (outcome not in ("pass", "skip"))
    if told:
        assert "expected: 4096 young" in text
        assert "observed: 4095 young" in text
        assert "reason:   because" in text
        assert "evidence: cells/x/dump.txt" in text
    assert f"(1 cell, 1 {outcome}; 62 s; seed 1)" in text


@pytest.mark.parametrize("verdict", get_args(Verdict))
def test_the_verdict_is_the_last_line(verdict: Verdict) -> None:
    last = shown(summary(verdict=verdict)).splitlines()[-1]
    word = "FAIL" if verdict == "fail" else verdict
    assert re.fullmatch(rf"verdict: {word}: [a-z].* \(0 cells; 62 s; seed 1\)", last)
    early = shown(summary(verdict=verdict, reason="interrupted")).splitlines()[-1]
    assert early == f"verdict: {word}: interrupted (0 cells; 62 s; seed 1)"


def test_counts() -> None:
    one, two = cell(), cell("patched", "fail")
    checks = (check(one), check(two), check(two, "fail", "test_b"), check(two, "error", "test_c"))
    text = shown(summary((one, two), checks, "fail"))
    assert "(2 cells, 2 pass, 1 fail, 1 error; 62 s; seed 1)" in text


def test_what_emulation_cannot_show_is_said_of_emulation_only() -> None:
    words = EMULATION.split(".")[0]
    assert words in shown(summary())
    assert words not in shown(summary(emulated=False))


def test_an_af_that_was_not_expected_stands_out() -> None:
    wrong = shown(summary((cell(seen="software"),)), terminal=True)
    assert re.search(r"\x1b\[1;31msoftware", wrong)
    assert "\x1b[1;31m" not in shown(summary((cell(),)), terminal=True)


def test_why_a_cell_ended_and_notes() -> None:
    one = cell("patched", "fail", reason="Kernel panic - not syncing")
    text = shown(summary((one,), (), "fail", notes=("another base",)))
    assert "FAIL  n1-vhe-patched: Kernel panic - not syncing" in text
    assert "note: another base" in text


def test_the_same_in_several_cells_is_told_once() -> None:
    cells = (cell(), cell(mode="nvhe"), cell(mode="protected"))
    text = shown(summary(cells, tuple(check(one, "fail") for one in cells), "fail"))
    assert text.count("expected: 4096 young") == 1
    assert "the same in: n1-nvhe-base, n1-protected-base" in text


@pytest.mark.parametrize(
    "other", [{"observed": "0 young"}, {"reason": "other"}, {"also": True}, {"expected": "none"}]
)
def test_what_differs_is_not_told_as_the_same(other: dict[str, object]) -> None:
    cells = (cell(), cell("patched"))
    checks = (check(cells[0], "fail"), check(cells[1], "fail", **other))  # type: ignore[arg-type]
    text = shown(summary(cells, checks, "fail"))
    assert "the same in" not in text
    assert "test_page_idle in n1-vhe-patched" in text


def test_also_on_base_is_marked() -> None:
    cells = (cell(), cell("patched"))
    checks = (check(cells[0], "fail"), check(cells[1], "fail", also=True))
    text = shown(summary(cells, checks, "fail"))
    assert "in n1-vhe-base\n" in text
    assert "in n1-vhe-patched  (the base kernel as well)\n" in text


def test_evidence_that_is_left_out_is_counted() -> None:
    one = cell()
    files = tuple(f"f{number}" for number in range(MAX_EVIDENCE + 3))
    text = shown(summary((one,), (check(one, "fail", evidence=files),), "fail"))
    assert text.count("evidence: ") == MAX_EVIDENCE
    assert "and 3 files more" in text


@pytest.mark.parametrize("markup", ["[bold]x[/bold]", "[/]", "[red-4]", "[link=x]y"])
def test_markup_is_literal(markup: str) -> None:
    one = cell(outcome="fail", reason=markup, variant=markup)
    checks = (
        check(one, "fail", markup, expected=markup, observed=markup, reason="r" + markup),
        check(one, "error", "test_b", evidence=(markup,)),
    )
    text = shown(summary((one,), checks, "fail", reason=markup, notes=(markup,)), width=400)
    for words in ("expected: ", "observed: ", "reason:   r", "evidence: ", "note: ", "verdict: "):
        assert any(words in line and markup in line for line in text.splitlines()), words
    assert legend(text)[0] == f"1 {short_name(markup)}"
    assert f"+{markup}" in text.splitlines()[2]


@pytest.mark.parametrize("terminal", [True, False])
def test_nothing_of_a_host_reaches_the_terminal_raw(terminal: bool) -> None:
    one = cell(outcome="fail", reason=HOSTILE)
    checks = (
        check(one, "fail", expected=HOSTILE, observed=HOSTILE, reason=f"r{HOSTILE}"),
        check(one, "unproven", f"test_{HOSTILE}", evidence=(HOSTILE,)),
    )
    run = summary((one,), checks, "fail", reason=HOSTILE, notes=(HOSTILE,))
    text = shown(run, terminal=terminal, width=400)
    plain = STYLE.sub("", text)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", plain)
    assert plain.count(r"\x1b[2J") >= 7
    assert "2 a[2J" in plain, "the legend is there too"
    # The only line that gives a verdict is the harness's own.
    given = [line for line in plain.splitlines() if line.startswith("verdict:")]
    assert len(given) == 1
    assert given[0].startswith("verdict: FAIL: a[2J")


def test_nothing_ran_at_all() -> None:
    text = shown(summary(verdict="unproven"))
    assert text.splitlines()[-1].startswith("verdict: unproven: ")


def test_a_check_of_the_series_itself_has_a_line_and_no_column() -> None:
    base = cell("base")
    own = check(base, "fail", "build_without_kvm", observed="undefined reference", reason="why")
    own = own.model_copy(update={"cell": SERIES})
    text = shown(summary((base,), (own, check(base)), "fail"))
    assert legend(text)[0] == "1 page idle"
    assert row(text, "series:") == [
        *("series:", "FAIL", "build", "without", "kvm:", "undefined", "reference")
    ]
    assert "FAIL  build_without_kvm in series" in text
    assert row(text, "n1", "vhe", "base")[-2:] == ["ok", "pass"]


def struck(title: str = "WARNING: CPU: 0 PID: 83 at a.c:1 f+0x1/0x2") -> Cell:
    known = Splat(kind="warn", title="known", key="warn: g", on_base=True)
    new = Splat(kind="warn", title=title, key="warn: f", count=7, where=("f (a.c:1)", "h (b.c:2)"))
    update = {"splats": (known, new), "splat_file": "cells/x/splats.txt"}
    return cell("patched", "fail").model_copy(update=update)


def test_what_the_kernel_reported() -> None:
    one = struck()
    lines = shown(summary((one,), (check(one, "fail"),), "fail")).splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("kernel log of "))
    told = [line.strip() for line in lines[at : at + 6]]
    assert told == [
        f"kernel log of {one.id}: 2 distinct reports",
        "7 times: WARNING: CPU: 0 PID: 83 at a.c:1 f+0x1/0x2",
        "f (a.c:1)",
        "h (b.c:2)",
        "known  (the base kernel as well)",
        "evidence: cells/x/splats.txt",
    ]


def test_many_reports_are_told_in_few_lines() -> None:
    one = struck()
    many = one.model_copy(update={"splats": one.splats * 20})
    assert f"and {40 - MAX_SPLATS} more" in shown(summary((many,), (), "fail"))


def test_a_report_cannot_speak_to_the_terminal() -> None:
    text = shown(summary((struck(HOSTILE),), (), "fail"), terminal=True)
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert not any(line.startswith("verdict: pass") for line in text.splitlines())
