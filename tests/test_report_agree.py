# SPDX-License-Identifier: GPL-2.0-only
"""Every form of one run says the same numbers, read back from the form itself."""

from __future__ import annotations

import email
import email.policy
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from report_runs import random_run
from rich.console import Console

from harness.report import annotations as github
from harness.report import drawn
from harness.report.command import FORMATS
from harness.report.counts import EFFECTS, ORDER, Counts, by_outcome, count
from harness.report.html import html_report
from harness.report.junit import CELL, EARLY, FIGURES, junit
from harness.report.kcidb import ROOT, STATUS, kcidb
from harness.report.ktap import EARLY as KTAP_EARLY
from harness.report.ktap import ktap
from harness.report.mail import mail
from harness.report.markdown import markdown
from harness.report.text import text_report
from harness.results import Outcome, Summary
from harness.selftests import ktap as reader

SEEDS = range(40)


def nothing(path: str) -> None:
    """No run folder."""


def counts(cells: int, outcomes: Iterable[Outcome], verdicts: Mapping[str, int]) -> Counts:
    found = Counter(outcomes)
    return Counts(
        cells,
        {kind: found[kind] for kind in ORDER},
        {kind: verdicts.get(kind, 0) for kind in EFFECTS},
    )


def in_words(text: str) -> Counts:
    """From the words that most have: "(15 cells, 434 pass; 2 figures: 1 worse, 1 same; ...)"."""
    (words,) = re.findall(
        r"\((\d+ cells?(?:, \d+ [a-z]+)*(?:; \d+ figures?: \d+ [^;)]*)?)[;)]",
        " ".join(text.split()),
    )
    numbers = {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", words)}
    cells = numbers.pop("cells", 0) + numbers.pop("cell", 0)
    figures = numbers.pop("figures", 0) + numbers.pop("figure", 0)
    verdicts = {kind: numbers.pop(kind, 0) for kind in EFFECTS}
    assert sum(verdicts.values()) == figures
    return Counts(cells, {kind: numbers.pop(kind, 0) for kind in ORDER}, verdicts)


def of_text(run: Summary) -> Counts:
    out = io.StringIO()
    Console(file=out, width=200, highlight=False).print(text_report(run))
    return in_words(out.getvalue())


def of_mail(run: Summary) -> Counts:
    message = email.message_from_bytes(mail(run, nothing).encode(), policy=email.policy.default)
    head, *_ = message.get_content().split("\n\n")
    words = " ".join(line for line in head.split("\n") if not line.startswith("  | "))
    (cells,) = re.findall(r"\((\d+) cells?[;)]", " ".join(words.split()))
    found = Counter[str]()
    for of in re.findall(r"(?:patched|base|series) (\d+ [a-z]+(?:, \d+ [a-z]+)*)", words):
        found.update({kind: int(number) for number, kind in re.findall(r"(\d+) ([a-z]+)", of)})
    of_figures = re.findall(r"^\d+ figures?: (.*)\.$", message.get_content(), re.MULTILINE)
    numbers = re.findall(r"(\d+) ([a-z]+)", " ".join(of_figures))
    verdicts = {kind: int(number) for number, kind in numbers}
    entries = Counter(re.findall(rf"^({'|'.join(EFFECTS)})  ", message.get_content(), re.MULTILINE))
    assert entries == verdicts
    return Counts(
        int(cells),
        {kind: found[kind] for kind in ORDER},
        {kind: verdicts.get(kind, 0) for kind in EFFECTS},
    )


def of_markdown(run: Summary) -> Counts:
    """From the sentence; the rows of the matrix are as many as the cells."""
    text = markdown(run, nothing)
    rows = [
        line for line in text.split("\n") if re.match(r"\| [^|]+ \| (vhe|nvhe|protected) \|", line)
    ]
    found = in_words(text)
    assert len(rows) == found.cells
    ends = re.findall(
        rf"\| (?:\*\*)?({'|'.join(EFFECTS)})(?:\*\*)? \| [^|]* \|$", text, re.MULTILINE
    )
    assert Counter(ends) == +Counter(found.figures)
    return found


def of_junit(run: Summary) -> Counts:
    """A case for each check; those of a cell's own end and of the run's are not counted.

    The suites' own totals are those of their cases, so they have these two on top.
    """
    root = ET.fromstring(junit(run))
    suites = [suite for suite in root if suite.get("name") not in ("series", "run", FIGURES)]
    cases = [case for case in root.iter("testcase") if case.get("name") not in (CELL, EARLY)]
    found = [
        (node.get("name", ""), int(node.get("value", "")))
        for node in root.findall(f"testsuite[@name='{FIGURES}']/properties/property")
    ]
    told = [line.split(":")[0] for line in _text(root, FIGURES).splitlines()]
    assert Counter(told) == +Counter(dict(found))
    return counts(len(suites), map(_junit_outcome, cases), dict(found))


def _text(root: ET.Element, suite: str) -> str:
    return root.findtext(f"testsuite[@name='{suite}']/system-out", "")


def _junit_outcome(case: ET.Element) -> Outcome:
    tags: Mapping[str, Outcome] = {"failure": "fail", "error": "error", "skipped": "skip"}
    for node in case:
        if node.tag in tags:
            unproven = node.get("message", "").startswith("unproven: ")
            return "unproven" if unproven else tags[node.tag]
    return "pass"


def of_ktap(run: Summary) -> Counts:
    results = reader.parse(ktap(run))
    assert results.problems == ()
    cells = [point for point in results.points if point.name not in ("series", KTAP_EARLY)]
    for point in results.points:
        assert point.subtests is None or point.subtests.problems == ()
    checks = [
        check for point in results.points if point.subtests for check in point.subtests.points
    ]
    words = in_words(ktap(run).splitlines()[-1])
    verdicts = Counter(re.findall(r"^# figure: ([a-z]+): ", ktap(run), re.MULTILINE))
    assert +Counter(words.figures) == verdicts
    return counts(len(cells), map(_ktap_outcome, checks), verdicts)


def _ktap_outcome(point: reader.Point) -> Outcome:
    by_form: Mapping[tuple[bool, str], Outcome] = {
        (True, ""): "pass",
        (False, ""): "fail",
        (False, "ERROR"): "error",
        (False, "SKIP"): "unproven",
        (True, "SKIP"): "skip",
    }
    return by_form[point.ok, point.directive]


def of_kcidb(run: Summary) -> Counts:
    """A test for each check, below that of its cell; figures are DONE."""
    outcomes = {status: outcome for outcome, status in STATUS.items()}
    value = json.loads(kcidb(run, "name", nothing))
    every = value["tests"]
    tests = [one for one in every if one["status"] != "DONE"]
    words = in_words(every[0]["comment"])
    # One for each kernel that the figure has a value of, as far as the kernel has a build.
    built = {one["checkout_id"].rpartition("/")[2] for one in value["builds"]}
    done = Counter(one["misc"]["verdict"] for one in every if one["status"] == "DONE")
    both = ((figure, {"base": figure.base, "patched": figure.patched}) for figure in run.figures)
    assert done == Counter(
        figure.verdict
        for figure, values in both
        for label, some in values.items()
        if some and label in built
    )
    cells = [one for one in tests if re.fullmatch(rf"{ROOT}\.[^.]+", one["path"])]
    checks = [outcomes[one["status"]] for one in tests if one["path"].count(".") >= 2]
    assert len(tests) == 1 + len(cells) + len(checks)
    return counts(len(cells), checks, {str(kind): number for kind, number in words.figures.items()})


def of_html(run: Summary) -> Counts:
    """From the table at its head; each check stands once on the page, and each cell."""
    text = html_report(run, Path("absent"))
    table = text.partition('<table id="counts">')[2].partition("</table>")[0]
    rows = {
        of: {kind: int(number) for kind, number in re.findall(r'data-outcome="(\w+)">(\d+)<', row)}
        for of, row in re.findall(r'<tr data-of="(\w+)">(.*)</tr>', table)
    }
    boxes = re.findall(r'<details class="box (check|cell) \w+" data-outcome="(\w+)"', text)
    for of, ends in rows.items():
        assert Counter(end for kind, end in boxes if of == f"{kind}s") == Counter(
            {kind: number for kind, number in ends.items() if kind != "all" and number}
        )
    verdicts = {kind: int(n) for kind, n in re.findall(r'data-verdict="(\w+)">(\d+)<', text)}
    section = text.partition('<section id="figures">')[2].partition("</section>")[0]
    shown = Counter(re.findall(rf'<span class="outcome ({"|".join(EFFECTS)})">', section))
    assert shown == +Counter(verdicts)
    checks = {kind: rows["checks"][kind] for kind in ORDER}
    return Counts(rows["cells"]["all"], checks, {kind: verdicts.get(kind, 0) for kind in EFFECTS})


FORMS: Mapping[str, Callable[[Summary], Counts]] = {
    "text": of_text,
    "markdown": of_markdown,
    "html": of_html,
    "junit": of_junit,
    "ktap": of_ktap,
    "kcidb": of_kcidb,
    "mail": of_mail,
}


@pytest.fixture(autouse=True)
def no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take nearly all of the time, and have no count."""
    monkeypatch.setattr(drawn, "MAX_PLOTS", 0)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_says_what_was_counted(form: str) -> None:
    for seed in SEEDS:
        run = random_run(seed)
        assert FORMS[form](run) == count(run), f"seed {seed}"


def test_annotations_tell_of_every_check_that_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no sum, and one for all cells where a check ended alike; GitHub hides the rest."""
    monkeypatch.setattr(github, "MOST", 1000)
    words: Mapping[str, Outcome] = {
        "fails": "fail", "ends in error": "error", "is unproven": "unproven"
    }  # fmt: skip
    title = re.compile(rf"title=test_\S+ ({'|'.join(words)})(?: in ([^:]*))?::")
    for seed in SEEDS:
        run = random_run(seed)
        found = Counter[Outcome]()
        for word, cells in title.findall(github.github(junit(run))):
            found[words[word]] += cells.count("%2C") + 1
        told = by_outcome(run.checks)
        assert found == Counter({kind: told[kind] for kind in words.values()}), f"seed {seed}"


def test_annotations_tell_of_every_figure_that_is_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(github, "MOST", 1000)
    for seed in SEEDS:
        run = random_run(seed)
        lines = github.github(junit(run)).splitlines()
        notices = [line for line in lines if line.startswith("::notice ")]
        found = sum(len(re.findall(r"(?:::|%0A\s*)worse: ", line)) for line in notices)
        assert found == count(run).figures["worse"], f"seed {seed}"


def test_junit_s_own_totals_are_explained() -> None:
    """docs/reports.md: on top of the checks, one for each cell that says itself how it ended, and
    one for a run that ended early."""
    kinds: Mapping[str, tuple[Outcome, ...]] = {
        "tests": ORDER, "failures": ("fail",), "errors": ("error",),
        "skipped": ("skip", "unproven"),
    }  # fmt: skip
    for seed in SEEDS:
        run = random_run(seed)
        root = ET.fromstring(junit(run))
        own: list[Outcome] = [cell.outcome for cell in run.cells if cell.reason]
        own += ["error"] if run.reason else []
        for name, outcomes in kinds.items():
            total = sum(int(suite.get(name, "")) for suite in root)
            checks = sum(count(run).checks[kind] for kind in outcomes)
            assert total == checks + sum(kind in outcomes for kind in own), f"seed {seed}: {name}"


def test_no_form_is_forgotten() -> None:
    assert {*FORMS, "github"} == set(FORMATS)


@pytest.mark.parametrize("form", FORMS)
def test_hostile_words_change_no_count(form: str) -> None:
    for seed in range(20):
        run = random_run(seed, hostile=True)
        # Long words leave no room for the matrix in what GitHub takes.
        read = FORMS[form] if form != "markdown" else lambda run: in_words(markdown(run, nothing))
        assert read(run) == count(run), f"seed {seed}"


def test_the_runs_are_not_all_alike() -> None:
    runs = [random_run(seed) for seed in SEEDS]
    seen = {check.outcome for run in runs for check in run.checks}
    assert seen == set(ORDER)
    assert {figure.verdict for run in runs for figure in run.figures} == set(EFFECTS)
    assert {bool(run.reason) for run in runs} == {True, False}
    assert {run.verdict for run in runs} == {"pass", "fail", "error", "unproven"}
    assert any(not run.cells for run in runs)
    assert any(check.cell == "series" for run in runs for check in run.checks)
    assert random_run(3) == random_run(3)
