# SPDX-License-Identifier: GPL-2.0-only
"""Where the series' fast path was entered, and where it was seen not to be: the reports say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up import a_cell, a_check, a_summary

from harness.report.command import FORMATS, Request
from harness.report.facts import fast_path
from harness.results import Cell, Check, Summary

VHE = a_cell()
PROTECTED = a_cell(id="n1-protected-patched", kvm_mode="protected")
BASE = a_cell("base")


def run(*checks: Check, cells: tuple[Cell, ...] = (VHE, PROTECTED, BASE)) -> Summary:
    return a_summary(cells=cells, checks=checks)


def seen(cell: Cell, fast: bool | None, name: str = "test_page_idle") -> Check:
    return a_check(name, cell=cell.id, fast_path=fast)


TOLD = run(
    seen(VHE, True),
    seen(VHE, False, "test_mglru_walk"),
    seen(PROTECTED, False),
    seen(BASE, None),
)
WORDS = "entered in n1-vhe-patched; not seen in n1-protected-patched"


def test_one_driver_that_enters_it_is_enough() -> None:
    assert fast_path(TOLD) == WORDS
    assert fast_path(run(seen(VHE, False))) == "not seen in n1-vhe-patched"


def test_nothing_is_said_where_no_check_can_tell() -> None:
    assert fast_path(run(seen(VHE, None), seen(BASE, None))) == ""


@pytest.mark.parametrize("form", ["text", "markdown", "html", "mail"])
def test_the_forms_for_people_say_so(form: str, tmp_path: Path) -> None:
    def shown(given: Summary) -> str:
        return " ".join(FORMATS[form](Request(given, tmp_path, "origin", None)).split())

    # The lines of a mail that go on have a gutter.
    assert WORDS in shown(TOLD).replace(" | ", " ")
    assert "fast path" not in shown(run(seen(VHE, None)))
