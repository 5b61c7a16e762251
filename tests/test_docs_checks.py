# SPDX-License-Identifier: GPL-2.0-only
"""docs/checks.md: every check has its row, and the mutants in it are those of the table.

And what docs tell of the ends of a Linux guest is what the code knows.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from harness import selection
from harness.errors import GuestEnd, UsageError
from harness.mutants.table import Table, load
from harness.series_builds import NAMES as OF_SERIES

ROOT = Path(__file__).parents[1]
LINUX_GUEST = "With a Linux guest"
MARKS = {"quick", "deep", "stress", "last", "linux_guest"}


@cache
def checks(folder: str = "checks") -> dict[str, set[str]]:
    """Name of each check -> its marks, read from the source."""
    found = {}
    for path in sorted((ROOT / "harness" / folder).glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                words = " ".join(ast.unparse(one) for one in node.decorator_list)
                marks = set(re.findall(r"pytest\.mark\.(\w+)", words)) & MARKS
                found[node.name] = marks | ({"deep", "stress"} if "grouped(" in words else set())
    return found


@cache
def mutants() -> Table:
    """The table of them, which takes a while to read."""
    return load()


@cache
def rows(section: str = "All checks") -> dict[str, list[str]]:
    """Name of each check -> the cells of its row."""
    text = (ROOT / "docs" / "checks.md").read_text()
    table = text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    found = {}
    for line in table.splitlines():
        if line.startswith("| `"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            name = re.match(r"`(\w+)", cells[0])
            assert name and name[1] not in found, line
            found[name[1]] = cells
    return found


def test_the_readme_has_every_column_and_their_number() -> None:
    text = (ROOT / "README.md").read_text()
    table = text.split("\n| column | meaning |\n")[1].split("\n\n")[0]
    names = ", ".join(line.split("|")[1] for line in table.splitlines())
    found = {f"test_{name.strip().replace(' ', '_')}" for name in names.split(",")}
    assert set(checks()) - found == set()
    shown = [name for name in checks() if rows()[name][1] != "stress"]
    assert f"Without `-m quick` there are {len(shown)} columns" in text


def test_every_check_has_a_row_and_no_row_is_left_over() -> None:
    assert set(rows()) - set(OF_SERIES) == set(checks())


def test_every_check_and_variant_is_in_a_group() -> None:
    with pytest.raises(UsageError, match="no check is selected"):
        selection.checks(("-m", "not (quick or deep or stress)"))


def test_what_a_mutant_needs_is_no_stress_check() -> None:
    needed = {name for one in mutants().mutants.values() for name in one.needs}
    # It makes all of a host's memory scarce.
    assert needed - {"test_kswapd"} <= set(selection.checks(("-m", "quick or deep")))


def test_rows_name_the_variants_that_are_stress_checks() -> None:
    """As "deep; `[memfd]` stress", which stands for all whose name begins so."""
    groups = {mark: selection.checks(("-m", mark)) for mark in ("quick or deep", "stress")}
    families = [{name.partition("[")[0] for name in names} for names in groups.values()]
    # Of all but one the agers, of that one the opponents.
    for family in set.intersection(*families) - {"test_race"}:
        mark = rows()[family][1]
        assert mark.startswith("deep; `["), family
        words = re.findall(r"`\[([\w-]+)\]`", mark)
        for group, names in groups.items():
            for variant in (name[len(family) + 1 : -1] for name in names if f"{family}[" in name):
                told = any(f"{variant}-".startswith(f"{word}-") for word in words)
                assert told == (group == "stress"), (family, variant)


@pytest.mark.parametrize("name", sorted(checks()))
def test_row_says_all(name: str) -> None:
    _says_all(rows()[name], checks()[name])


def test_claims_are_those_of_the_table_of_mutants() -> None:
    """Selftests have them before what they show, if any."""
    tables = ("All checks", LINUX_GUEST, "The kernel's own selftests")
    shown = [cells[2] for table in tables for cells in rows(table).values()]
    found = [re.match(r"(\d+(?:, \d+)*)(?::|$)", text) for text in shown]
    numbers = {int(number) for one in found if one for number in one[1].split(", ")}
    claims = mutants().claims
    assert numbers <= set(claims)
    text = (ROOT / "docs" / "mutants.md").read_text().split("\n## The claims\n")[1]
    assert dict(re.findall(r"^\| (\d+) \| (.*?) \|", text, re.M)) == {
        str(number): words for number, words in claims.items()
    }


def _says_all(cells: list[str], marks: set[str]) -> None:
    assert len(cells) == 8
    assert set(re.findall(r"\w+", cells[1])) & MARKS == marks, "marks"
    assert re.fullmatch(r"\d+(, \d+)*", cells[2]), "claims"
    assert cells[3] and cells[6] and cells[7]


@pytest.mark.parametrize("name", sorted({*checks(), *OF_SERIES}))
def test_mutants_of_a_row_are_those_that_name_the_check(name: str) -> None:
    """All of the table's, or some and how many more."""
    table = mutants().mutants.items()
    must = {key for key, one in table if _bare(one.check) == name}
    # What a debug kernel reports is judged by another check than that which provokes it.
    provokes = {key for key, one in table if _bare(one.during) == name}
    shown = set(re.findall(r"`([\w-]+)`", rows()[name][7])) - set(checks())
    assert shown <= must | provokes
    more = re.search(r"and (\w+) more", rows()[name][7])
    assert len(must) == len(shown & must) + (_number(more[1]) if more else 0)


