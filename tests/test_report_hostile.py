# SPDX-License-Identifier: GPL-2.0-only
"""A run that means harm is shown harmless in every form of a report."""

from __future__ import annotations

import email
import email.policy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token
from report_runs import HOSTILE, random_run

from harness.report.command import FORMATS, Request
from harness.report.kcidb import kcidb
from harness.report.ktap import ktap
from harness.report.mail import mail
from harness.report.mailbody import WIDTH
from harness.report.markdown import markdown
from harness.results import SERIES, Cell, Check, Splat, Summary
from harness.selftests import ktap as ktap_reader

# What a terminal obeys, what changes the direction of text, and what nobody sees.
CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
RUNS = [random_run(seed, hostile=True) for seed in range(6)]


def read(path: str) -> str:
    """Evidence that means harm as well, whatever it is called."""
    return f"error {HOSTILE}\n{HOSTILE}"


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_that_a_terminal_obeys(form: str, tmp_path: Path) -> None:
    for run in RUNS:
        text = FORMATS[form](Request(run, tmp_path, "origin", None))
        assert not CONTROL.search(text)
        # GitHub is told of what is no pass, and of nothing else.
        assert text.encode() or form == "github"
    told = [run for run in RUNS if any(check.outcome == "fail" for check in run.checks)]
    assert told
    shown = FORMATS[form](Request(told[0], tmp_path, "origin", None))
    assert "alert" in shown, "what was said is there to be read"


def test_text_has_one_verdict(tmp_path: Path) -> None:
    for run in RUNS:
        text = FORMATS["text"](Request(run, tmp_path, "origin", None))
        verdicts = [line for line in text.split("\n") if line.startswith("verdict:")]
        assert len(verdicts) == 1
        assert verdicts[0].startswith(f"verdict: {run.verdict}".replace("fail", "FAIL"))


# ---- Markdown -------------------------------------------------------------------------------


def outside_of_code(tokens: list[Token]) -> Iterator[Token]:
    """All inline tokens that do not stand between <code> and </code>."""
    for token in tokens:
        inside = False
        for child in token.children or []:
            if child.type == "html_inline":
                assert child.content in ("<code>", "</code>")
                inside = child.content == "<code>"
            elif not inside:
                yield child


def test_markdown_has_no_foreign_word_outside_of_code() -> None:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for run in RUNS:
        tokens = parser.parse(markdown(run, read))
        blocks = {token.type for token in tokens}
        assert not blocks & {"html_block", "code_block", "hr"}
        for token in outside_of_code(tokens):
            assert token.type in ("text", "code_inline", "softbreak", "strong_open", "strong_close")
            if token.type == "text":
                words = r"@|evil|pwned|alert|<|Tested|nobody|#|\\x|\[x\]|~|http"
                assert not re.search(words, token.content), token.content


def test_markdown_headings_and_rows_are_its_own() -> None:
    parser = MarkdownIt("commonmark").enable("table")
    for run in RUNS:
        tokens = parser.parse(markdown(run, read))
        rows = sum(token.type == "tr_open" for token in tokens)
        wanted = [
            len(run.cells) + 1 if run.cells else 0,
            len(run.figures) + 1 if run.figures else 0,
        ]
        assert rows == sum(wanted)
        heads = [n for n, token in enumerate(tokens) if token.type == "heading_open"]
        for at in heads:
            assert re.match(
                r"(Series <code>|Base kernel|Limits of|What is not|What was|Figures|"
                r"(\*\*FAIL\*\*|error|\?) <code>)",
                tokens[at + 1].content,
            )


# ---- KTAP, KCIDB, XML -----------------------------------------------------------------------

_KTAP_LINE = re.compile(
    r"(  )?(KTAP version 1|1\.\.\d+( # SKIP nothing ran)?|# ?.*|"
    r"(not )?ok \d+ [^#]*( # (SKIP|ERROR).*)?)$"
)


def test_ktap_lines_are_its_own() -> None:
    for run in RUNS:
        text = ktap(run)
        assert all(_KTAP_LINE.match(line) for line in text.rstrip("\n").split("\n"))
        found = ktap_reader.parse(text)
        assert found.problems == ()
        assert found.bail is None
        assert not any(point.name.startswith("pwned") for point in found.points)


# The lines of Documentation/dev-tools/ktap.rst that are no diagnostics, and TAP 14's head of a
# subtest, with whatever white space; kunit_parser.py takes all of them, however far indented.
_STRUCTURE = {
    "version": re.compile(r"\s*K?TAP\s+version\b"),
    "plan": re.compile(r"\s*1\.\.\d"),
    "result": re.compile(r"\s*(not\s+)?ok\b"),
    "head": re.compile(r"\s*#?\s*Subtest:"),
}


def test_ktap_has_the_structure_of_the_run_alone() -> None:
    for run in RUNS:
        text = ktap(run)
        lines = text.split("\n")
        found = {kind: sum(map(bool, map(at.match, lines))) for kind, at in _STRUCTURE.items()}
        groups = len({check.cell for check in run.checks})
        series = any(check.cell == SERIES for check in run.checks)
        tests = len(run.checks) + len(run.cells) + series + bool(run.reason)
        assert found == {"version": 1 + groups, "plan": 1 + groups, "result": tests, "head": 0}
        # A directive anywhere counts there, and the last words of a kernel end the results.
        results = [line for line in lines if _STRUCTURE["result"].match(line)]
        assert all(line.count("#") <= 1 for line in results)
        last = "List of all partitions:|Kernel panic - not syncing: VFS:|reboot: System halted"
        assert not re.search(last, text)


