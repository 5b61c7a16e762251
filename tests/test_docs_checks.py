# SPDX-License-Identifier: GPL-2.0-only
"""docs/checks.md: every check has its row, and the mutants in it are those of the table."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from harness.mutants.table import TABLE, load

ROOT = Path(__file__).parents[1]
MARKS = {"quick", "deep", "stress", "last", "linux_guest"}


@cache
def checks() -> dict[str, set[str]]:
    """Name of each check -> its marks, read from the source."""
    found = {}
    for path in sorted((ROOT / "harness" / "checks").glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = " ".join(ast.unparse(one) for one in node.decorator_list)
                found[node.name] = set(re.findall(r"pytest\.mark\.(\w+)", words)) & MARKS
    return found


@cache
def rows() -> dict[str, list[str]]:
    """Name of each check -> the cells of its row."""
    text = (ROOT / "docs" / "checks.md").read_text()
    table = text.split("## All checks")[1].split("\n## ")[0]
    found = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            name = re.match(r"`(\w+)", cells[0])
            assert name and name[1] not in found, line
            found[name[1]] = cells
    return found


def test_every_check_has_a_row_and_no_row_is_left_over() -> None:
    assert set(rows()) - {"build_without_kvm"} == set(checks())


@pytest.mark.parametrize("name", sorted(checks()))
def test_row_says_all(name: str) -> None:
    cells = rows()[name]
    assert len(cells) == 8
    assert set(re.findall(r"\w+", cells[1])) & MARKS == checks()[name], "marks"
    assert re.fullmatch(r"\d+(, \d+)*", cells[2]), "claims"
    assert cells[3] and cells[6] and cells[7]


@pytest.mark.parametrize("name", sorted({*checks(), "build_without_kvm"}))
def test_mutants_of_a_row_are_those_that_name_the_check(name: str) -> None:
    """All of the table's, or some and how many more."""
    mutants = load(TABLE).mutants.items()
    must = {key for key, one in mutants if _bare(one.check) == name}
    # What a debug kernel reports is judged by another check than that which provokes it.
    provokes = {key for key, one in mutants if _bare(one.during) == name}
    shown = set(re.findall(r"`([\w-]+)`", rows()[name][7])) - set(checks())
    assert shown <= must | provokes
    more = re.search(r"and (\w+) more", rows()[name][7])
    assert len(must) == len(shown & must) + (_number(more[1]) if more else 0)


def _bare(check: str | None) -> str:
    return (check or "").split("[")[0]


def _number(word: str) -> int:
    return 1 + ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine").index(word)