def test_row_of_races_says_for_each_opponent_what_proves_it() -> None:
    """Opponents by page_idle have their own name there, those by others that of the variant."""
    named: dict[str, set[str]] = {}
    for key, one in mutants().mutants.items():
        if found := re.fullmatch(r"test_race\[(?:page-idle-)?([\w-]+)\]", one.check or ""):
            named.setdefault(found[1], set()).add(key)
    cells = rows()["test_race"]
    told = re.findall(r"([\w-]+): (`[\w-]+`(?:, `[\w-]+`)*)", cells[7])
    assert {name: set(re.findall(r"[\w-]+", text)) for name, text in told} == named
    none = re.search(r"none of their own: ([a-z, -]+?)(?:, and|$)", cells[7])
    assert none
    opponents = set(re.findall(r"`([\w-]+)`", cells[0].split(" against ")[1]))
    assert set(none[1].split(", ")) == opponents - set(named)


def test_every_check_with_a_linux_guest_has_a_row_with_its_variants() -> None:
    """These run where they are asked for, so no mutant names one: each row says what was seen."""
    assert set(rows(LINUX_GUEST)) == set(checks("linux_guest"))
    named = [
        name if variant == "" else f"{name}[{variant}]"
        for name, cells in rows(LINUX_GUEST).items()
        for variant in re.findall(r"\[(\w+)\]", cells[0]) or [""]
    ]
    assert tuple(named) == selection.checks(("-m", "linux_guest"), linux_guest=True)


@pytest.mark.parametrize("name", sorted(checks("linux_guest")))
def test_row_of_a_check_with_a_linux_guest_says_all(name: str) -> None:
    cells = rows(LINUX_GUEST)[name]
    _says_all(cells, checks("linux_guest")[name])
    assert re.match(r"\d+", cells[5]), "seconds"
    caught = set(re.findall(r"`([\w-]+)`", cells[7]))
    assert caught and caught <= set(mutants().mutants)


@pytest.mark.parametrize("page", ["linux-guest.md", "summary.md"])
def test_ends_of_a_linux_guest_are_those_of_the_code(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert set(re.findall(r"`(guest-\w+)`", text)) == set(get_args(GuestEnd))


def _bare(check: str | None) -> str:
    return (check or "").split("[")[0]


def _number(word: str) -> int:
    digits = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    return 1 + (*digits, "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen").index(word)
