# SPDX-License-Identifier: GPL-2.0-only
"""What stands where in KTAP, KCIDB, Markdown and the text's figures."""

from __future__ import annotations

import io
import json
import re
from typing import Any, get_args
from xml.etree import ElementTree as ET

import pytest
from kcidb_io.schema import V5_3
from rich.console import Console
from test_report_mail import CELL, CHECK, FIGURE, KERNEL, PASSES, but

from harness.errors import UsageError
from harness.report.junit import junit
from harness.report.kcidb import kcidb
from harness.report.ktap import ktap
from harness.report.markdown import block, code, markdown
from harness.report.text import text_report
from harness.results import SERIES, Outcome, Summary

OUTCOMES = tuple(
    CHECK.model_copy(update={"name": f"test_{kind}", "outcome": kind, "reason": "why"})
    for kind in get_args(Outcome)
)


def nothing(path: str) -> None:
    """No run folder."""


def base(run: Summary) -> Summary:
    """The run with a base kernel, and a cell of it."""
    kernel = KERNEL.model_copy(update={"label": "base", "build_id": "45"})
    cell = CELL.model_copy(update={"id": "n1-vhe-base", "kernel": "base"})
    return run.model_copy(update={"kernels": (kernel, *run.kernels), "cells": (cell, *run.cells)})


# ---- KTAP -----------------------------------------------------------------------------------


def test_ktap_keeps_five_outcomes_apart() -> None:
    lines = [
        line for line in ktap(but(checks=OUTCOMES)).split("\n") if line[:4] in ("  ok", "  no")
    ]
    assert lines == [
        "  ok 1 test_pass",
        "  not ok 2 test_fail",
        "  not ok 3 test_error # ERROR why",
        "  ok 4 test_skip # SKIP why",
        "  not ok 5 test_unproven # SKIP unproven: why",
    ]


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        ("pass", "ok 1 n1-vhe-patched"),
        ("fail", "not ok 1 n1-vhe-patched"),
        ("error", "not ok 1 n1-vhe-patched # ERROR panic"),
        ("unproven", "not ok 1 n1-vhe-patched # SKIP unproven: panic"),
        ("skip", "ok 1 n1-vhe-patched # SKIP panic"),
    ],
)
def test_ktap_of_a_cell(outcome: Outcome, line: str) -> None:
    cell = CELL.model_copy(update={"outcome": outcome, "reason": "panic"})
    assert line in ktap(but(cells=(cell,))).split("\n")


def test_ktap_is_nested_with_what_was_seen_before_the_result() -> None:
    own = CHECK.model_copy(update={"cell": SERIES, "name": "build_without_kvm"})
    fails = CHECK.model_copy(update={"outcome": "fail", "evidence": ("cells/c/a.txt",)})
    text = ktap(but(checks=(own, fails), verdict="fail", reason="interrupted"))
    assert text == (
        "KTAP version 1\n1..3\n"
        "  KTAP version 1\n  1..1\n  ok 1 build_without_kvm\nok 1 series\n"
        "  KTAP version 1\n  1..1\n"
        "  # expected: old\n  # observed: young\n  # evidence: cells/c/a.txt\n"
        "  not ok 1 test_young\n"
        "# AF expected: hardware, observed: hardware\nok 2 n1-vhe-patched\n"
        "not ok 3 all cells ran # ERROR interrupted\n"
        "# verdict: fail: interrupted (1 cell, 1 pass, 1 fail)\n"
    )


def test_ktap_of_nothing_is_no_success() -> None:
    assert "1..0 # SKIP nothing ran\n" in ktap(but(cells=(), checks=(), verdict="unproven"))


# ---- KCIDB ----------------------------------------------------------------------------------


def report(run: Summary, **options: str) -> dict[str, Any]:
    value = json.loads(kcidb(run, "20261128-113252-f1e1", nothing, **options))
    assert isinstance(value, dict)
    assert V5_3.is_valid_exactly(value)
    return value


def test_kcidb_keeps_five_outcomes_apart() -> None:
    tests = report(but(checks=OUTCOMES))["tests"]
    found = {one["path"]: one["status"] for one in tests}
    assert found == {
        "kvm_harness": "PASS",
        "kvm_harness.vhe": "PASS",
        "kvm_harness.vhe.test_pass": "PASS",
        "kvm_harness.vhe.test_fail": "FAIL",
        "kvm_harness.vhe.test_error": "ERROR",
        "kvm_harness.vhe.test_skip": "SKIP",
        "kvm_harness.vhe.test_unproven": "MISS",
    }


