# SPDX-License-Identifier: GPL-2.0-only
"""docs/mutants.md and docs/cost-mutants.md: no mutant of the table is left out of them.

One that is missed, or was not run, stands in the former as that. In the latter each is caught, by
the cost that its entry names: whoever finds another must mend the cost or the mutant.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.inventory import load as load_inventory
from harness.mutants.command import BASE
from harness.mutants.join import join, read
from harness.mutants.report import markdown
from harness.mutants.table import Place, load
from harness.plan import plan

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MUTANTS = load().mutants


def rows(page: str) -> list[str]:
    """The names that rows of tables begin with."""
    return re.findall(r"^\| `([a-z0-9-]+)` \|", (DOCS / page).read_text(), re.MULTILINE)


def test_every_mutant_has_a_row_and_no_row_is_left_over() -> None:
    found = rows("mutants.md")
    assert len(found) == len(set(found))
    grounds = {BASE, *(mutant.series for mutant in MUTANTS.values() if mutant.series)}
    controls = grounds | {f"{ground}-debug" for ground in grounds}
    assert set(found) - controls == set(MUTANTS)


def test_page_says_what_the_records_beside_it_do() -> None:
    """`mutants --join docs/mutants/*.json --markdown docs/mutants.md` would change nothing."""
    records = sorted((DOCS / "mutants").glob("*.json"))
    matrix = join([read(record) for record in records], MUTANTS)
    assert markdown(matrix, load().claims) == (DOCS / "mutants.md").read_text()


def cells() -> dict[str, Place]:
    """The default cells of the base, as records call them."""
    stock = load_inventory(ROOT / "inventory.yaml")
    return {
        f"{one.host}-{one.kvm_mode}": Place(one.kvm_mode, one.af_mode) for one in plan(stock, None)
    }


def test_no_check_is_skipped_where_it_is_to_catch_a_mutant() -> None:
    """By the records of what must pass: with --all-cells such a mutant would be missed there."""
    where = cells()
    runs = [
        (result, ran)
        for record in (DOCS / "mutants").glob("*.json")
        for result in read(record).results
        if result.kind == "control"
        for ran in result.ran
        if ran.cell in where
    ]
    skipped = [
        (name, ran.cell)
        for name, mutant in MUTANTS.items()
        for result, ran in runs
        if (result.series, result.debug) == (mutant.series, mutant.debug)
        and mutant.shows_in(where[ran.cell])
        and "skip" in (ran.checks.get(check) for check in mutant.needs)
    ]
    assert len(runs) > len(where)
    assert not skipped


COSTS = {name: mutant for name, mutant in MUTANTS.items() if mutant.metric}


def fields_of(name: str) -> list[str]:
    """The row of a mutant in cost-mutants.md, without its name."""
    text = (DOCS / "cost-mutants.md").read_text()
    (row,) = re.findall(rf"^\| `{name}` \| (.*) \|$", text, re.MULTILINE)
    return str(row).split(" | ")


def test_every_mutant_that_costs_only_has_a_row() -> None:
    assert sorted(rows("cost-mutants.md")) == sorted(COSTS)


@pytest.mark.parametrize("name", COSTS)
def test_every_mutant_that_costs_only_is_caught_by_the_cost_that_it_names(name: str) -> None:
    mutant = COSTS[name]
    breaks, on, _, found, worse, _ = fields_of(name)
    assert (breaks, on, found) == (mutant.breaks, mutant.series or "base", "caught")
    shown = re.findall(r"([a-z-]+) ([0-9.]+) -> ([0-9.]+)(?:; |$)", worse)
    numbers = {metric: (float(base), float(mutated)) for metric, base, mutated in shown}
    assert mutant.metric is not None
    base, mutated = numbers[mutant.metric]
    assert mutated > base