def test_ktap_tells_each_line_of_a_text() -> None:
    check = Check(
        cell=SERIES, name="x", outcome="error", expected="a\nSubtest: b\n\nc", observed="d",
        reason="e # SKIP f\nreboot: System halted",
    )  # fmt: skip
    text = ktap(random_run(1).model_copy(update={"checks": (check,), "cells": ()}))
    assert "\n  # expected: a\n  # | Subtest: b\n  # |\n  # | c\n  # observed: d\n" in text
    assert "\n  # reason: e # SKIP f\n  # | reboot:_System halted\n" in text
    assert "\n  not ok 1 x # ERROR e _ SKIP f reboot:_System halted\n" in text


def test_kcidb_is_plain_ascii() -> None:
    for run in RUNS:
        text = kcidb(run, f"../{HOSTILE}", read)
        assert text.isascii()
        tests = json.loads(text)["tests"]
        assert all(re.fullmatch(r"[a-zA-Z0-9_.-]+", test["path"]) for test in tests)
        assert len({test["id"] for test in tests}) == len(tests)
        assert not re.search(r'"[a-z_]*url"', text)


def test_xml_holds_it_as_text(tmp_path: Path) -> None:
    for run in RUNS:
        root = ET.fromstring(FORMATS["junit"](Request(run, tmp_path, "origin", None)))
        known = {
            *("testsuites", "testsuite", "testcase", "failure", "error", "skipped", "system-out"),
            *("properties", "property"),
        }
        assert {node.tag for node in root.iter()} <= known


# ---- mail -----------------------------------------------------------------------------------


def test_a_mail_has_its_own_headers_and_its_own_lines() -> None:
    for run in RUNS:
        raw = mail(run, read)
        message = email.message_from_bytes(raw.encode(), policy=email.policy.default)
        assert set(message.keys()) == {
            *("Subject", "Content-Type", "Content-Transfer-Encoding", "MIME-Version")
        }
        assert message.defects == []
        body = message.get_content()
        for line in body.split("\n"):
            assert len(line) <= WIDTH
            assert not re.match(r"(\s*[\w-]+-by:|diff |---|-- $|From |Index: |>)", line, re.I), line
        # What an enemy said stands in the gutter or behind a label, but for plain names.
        foreign = [line for line in body.split("\n") if re.search(r"[<@#`]|c:", line)]
        assert foreign
        assert all(re.match(r"  (\| |[a-z ]{10})| {10}\| | {12}", line) for line in foreign)


@pytest.mark.parametrize(
    "text",
    ["a@b\nBcc: x@y", "a@b>, <c@d", "a b@c", "@", "a@b@c", "\u202ea@b", "x" * 300 + "@y", "a"],
)
def test_a_message_id_that_is_none_is_no_header(text: str) -> None:
    run = random_run(1).model_copy(update={"message_id": text})
    message = email.message_from_bytes(mail(run, read).encode())
    assert message["In-Reply-To"] is None
    assert message["Bcc"] is None
    assert all("message_id" not in one for one in json.loads(kcidb(run, "n", read))["checkouts"])


# ---- large files ----------------------------------------------------------------------------


def large_run(folder: Path) -> Summary:
    """A run with evidence of 100 MB, of which each line could be shown."""
    cells = folder / "cells" / "c"
    cells.mkdir(parents=True)
    for name in ("splats.txt", "error.txt", "ktap.txt", "console.log"):
        with (cells / name).open("wb") as out:
            out.write(b"WARNING: at f\nnot ok 1 error " + b"x" * (1 << 20) + b"\n")
            out.truncate(100 << 20)
    splat = Splat(kind="warn", title="WARNING: at f", key="k")
    cell = Cell(
        id="c", host="n1", kernel="base", kvm_mode="vhe", af_mode="hardware", outcome="fail",
        death="panic", splats=(splat,), splat_file="cells/c/splats.txt",
    )  # fmt: skip
    checks = [
        Check(
            cell="c", name=f"test_{name}", outcome="fail", expected="x" * (1 << 20),
            observed="y\n" * (1 << 20), reason="z" * (1 << 20), evidence=(f"cells/c/{name}.txt",),
            splats=(splat,) if name == "splats" else (),
        )
        for name in ("splats", "error", "ktap")
    ]  # fmt: skip
    return random_run(1).model_copy(update={"cells": (cell,), "checks": tuple(checks)})


@pytest.mark.parametrize("form", FORMATS)
def test_large_files_and_words_make_no_large_report(form: str, tmp_path: Path) -> None:
    run = large_run(tmp_path)
    text = FORMATS[form](Request(run, tmp_path, "origin", None))
    # The page has each text twice and an excerpt of each file; annotations are cut without a word.
    assert len(text) < (500_000 if form == "html" else 200_000)
    assert "characters more" in text or form == "github"
    # What is quoted of a file is still its line that says what went wrong.
    assert "not ok 1 error" in text or form not in ("markdown", "kcidb", "mail")