def test_kcidb_links_each_test_to_its_kernel() -> None:
    value = report(base(but(checks=(CHECK, CHECK.model_copy(update={"cell": "n1-vhe-base"})))))
    builds = {one["misc"]["label"]: one for one in value["builds"]}
    checkouts = {one["id"]: one for one in value["checkouts"]}
    patched, plain = (checkouts[builds[label]["checkout_id"]] for label in ("patched", "base"))
    assert patched["message_id"] == PASSES.message_id
    assert "patchset_hash" not in patched
    assert plain["patchset_hash"] == ""
    assert "message_id" not in plain
    assert builds["patched"]["compiler"] == KERNEL.compiler
    assert builds["patched"]["config_name"] == "kvm-harness"
    tests = [one for one in value["tests"] if one["path"] == "kvm_harness.vhe.test_young"]
    assert {one["build_id"] for one in tests} == {build["id"] for build in builds.values()}
    (on_patched,) = [one for one in tests if one["build_id"] == builds["patched"]["id"]]
    assert on_patched["environment"]["misc"]["cpus"][0]["midr"] == "0x414fd0c1"
    assert "emulated by QEMU 7.2.22" in on_patched["environment"]["comment"]
    assert on_patched["misc"]["expected"] == CHECK.expected
    assert on_patched["misc"]["observed"] == CHECK.observed


def test_a_host_s_own_kernel_is_told_from_that_of_others() -> None:
    """In KCIDB each test is of the build that its host booted."""
    own = KERNEL.model_copy(update={"hosts": ("altra",), "build_id": "77"})
    others = KERNEL.model_copy(update={"hosts": ("n1",)})
    cell = CELL.model_copy(update={"id": "altra-vhe-patched", "host": "altra", "machine": "altra"})
    run = but(kernels=(others, own), cells=(CELL, cell), checks=())
    value = report(run)
    builds = {one["id"]: one.get("misc", {}).get("build_id") for one in value["builds"]}
    found = {
        one["environment"]["misc"]["host"]: builds[one["build_id"]]
        for one in value["tests"]
        if "environment" in one
    }
    assert found == {"n1": KERNEL.build_id, "altra": "77"}
    assert "- patched of altra: Linux " in re.sub("`", "", markdown(run, nothing))


def test_kcidb_paths_by_variant_and_parameter() -> None:
    cell = CELL.model_copy(update={"variant": "sw-af"})
    one = CHECK.model_copy(update={"name": "test_split[thp]"})
    own = CHECK.model_copy(update={"cell": SERIES, "name": "build_without_kvm"})
    paths = {test["path"] for test in report(but(cells=(cell,), checks=(own, one)))["tests"]}
    assert {"kvm_harness.vhe-sw-af.test_split.thp", "kvm_harness.series.build_without_kvm"} <= paths


def test_kcidb_of_a_run_without_its_kernels() -> None:
    """A report of nothing would be taken for one of no trouble."""
    value = report(but(kernels=(), cells=(), checks=(), reason="disk full", verdict="error"))
    assert [one["status"] for one in value["builds"]] == ["MISS", "MISS"]
    (root,) = value["tests"]
    assert (root["path"], root["status"], root["misc"]["reason"]) == (
        *("kvm_harness", "ERROR", "disk full"),
    )


def test_kcidb_excerpt_of_the_evidence() -> None:
    fails = CHECK.model_copy(update={"outcome": "fail", "evidence": ("c/error.txt",)})
    text = kcidb(but(checks=(fails,)), "run", {"c/error.txt": "ValueError: x\n"}.get)
    (test,) = [one for one in json.loads(text)["tests"] if "log_excerpt" in one]
    assert test["log_excerpt"] == "c/error.txt\nValueError: x"


def test_kcidb_figures_are_neither_right_nor_wrong() -> None:
    tests = report(base(but(figures=(FIGURE,))))["tests"]
    found = [one for one in tests if one["path"] == "kvm_harness.vhe.figure.n1.age-page-idle"]
    assert [one["status"] for one in found] == ["DONE", "DONE"]
    assert [one["number"]["value"] for one in found] == [2311, 1450.5]
    assert found[1]["misc"]["values"] == [1450, 1451]
    for one in found:
        assert one["environment"]["misc"]["host"] == "n1"
        assert one["environment"]["misc"]["af_expected"] == "hardware"
        assert "Neoverse N1, MIDR_EL1 0x414fd0c1" in one["environment"]["comment"]
        assert "emulated by QEMU 7.2.22, KVM mode vhe" in one["environment"]["comment"]


