# SPDX-License-Identifier: GPL-2.0-only
"""KTAP as kernels and selftests print it, whole and broken."""

from __future__ import annotations

import pytest

from harness.selftests import ktap
from harness.selftests.ktap import Point, Results, parse, render


def failures(text: str) -> list[str]:
    return list(parse(text).failures())


def test_a_plain_document() -> None:
    results = parse("KTAP version 1\n1..2\n# says this\nok 1 first\nnot ok 2 second\n# after\n")
    assert results == Results(
        plan=2,
        points=(Point(1, True, "first", log=("# says this",)), Point(2, False, "second")),
        log=("# after",),
    )
    assert list(results.failures()) == ["second"]


@pytest.mark.parametrize("version", ["KTAP version 1", "TAP version 13", "TAP version 14"])
def test_the_versions_that_there_are(version: str) -> None:
    assert failures(f"noise\n{version}\n1..1\nok 1 a\n") == []


NESTED = """\
KTAP version 1
1..2
  KTAP version 1
  1..2
    KTAP version 1
    1..2
    # test_1: wrong
    not ok 1 test_1
    ok 2 test_2
  not ok 1 test_3
  ok 2 test_4 # SKIP no such CPU
not ok 1 example_1
ok 2 example_2
"""


def test_subtests_to_any_depth() -> None:
    results = parse(NESTED)
    assert results.problems == ()
    assert list(results.failures()) == ["example_1/test_3/test_1"]
    first = results.points[0]
    assert first.subtests is not None
    inner = first.subtests.points[0].subtests
    assert inner is not None
    assert inner.points[0].log == ("# test_1: wrong",)
    assert first.subtests.points[1].skipped
    assert first.subtests.points[1].detail == "no such CPU"


def test_a_test_fails_if_a_subtest_does_whatever_it_says_itself() -> None:
    assert failures(
        "KTAP version 1\n1..1\n  KTAP version 1\n  1..1\n  not ok 1 in\nok 1 out\n"
    ) == ["out/in"]


@pytest.mark.parametrize(
    ("line", "directive", "detail", "fails"),
    [
        ("ok 1 a # SKIP no KVM", "SKIP", "no KVM", False),
        ("ok 1 # SKIP no KVM", "SKIP", "no KVM", False),
        ("not ok 1 a # skip no KVM", "SKIP", "no KVM", False),
        ("not ok 1 a # TODO later", "TODO", "later", False),
        ("not ok 1 a # XFAIL known", "XFAIL", "known", False),
        ("not ok 1 a # TIMEOUT 30 seconds", "TIMEOUT", "30 seconds", True),
        ("not ok 1 a # ERROR no memory", "ERROR", "no memory", True),
        ("ok 1 a # rcode=0", "", "rcode=0", False),
        ("not ok 1 a # exit=254", "", "exit=254", True),
        ("not ok 1 a # SKIPPING is no directive", "", "SKIPPING is no directive", True),
        ("ok 1 - a", "", "", False),
        ("not ok", "", "", True),
    ],
)
def test_directives(line: str, directive: str, detail: str, fails: bool) -> None:
    results = parse(f"TAP version 13\n1..1\n{line}\n")
    (point,) = results.points
    assert (point.directive, point.detail, bool(list(results.failures()))) == (
        directive,
        detail,
        fails,
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "no version line"),
        ("ok 1 a\n", "no version line"),
        ("TAP version 13\n1..3\nok 1 a\n", "1 of 3 planned tests have a result"),
        ("TAP version 13\n1..1\nok 1 a\nok 2 b\n", "2 of 1 planned tests have a result"),
        ("TAP version 13\n1..2\nok 1 a\nok 3 b\n", "test 3 where 2 was due"),
        ("TAP version 13\n1..1\n1..1\nok 1 a\n", "a second plan, 1..1"),
        (
            "KTAP version 1\n1..1\n  KTAP version 1\n  1..2\n  ok 1 a\n",
            "subtests without a result of the test that they are of",
        ),
    ],
)
def test_what_is_cut_short_or_wrong_is_a_failure(text: str, problem: str) -> None:
    assert problem in failures(text)


def test_subtests_that_are_cut_short_are_told_by_their_test() -> None:
    text = "KTAP version 1\n1..1\n  TAP version 13\n  1..4\n  ok 1 a\nok 1 out\n"
    assert failures(text) == ["out/1 of 4 planned tests have a result"]


def test_bail_out_ends_a_plan_and_fails() -> None:
    assert failures("TAP version 13\n1..4\nok 1 a\nBail out! no memory\n") == [
        "bailed out: no memory"
    ]
    nested = "KTAP version 1\n1..1\n  TAP version 13\n  1..4\n  Bail out! gone\nnot ok 1 out\n"
    assert failures(nested) == ["out/bailed out: gone"]


def test_a_plan_of_none_says_why() -> None:
    results = parse("TAP version 13\n1..0 # SKIP no KVM\n")
    assert (results.plan, results.skip, list(results.failures())) == (0, "no KVM", [])


def test_unknown_lines_have_no_say() -> None:
    text = (
        "KTAP version 1\n1..1\n[ 1.0] kernel: not ok at all\n      deep\nok, says somebody\n"
        "okay\nnot okay 1\nok 1 a\n"
    )
    assert failures(text) == []


def test_what_is_rendered_is_parsed_again() -> None:
    points = [
        Point(None, True, "plain", log=("Random seed: 1", "ok 1 not TAP, for no version line")),
        Point(None, False, "tap", log=("Random seed: 1", "TAP version 13", "1..1", "not ok 1 vm0")),
        Point(None, False, "late", "TIMEOUT", "5 seconds"),
        Point(None, True, "no", "SKIP", "no KVM"),
    ]
    text = render(points)
    assert "\n# ok 1 not TAP" in text
    assert list(parse(text).failures()) == ["tap/vm0", "late: TIMEOUT 5 seconds"]
    assert parse(text).points[3].detail == "no KVM"


def test_output_that_lacks_tap_cannot_add_results() -> None:
    text = render([Point(None, False, "a", log=("ok 1 a", "1..1", "Bail out!"))])
    assert list(parse(text).failures()) == ["a"]
    assert not ktap.announced("# TAP version 13\n TAP version 13\nTAP version 13a")
