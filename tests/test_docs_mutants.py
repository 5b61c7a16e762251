# SPDX-License-Identifier: GPL-2.0-only
"""docs/mutants.md and docs/cost-mutants.md: no mutant of the table is left out of them.

One that is missed, or was not run, stands there as that.
"""

from __future__ import annotations

import re
from pathlib import Path

from harness.mutants.command import BASE
from harness.mutants.table import load

DOCS = Path(__file__).parents[1] / "docs"
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


def test_every_mutant_that_costs_only_has_a_row() -> None:
    costs = {name for name, mutant in MUTANTS.items() if mutant.kind == "cost"}
    assert set(rows("cost-mutants.md")) == costs