def test_kcidb_figures_of_two_places_are_two() -> None:
    places = [("n1", "vhe", ""), ("n1", "vhe", "sw-af"), ("a57", "vhe", ""), ("n1", "nvhe", "")]
    every = tuple(
        FIGURE.model_copy(update={"host": host, "kvm_mode": mode, "variant": variant})
        for host, mode, variant in places
    )
    tests = report(base(but(figures=every)))["tests"]
    paths = {one["path"] for one in tests if one["status"] == "DONE"}
    assert paths == {
        "kvm_harness.vhe.figure.n1.age-page-idle",
        "kvm_harness.vhe-sw-af.figure.n1.age-page-idle",
        "kvm_harness.vhe.figure.a57.age-page-idle",
        "kvm_harness.nvhe.figure.n1.age-page-idle",
    }


def test_kcidb_a_figure_is_of_the_kernel_that_its_host_booted() -> None:
    own = KERNEL.model_copy(update={"hosts": ("altra",), "build_id": "77"})
    others = KERNEL.model_copy(update={"hosts": ("n1",)})
    one = FIGURE.model_copy(update={"host": "altra"})
    value = report(but(kernels=(others, own), cells=(), checks=(), figures=(one, FIGURE)))
    builds = {one["id"]: one.get("misc", {}).get("build_id") for one in value["builds"]}
    found = {
        one["environment"]["misc"]["host"]: builds[one["build_id"]]
        for one in value["tests"]
        if one["status"] == "DONE" and "patched" in one["id"]
    }
    assert found == {"n1": KERNEL.build_id, "altra": "77"}


def test_kcidb_origin() -> None:
    value = report(PASSES, origin="my_lab")
    objects = [*value["checkouts"], *value["builds"], *value["tests"]]
    assert {one["origin"] for one in objects} == {"my_lab"}
    assert all(one["id"].startswith("my_lab:20261128-113252-f1e1/") for one in objects)
    with pytest.raises(UsageError, match="--origin"):
        report(PASSES, origin="My-Lab")


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-28T11:32:52+00:00", "2026-11-28T11:32:52+00:00"),
        ("2026-11-28T11:32:52+05:30:10", "2026-11-28T06:02:42+00:00"),
        ("2026-11-28T11:32:52", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("soon", None),
    ],
)
def test_kcidb_start_is_a_time_or_is_not_there(text: str, time: str | None) -> None:
    assert report(but(started=text))["checkouts"][0].get("start_time") == time


# ---- Markdown, text -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("n1", "`n1`"),
        ("a\nb\x1b", r"<code>a b&#92;x1b</code>"),
        ("a|b", "<code>a&#124;b</code>"),
        ("`", "<code>&#96;</code>"),
        ("<b>@x", "`<b>@x`"),
        ("", "<code></code>"),
    ],
)
def test_markdown_code(text: str, shown: str) -> None:
    assert code(text) == shown


def test_markdown_fence_is_longer_than_any_in_the_text() -> None:
    assert block(["a", "````"]) == "`````text\na\n````\n`````"


def test_markdown_of_what_is_not_a_pass() -> None:
    fails = CHECK.model_copy(update={"outcome": "fail", "evidence": ("c/error.txt",)})
    text = markdown(but(checks=(fails,), verdict="fail"), {"c/error.txt": "ValueError: x\n"}.get)
    assert text.startswith("## Series `harvest`: FAIL\n")
    for words in (
        "| `n1` | vhe | `patched` | hardware | hardware | **FAIL** | pass |",
        "1 `young`; ",
        "#### **FAIL** `test_young` in `n1-vhe-patched`",
        "expected: old\nobserved: young\n",
        "From `c/error.txt`:\n\n```text\nValueError: x\n```",
        "Evidence: `c/error.txt`",
        "- host `n1`: `Neoverse N1, MIDR_EL1 0x414fd0c1, CPUs 0-1`, emulated by `QEMU 7.2.22`",
        "### Limits of this run\n\n- `another base`\n\n> Emulated hosts show",
    ):
        assert words in text
    heads = ("Limits of this run", "What is not a pass", "What was tested")
    assert sorted(heads, key=text.index) == list(heads)
    assert text.startswith(
        "## Series `harvest`: FAIL\n\n"
        "With the series `test_young` fails (`n1`, VHE). (1 cell, 1 fail; 12 s)"
    )


def test_markdown_figures() -> None:
    row = markdown(but(figures=(FIGURE,)), nothing).split("### Figures")[1].split("\n")[4]
    assert row == (
        "| `age-page-idle` | `n1 vhe hardware AF` | 2311 (n=2) | 1450 (n=2) "
        "| `instructions, under TCG` | -37.2 %, 95 % interval -38.0 % to -36.0 % | better "
        "| `beyond the noise; could have shown 1.2 %` |"
    )


