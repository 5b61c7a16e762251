# SPDX-License-Identifier: GPL-2.0-only
"""docs/checks.md: selftests have the rows that their table in the code says, and how their access
faults agree with those of our own guest is what a record of a run says."""

from __future__ import annotations

import re

import access_faults
import pytest
from access_faults import OWN, SELFTEST
from test_docs_checks import rows

from harness.inventory import load
from harness.mutants.table import load as mutants
from harness.paths import PROJECT
from harness.plan import plan
from harness.selftests.table import MODE_4K, MODE_64K, SELFTESTS, Selftest

SECTION = "The kernel's own selftests"
PAGES = {MODE_4K: "guests with pages of 4 KiB", MODE_64K: "guests with pages of 64 KiB"}
NONE = "none of the table"


def test_every_selftest_has_a_row_in_their_order() -> None:
    assert list(rows(SECTION)) == [test.name for test in SELFTESTS]


@pytest.mark.parametrize("test", SELFTESTS, ids=lambda test: test.name)
def test_row_of_a_selftest_is_what_the_code_does(test: Selftest) -> None:
    cells = rows(SECTION)[test.name]
    name, arguments, claim, needs, seconds, deadline, hidden, caught = cells
    assert re.findall(r"`(\w+)`", name) == list(test.names)
    ways = [test.arguments, test.at_large] if test.at_large else [test.arguments]
    assert re.findall(r"`([^`]+)`", arguments) == [" ".join(way) for way in ways if way]
    assert claim and hidden
    assert re.fullmatch(r"[\d.]+|\?", seconds)
    assert deadline == f"{test.seconds:.0f}"
    told = {mode: words in needs for mode, words in PAGES.items()}
    assert told == {mode: mode == test.mode for mode in PAGES}
    for one in test.needs:
        assert one.what.partition(" (")[0] in needs
    assert ("kprobes" in needs) == (test.kvm is not None)
    assert ("tracefs" in needs) == (test.kvm is not None or test.old_accesses > 0)
    named = set(re.findall(r"`([\w-]+)`", caught))
    assert named <= set(mutants().mutants)
    assert caught.startswith(NONE) != bool(named)


def test_no_mutant_names_a_selftest() -> None:
    """Else its row would be held to the table, as those of other checks are."""
    assert not [one for one in mutants().mutants.values() if "selftest" in (one.check or "")]


def test_the_record_has_every_cell_and_all_passed() -> None:
    kept = access_faults.read()
    whole = plan(load(PROJECT / "inventory.yaml"), None)
    assert {place.cell for place in kept.cells} == {cell.id for cell in whole}
    for place in kept.cells:
        assert {seen.outcome for seen in place.checks.values()} == {"pass"}, place.cell


def test_both_guests_say_the_same_of_who_sets_the_access_flag() -> None:
    for place in access_faults.read().cells:
        for name in (OWN, SELFTEST):
            some, all_ = access_faults.faults(place)[name]
            assert all_ > 0
            assert some == (0 if place.af_mode == "hardware" else all_), (place.cell, name)


def test_the_page_says_what_the_record_does() -> None:
    """`python tests/access_faults.py RUN` would change nothing for the run of the record."""
    text = access_faults.PAGE.read_text()
    assert access_faults.page_with(text, access_faults.read()) == text


def test_another_record_changes_the_page() -> None:
    kept = access_faults.read()
    other = kept.model_copy(update={"seed": kept.seed + 1, "cells": kept.cells[:1]})
    text = access_faults.page_with(access_faults.PAGE.read_text(), other)
    assert access_faults.words(other) in text
    assert access_faults.table(other) in text
    assert access_faults.table(kept) not in text
    assert access_faults.page_with(text, kept) == access_faults.PAGE.read_text()
