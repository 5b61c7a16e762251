# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness report`: which run, which form, and where it goes."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from test_report_mail import PASSES, TESTER, but, failing

from harness import cli
from harness.records import write_atomically
from harness.report.command import FORMATS
from harness.report.junit import junit
from harness.results import Summary


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    home = tmp_path / "kvm-harness" / "runs"
    home.mkdir(parents=True)
    return home


def keep(folder: Path, run: Summary = PASSES) -> Path:
    folder.mkdir()
    write_atomically(folder / "summary.json", run)
    (folder / "run.json").write_text("{}")
    return folder


def report(*args: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", *args])
    return ended.value.code


def test_the_newest_run_as_text(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(runs / "20261127-100000-aaaa", but(series="older", notes=("older",)))
    keep(runs / "20261128-100000-aaaa")
    (runs / "20261129-100000-aaaa").mkdir()  # a walk along a series: no run
    assert report() == 0
    out = capsys.readouterr().out
    said = "verdict: pass: everything that was expected was observed (1 cell, 1 pass; 12 s; seed 1)"
    assert said in out
    assert "older" not in out


def test_a_run_by_name_and_by_folder(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(runs / "20261128-100000-aaaa")
    folder = keep(tmp_path / "elsewhere")
    assert report("20261128-100000-aaaa", "--format", "junit") == 0
    assert report(str(folder), "--format", "junit") == 0
    assert capsys.readouterr().out == 2 * junit(PASSES)


FAILS = {
    "text": "verdict: FAIL: ",
    "markdown": "649 young",
    "html": "649 young",
    "junit": '<failure message="',
    "ktap": "not ok 1 test_",
    "kcidb": '"status": "FAIL"',
    "github": "::error title=",
    "mail": "In-Reply-To: <20230217041230",
}
"""Words that each form has of that run."""


@pytest.mark.parametrize("form", FORMATS)
def test_into_a_file(
    runs: Path, tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(runs / "20261128-100000-aaaa", failing())
    target = tmp_path / "out"
    target.write_text("what was there before")
    assert report("--format", form, "-o", str(target)) == 0
    assert capsys.readouterr().out == ""
    assert FAILS[form] in target.read_text()
    # The table on a terminal is as wide as that.
    if form != "text":
        assert report("--format", form) == 0
        assert capsys.readouterr().out == target.read_text()


def test_options_of_a_form_hold_for_a_file(runs: Path, tmp_path: Path) -> None:
    keep(runs / "20261128-100000-aaaa")
    target = tmp_path / "out"
    assert report("--format", "kcidb", "-o", str(target), "--origin", "lab") == 0
    assert json.loads(target.read_text())["tests"][0]["origin"] == "lab"
    assert report("--format", "junit", "-o", str(target)) == 0
    assert ET.parse(target).getroot().tag == "testsuites"


def test_a_run_that_was_interrupted(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(runs / "20261128-100000-aaaa", but(verdict="error", reason="interrupted"))
    for form in ("text", "markdown", "junit", "ktap", "kcidb", "mail"):
        assert report("--format", form) == 0
        assert "interrupted" in capsys.readouterr().out


def test_tested_by(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(runs / "20261128-100000-aaaa")
    assert report("--format", "mail", "--tested-by", TESTER) == 0
    shown = capsys.readouterr()
    assert f"Tested-by: {TESTER}" in shown.out
    assert shown.err == ""


def test_tested_by_that_is_not_earned_is_told(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(runs / "20261128-100000-aaaa", but(whole=False))
    assert report("--format", "mail", "--tested-by", TESTER) == 0
    shown = capsys.readouterr()
    assert "Tested-by" not in shown.out
    assert "no Tested-by: of this run, it was not a whole run" in shown.err


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ((), "there is no run in"),
        (("gone",), "no run 'gone'"),
        (("",), "no run ''"),
        (("empty",), "summary.json: no such file"),
        (("later",), "summary.json: schema 2 is of a later version"),
        (("good", "--tested-by", TESTER), "--tested-by is for --format mail"),
        (("good", "--format", "mail", "--tested-by", "me"), "--tested-by 'me'"),
        (("good", "--format", "kcidb", "--origin", "A"), "--origin 'A'"),
        (("good", "-o", "/nowhere/out"), "--output /nowhere/out: No such file or directory"),
    ],
)
def test_wrong_input(
    runs: Path, args: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (runs / "empty").mkdir()
    (runs / "later").mkdir()
    (runs / "later" / "summary.json").write_text('{"schema": 2}')
    if args[:1] == ("good",):
        keep(runs / "good")
    assert report(*args) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("kvm-harness: input error: ")
    assert why in shown.err
    assert shown.out == ""
