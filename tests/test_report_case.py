# SPDX-License-Identifier: GPL-2.0-only
"""The first sentence of a mail says what is the case."""

from __future__ import annotations

from typing import Any

import pytest
from test_report_mail import CELL, CHECK, but

from harness.options import Options
from harness.report.case import apart, case
from harness.results import SERIES, Cell, Check, Outcome, Summary

BASE = CELL.model_copy(update={"id": "n1-vhe-base", "kernel": "base"})


def check(name: str, outcome: Outcome = "pass", cell: str = CELL.id) -> Check:
    return CHECK.model_copy(update={"name": name, "outcome": outcome, "cell": cell})


def run(*checks: Check, cells: tuple[Cell, ...] = (BASE, CELL), **update: Any) -> Summary:
    return but(cells=cells, checks=checks, **update)


def said(value: Summary) -> str:
    return case(value, str)


GOOD = (check("a"), check("b"), check("c", "skip"), check("build", cell=SERIES))
GOOD_BASE = (check("a", cell=BASE.id), check("b", cell=BASE.id))


@pytest.mark.parametrize(
    ("checks", "sentence"),
    [
        (
            (*GOOD, *GOOD_BASE),
            "With the series all 3 checks pass; without it all 2 checks pass.",
        ),
        (
            (*GOOD, check("a", "fail", BASE.id)),
            "With the series all 3 checks pass; without it a fails (n1, VHE).",
        ),
        (
            (check("a", "unproven"), check("b", "fail"), *GOOD_BASE),
            "With the series b fails (n1, VHE), and 1 more does not pass; "
            "without it all 2 checks pass.",
        ),
        (
            (check("a", "error"), check("b", "unproven"), check("c", "unproven"), *GOOD_BASE),
            "With the series a ends in an error (n1, VHE), and 2 more do not pass; "
            "without it all 2 checks pass.",
        ),
        (
            (check("a"), check("build", "fail", SERIES), check("a", "skip", BASE.id)),
            "With the series build fails (of the series itself); without it no check passes.",
        ),
    ],
)
def test_with_the_series_and_without(checks: tuple[Check, ...], sentence: str) -> None:
    assert said(run(*checks)) == sentence


def test_a_cell_that_no_check_speaks_for() -> None:
    dead = CELL.model_copy(update={"outcome": "fail", "kvm_mode": "protected", "variant": "sw-af"})
    assert said(run(check("a"), cells=(dead,))) == (
        "With the series the cell fails (n1, protected mode +sw-af)."
    )


def test_the_base_kernel_alone() -> None:
    alone = run(*GOOD_BASE, cells=(BASE,), series="")
    assert said(alone) == "The base kernel: all 2 checks pass."


def test_a_partial_run_begins_with_what_it_is_part_of() -> None:
    only = Options(pytest_args=("-m", "quick"), hosts=("n1",), kvm_modes=("vhe",)).only(("a57",))
    part = run(*GOOD, *GOOD_BASE, whole=False, only=only)
    assert said(part) == (
        "Partial run (-m quick; n1, VHE only): patched 2 pass, 1 skip; base 2 pass; series 1 pass."
    )
    failed = run(check("a", "fail"), *GOOD_BASE, whole=False, only=only)
    assert said(failed) == (
        "Partial run (-m quick; n1, VHE only): patched 1 fail; base 2 pass. "
        "With the series a fails (n1, VHE); without it all 2 checks pass."
    )
    assert said(run(whole=False, only=only)).endswith("only): nothing ran.")


def test_a_run_that_does_not_say_that_it_was_whole() -> None:
    assert said(run(check("a"), whole=False)) == "Not known to be a whole run: patched 1 pass."


def test_names_are_made_harmless() -> None:
    part = run(check("a", "fail"), whole=False, only=("-k x",) * 50)
    words = case(part, lambda name: f"<{name}>")
    assert words.startswith("Partial run (<-k x>; ")
    assert words.count("<-k x>") == 8
    assert "<a> fails (<n1>, VHE)" in words


def test_counts_are_told_apart() -> None:
    assert apart(run(*GOOD, *GOOD_BASE)) == "patched 2 pass, 1 skip; base 2 pass; series 1 pass"
    assert apart(run()) == ""