@pytest.mark.parametrize("word", ["`" * 9, "word ", "|" * 900])
def test_markdown_has_a_bound_and_no_fence_is_cut(word: str) -> None:
    """GitHub takes 65536 characters for a comment."""
    words = (word * 5000)[:5000]
    count = range(300)
    cells = tuple(CELL.model_copy(update={"id": f"c{n}", "reason": words}) for n in count)
    checks = tuple(
        CHECK.model_copy(
            update={"cell": f"c{n}", "name": f"test_{n}", "outcome": "fail", "expected": words}
        )
        for n in count
    )
    huge = but(
        cells=cells, checks=checks, figures=(FIGURE,) * 300, notes=(words,) * 300,
        patches=(words,) * 300,
    )  # fmt: skip
    text = markdown(huge, lambda path: f"error: {words}\n" * 50)
    assert len(text) <= 65536
    assert len(re.findall("^`{3,}(text)?$", text, re.MULTILINE)) % 2 == 0
    assert text.rstrip().endswith("more parts of this report, see `summary.json`")
    assert "and 290 more cells, see `summary.json`" in text


def test_markdown_counts_what_it_leaves_out() -> None:
    own = [CHECK.model_copy(update={"cell": SERIES, "name": f"build_{n}"}) for n in range(12)]
    fails = [
        CHECK.model_copy(update={"cell": f"c{n}", "outcome": "fail", "expected": f"{min(n, 20)}"})
        for n in range(70)
    ]
    text = markdown(
        but(
            cells=tuple(CELL.model_copy(update={"id": f"c{n}"}) for n in range(70)),
            checks=(*own, *fails), figures=(FIGURE,) * 50, notes=("note",) * 30,
            patches=("patch",) * 30,
        ),
        nothing,
    )  # fmt: skip
    for words in (
        "and 10 more cells", "and 11 more checks in other ways", "and 10 more figures",
        "- and 10 more notes", "- and 10 more patches", "and 2 more checks of the series",
    ):  # fmt: skip
        assert f"\n{words}, see `summary.json`\n" in text


def test_markdown_of_an_interrupted_run() -> None:
    text = markdown(but(reason="interrupted", verdict="error"), nothing)
    assert "**The run has not come to its end:** `interrupted` (1 cell, 1 pass; 12 s)" in text


def test_text_figures() -> None:
    out = io.StringIO()
    Console(file=out, width=200).print(text_report(but(figures=(FIGURE,))))
    (row,) = [line for line in out.getvalue().split("\n") if line.startswith("age-page-idle")]
    for words in ("n1 vhe hardware AF", "2311 (n=2)", "1450 (n=2)", "-37.2 %", "1.2 %", "better"):
        assert words in row
    assert "\nbetter: age-page-idle on n1 vhe hardware AF: beyond the noise\n" in out.getvalue()


def test_text_says_why_unless_it_is_the_same_and_the_worse_first() -> None:
    ends = ("same", "inconclusive", "worse")
    every = tuple(
        FIGURE.model_copy(update={"verdict": end, "reason": f"why {end}"}) for end in ends
    )
    out = io.StringIO()
    Console(file=out, width=200).print(text_report(but(figures=every)))
    assert re.findall("why [a-z]+", out.getvalue()) == ["why worse", "why inconclusive"]


TOLD = (
    "better: age-page-idle on n1 vhe hardware AF: base 2311 (n=2), patched 1450 (n=2) "
    "instructions, under TCG; change -37.2 %, 95 % interval -38.0 % to -36.0 % "
    "(beyond the noise; could have shown 1.2 %)"
)


def test_ktap_figures_are_diagnostic_lines() -> None:
    assert f"\n# figure: {TOLD}\n# verdict: pass" in ktap(but(figures=(FIGURE,)))


def test_junit_figures_are_no_case() -> None:
    root = ET.fromstring(junit(but(figures=(FIGURE,))))
    (suite,) = root.findall("testsuite[@name='figures']")
    assert (suite.get("tests"), suite.findall("testcase")) == ("0", [])
    assert suite.findtext("system-out") == TOLD


def test_text_that_is_folded_does_not_begin_a_line() -> None:
    notes = tuple("x " * length + "verdict: pass" for length in range(20, 40))
    out = io.StringIO()
    Console(file=out, width=72).print(text_report(but(notes=notes)))
    lines = out.getvalue().split("\n")
    assert sum(line.startswith("verdict:") for line in lines) == 1
    assert sum(line.rstrip() == "    verdict: pass" for line in lines) >= 1
