# SPDX-License-Identifier: GPL-2.0-only
"""JUnit XML that says the same as the summary, whatever a host wrote."""

from __future__ import annotations

from typing import get_args
from xml.etree import ElementTree as ET

import pytest
from made_up import a_cell, a_check, a_summary

from harness.report.junit import junit
from harness.results import SERIES, Cell, Check, Outcome, Splat, Summary

HOSTILE = "\x1b[2J\x00\x08 ]]> <pass/> & \"'\ufffe \ud800 \n\t\N{SNOWMAN}\U0001f600"


def cell(name: str, outcome: Outcome = "pass", reason: str = "") -> Cell:
    return a_cell("base", id=name, outcome=outcome, reason=reason, seconds=3.25)


def check(of: str, name: str, outcome: Outcome, text: str = "", *, also: bool = False) -> Check:
    return a_check(
        name,
        cell=of,
        outcome=outcome,
        expected=f"exp {text}",
        observed=f"obs {text}",
        evidence=(f"cells/{of}/{name}.txt",),
        reason=f"why {text}",
        also_on_base=also,
        seconds=1.5,
    )


def summary(
    cells: tuple[Cell, ...] = (), checks: tuple[Check, ...] = (), reason: str = ""
) -> Summary:
    return a_summary(verdict="error", reason=reason, cells=cells, checks=checks)


def parsed(run: Summary) -> ET.Element:
    return ET.fromstring(junit(run).encode())


def test_every_outcome() -> None:
    checks = tuple(check("c1", f"test_{kind}", kind) for kind in get_args(Outcome))
    (suite,) = parsed(summary((cell("c1"),), checks))
    cases = {case.get("name"): case for case in suite}
    tags = {
        "test_pass": ["system-out"],
        "test_fail": ["failure"],
        "test_error": ["error"],
        "test_skip": ["skipped"],
        "test_unproven": ["skipped"],
    }
    assert {name: [node.tag for node in case] for name, case in cases.items()} == tags
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("5", "1", "1")
    assert suite.get("skipped") == "2"
    assert (suite.get("name"), suite.get("time")) == ("c1", "3.250")
    fail = cases["test_fail"]
    assert fail.get("classname") == "c1"
    assert fail.get("time") == "1.500"
    assert fail[0].get("message", "").startswith("why")
    text = fail[0].text or ""
    assert "expected: exp" in text
    assert "observed: obs" in text
    assert "evidence: cells/c1/test_fail.txt" in text
    assert cases["test_unproven"][0].get("message", "").startswith("unproven: why")
    assert not cases["test_skip"][0].get("message", "").startswith("unproven")


def test_also_on_base_is_marked() -> None:
    checks = (check("c", "test_a", "fail", also=True), check("c", "test_b", "fail"))
    (suite,) = parsed(summary((cell("c"),), checks))
    marked = ["base kernel as well" in case[0].get("message", "") for case in suite]
    assert marked == [True, False]


def test_checks_stand_in_their_own_cell() -> None:
    cells = (cell("c1"), cell("c2"))
    checks = (check("c2", "test_a", "pass"), check("c1", "test_b", "fail"))
    suites = parsed(summary(cells, checks))
    found = {suite.get("name"): [case.get("name") for case in suite] for suite in suites}
    assert found == {"c1": ["test_b"], "c2": ["test_a"]}


@pytest.mark.parametrize(
    ("outcome", "tag"), [("fail", "failure"), ("error", "error"), ("unproven", "skipped")]
)
def test_a_cell_that_ended_without_a_check_is_seen(outcome: Outcome, tag: str) -> None:
    (suite,) = parsed(summary((cell("c", outcome, "Kernel panic"),)))
    (case,) = suite
    assert case[0].tag == tag
    assert "Kernel panic" in case[0].get("message", "")
    assert suite.get("tests") == "1"


def test_a_run_that_ended_early_is_seen() -> None:
    """A document without a test case would be taken for a success."""
    (suite,) = parsed(summary(reason="QEMU is missing"))
    (case,) = suite
    assert case[0].tag == "error"
    assert case[0].get("message") == "QEMU is missing"
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    assert suite.get("failures") == "0"


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_hostile_words(outcome: Outcome) -> None:
    cells = (cell("c", "fail", HOSTILE),)
    root = parsed(summary(cells, (check("c", f"test_{HOSTILE}", outcome, HOSTILE),), HOSTILE))
    assert not root.findall(".//pass")
    texts = [node.text or "" for node in root.iter()]
    texts += [value for node in root.iter() for value in node.attrib.values()]
    assert any("\N{SNOWMAN}\U0001f600" in text for text in texts)
    assert any("]]> <pass/> &" in text for text in texts)
    assert not any(set(text) & set("\x00\x08\x1b\ufffe") for text in texts)
    assert any("\N{REPLACEMENT CHARACTER}[2J" in text for text in texts)


def test_counts_are_those_of_the_summary() -> None:
    cells = (cell("c1", "fail", "a panic"), cell("c2"))
    kinds: tuple[Outcome, ...] = ("pass", "fail", "error", "skip", "unproven", "pass", "fail")
    checks = tuple(
        check(f"c{1 + number % 2}", f"test_{number}", kind) for number, kind in enumerate(kinds)
    )
    root = parsed(summary(cells, checks))

    def total(name: str) -> int:
        return sum(int(suite.get(name, "")) for suite in root)

    assert total("tests") == len(checks) + 1 == len(root.findall(".//testcase"))
    assert total("failures") == 2 + 1 == len(root.findall(".//failure"))
    assert total("errors") == 1 == len(root.findall(".//error"))
    assert total("skipped") == 2 == len(root.findall(".//skipped"))


def test_a_check_of_the_series_itself_is_a_suite() -> None:
    checks = (check(SERIES, "build_without_kvm", "fail"), check("c1", "test_a", "pass"))
    own, suite = parsed(summary((cell("c1"),), checks))
    assert (own.get("name"), own.get("time"), own.get("failures")) == ("series", "1.500", "1")
    assert [case.get("name") for case in own] == ["build_without_kvm"]
    assert [case.get("name") for case in suite] == ["test_a"]


def test_what_the_kernel_reported_stands_with_its_cell() -> None:
    splat = Splat(kind="warn", title=f"WARNING {HOSTILE}", key="k", count=3, where=("f (a.c:1)",))
    one = cell("n1-vhe-base").model_copy(
        update={"splats": (splat,), "splat_file": "cells/n1-vhe-base/splats.txt"}
    )
    out = ET.fromstring(junit(summary((one,)))).find("testsuite/system-out")
    assert out is not None
    assert out.text is not None
    assert "3 times: WARNING" in out.text
    assert "f (a.c:1)" in out.text
    assert "cells/n1-vhe-base/splats.txt" in out.text


def test_file_and_line_of_a_report_are_a_property_of_its_case() -> None:
    warned = Splat(kind="warn", title="WARNING", key="k", site="arch/arm64/kvm/mmu.c:1640")
    checks = tuple(
        check("c", name, "fail").model_copy(update={"splats": splats})
        for name, splats in (("test_a", (warned,)), ("test_b", ()))
    )
    dead = cell("c", "fail", "panic").model_copy(update={"splats": (warned,)})
    root = parsed(summary((dead,), checks))
    found = {
        case.get("name"): [one.attrib for one in case.findall("properties/property")]
        for case in root.iter("testcase")
    }
    site = {"name": "site", "value": "arch/arm64/kvm/mmu.c:1640"}
    assert found == {"cell": [site], "test_a": [site], "test_b": []}
    assert all(case.findall("failure") for case in root.iter("testcase"))
