# SPDX-License-Identifier: GPL-2.0-only
"""The table of mutants: it agrees with its patches, and nothing of it reaches a verdict."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from kernel_helpers import as_mail
from pydantic import ValidationError

from harness import inventory, selection
from harness.errors import UsageError
from harness.inventory import AfMode, KvmMode
from harness.kernel import cache, diff
from harness.kernel import series as series_module
from harness.kernel.flavor import DEBUG
from harness.mutants import table
from harness.mutants.command import BASE, subjects
from harness.mutants.table import Mutant, Place
from harness.series_builds import NAMES as OF_SERIES

ALL = tuple(Place(mode, af) for mode in get_args(KvmMode) for af in get_args(AfMode))
REAL = table.load()
REAL_TEXT = table.TABLE.read_text()

ENTRY = "    breaks: something\n    claim: 1\n    cells: [vhe hardware]\n    check: test_x\n"
HEAD = "schema: 1\nclaims: {1: a claim}\nmutants:\n"


def write(folder: Path, text: str, *patches: str) -> Path:
    path = folder / "mutants.yaml"
    path.write_text(text)
    for name in patches:
        (folder / f"{name}.patch").write_text(
            "--- a/kvm/mmu.c\n+++ b/kvm/mmu.c\n@@ -1 +1 @@\n-old\n+new\n"
        )
    return path


def a_break(**changes: object) -> Mutant:
    entry: dict[str, object] = {
        "breaks": "x",
        "claim": 1,
        "cells": ["vhe hardware"],
        "check": "test_x",
    }
    return Mutant.model_validate({**entry, **changes})


# ---- the project's own table ----------------------------------------------------------------


def test_there_are_enough_of_each_kind() -> None:
    kinds = [mutant.kind for mutant in REAL.mutants.values()]
    assert kinds.count("break") >= 24
    assert kinds.count("neutral") >= 3
    assert kinds.count("equivalent") >= 1
    assert kinds.count("cost") >= 2


@pytest.mark.parametrize("name", REAL.mutants)
def test_patch_is_a_bare_diff(name: str) -> None:
    text = table.patch_of(name).read_bytes()
    assert diff.extract(text) == text, "text before or after the diff could be leant on"
    assert diff.files(text)


@pytest.mark.parametrize("name", REAL.mutants)
def test_patch_adds_no_comment_that_tells(name: str) -> None:
    text = table.patch_of(name).read_text()
    added = [line[1:] for line in text.splitlines() if re.match(r"\+(?!\+\+ )", line)]
    comments = [line for line in added if "/*" in line or "//" in line]
    assert bool(comments) == (name == "neutral-comment")


def test_the_cache_has_room_for_all_of_them_and_more() -> None:
    """Or each run of them builds anew what the last one built."""
    assert cache.KEEP["builds"] > len(table.load().mutants) + 20


def test_checks_exist() -> None:
    table.require_checks(REAL.mutants, selection.checks())


def test_check_that_does_not_exist_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "  a:\n" + ENTRY, "a")
    with pytest.raises(UsageError) as caught:
        table.require_checks(table.load(path).mutants, ["test_y"], path)
    assert f"{path}:8: mutants.a.check: there is no check 'test_x'" in str(caught.value)


def test_check_in_whose_course_the_kernel_complains_must_exist(tmp_path: Path) -> None:
    entry = ENTRY.replace("test_x", "test_kernel_log") + "    during: test_x\n"
    entry += "    says: KASAN\n"
    path = write(tmp_path, HEAD + "  a:\n" + entry, "a")
    mutants = table.load(path).mutants
    assert mutants["a"].needs == {"test_kernel_log", "test_x"}
    with pytest.raises(UsageError) as caught:
        table.require_checks(mutants, ["test_kernel_log"], path)
    assert f"{path}:9: mutants.a.during: there is no check 'test_x'" in str(caught.value)


def test_every_break_runs_in_cells_that_the_inventory_has() -> None:
    stock = inventory.load()
    hosts = [stock.host(name) for name in stock.hosts]
    available = [Place(mode, host.af) for host in hosts for mode in host.kvm_modes]
    for name, mutant in REAL.mutants.items():
        places = table.places_of(mutant, available, whole=False)
        assert set(mutant.places) <= set(places), name


# ---- errors name file, line and key ---------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (HEAD + "  a:\n" + ENTRY + "    wrong: 1\n", ":9: mutants.a.wrong"),
        (HEAD + "  a:\n" + ENTRY.replace("claim: 1", "claim: 2"), ":6: mutants.a.claim"),
        (HEAD + "  a:\n" + ENTRY + "    series: none\n", ":9: mutants.a.series"),
        (HEAD + "  b:\n" + ENTRY, ":4: mutants.b: there is no b.patch"),
        (HEAD + "  a:\n" + ENTRY.replace("vhe hardware", "vhe"), ":7: mutants.a.cells[0]"),
        (HEAD + "  a:\n" + ENTRY.replace("    check: test_x\n", ""), ":4: mutants.a: "),
    ],
)
def test_errors_name_file_line_and_key(text: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path, text, "a")
    with pytest.raises(UsageError) as caught:
        table.load(path)
    assert f"{path}{words}" in str(caught.value)


def test_patch_without_an_entry_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, HEAD + "  a:\n" + ENTRY, "a", "b")
    with pytest.raises(UsageError, match=r"b\.patch is not in this table"):
        table.load(path)


def test_a_break_may_cost_as_well() -> None:
    assert a_break(metric="cost-idle").metric == "cost-idle"


@pytest.mark.parametrize(
    "changes",
    [
        {"check": None},
        {"cells": []},
        {"claim": None},
        {"kind": "neutral"},
        {"kind": "cost"},
        {"shown_by": "time"},
        {"kind": "neutral", "claim": None, "cells": [], "check": None, "metric": "cost-idle"},
        {"modes": ["nvhe"]},
        {"stage2_af": ["software"]},
        {"check": "test_kernel_log"},
        {"during": "test_y"},
        {"check": "test_kernel_log", "during": "test_y"},
        {"kind": "neutral", "claim": None, "cells": [], "check": None, "says": "x"},
    ],
)
def test_what_contradicts_itself_is_refused(changes: dict[str, object]) -> None:
    a_break()
    with pytest.raises(ValidationError):
        a_break(**changes)


# ---- selection ------------------------------------------------------------------------------


def test_selection_by_name() -> None:
    assert set(table.select(REAL, "neutral-rename or hw-af-off")) == {
        "neutral-rename",
        "hw-af-off",
        "pkvm-hw-af-off",
    }
    assert "hw-af-off" not in table.select(REAL, "af and not hw")
    assert table.select(REAL, None) == dict(REAL.mutants)


@pytest.mark.parametrize("expression", ["nonesuch", "("])
def test_selection_of_nothing_is_refused(expression: str) -> None:
    with pytest.raises(UsageError, match="-k"):
        table.select(REAL, expression)


def test_mutants_run_in_their_own_cells_or_in_all_where_they_show() -> None:
    mutant = a_break(modes=["vhe", "protected"], stage2_af=["hardware"])
    assert table.places_of(mutant, ALL, whole=False) == (Place("vhe", "hardware"),)
    assert table.places_of(mutant, ALL, whole=True) == (
        Place("vhe", "hardware"),
        Place("protected", "hardware"),
    )
    neutral = Mutant(breaks="x", kind="neutral")
    assert table.places_of(neutral, ALL, whole=False) == ALL


def test_base_runs_wherever_a_mutant_does() -> None:
    chosen = table.select(REAL, "hw-af-off or af-of-neighbour or second-walk")
    base, *rest = subjects(chosen, table.TABLE, ALL, whole=False)
    assert (base.name, base.mutant, base.series) == (BASE, None, None)
    assert set(base.places) == {place for subject in rest for place in subject.places}
    assert {subject.name for subject in rest} == {"hw-af-off", "pkvm-hw-af-off", "af-of-neighbour"}


def test_what_is_not_run_needs_no_control() -> None:
    assert subjects(table.select(REAL, "second-walk"), table.TABLE, ALL, whole=True) == ()


# ---- nothing to lean on ---------------------------------------------------------------------


def test_name_subject_author_and_text_do_not_reach_the_series(tmp_path: Path) -> None:
    name = "af-never-cleared"
    bare = table.patch_of(name)
    talkative = tmp_path / "0001-this-one-is-broken.patch"
    mail = as_mail("[PATCH] KVM: break aging", bare.read_text(), text="It is broken.\n")
    talkative.write_text(mail)
    mutant = REAL.mutants[name]
    plain, dressed = (table.series_of(mutant, path) for path in (bare, talkative))
    assert dressed == plain
    (patch,) = plain.patches
    assert (patch.subject, patch.author, patch.text) == ("", "", b"")
    assert name not in repr(plain)
    assert plain.digest == series_module.load(str(talkative)).digest


def test_mutant_of_a_series_is_held_to_its_contract() -> None:
    name = "af-never-cleared"
    mutant = REAL.mutants[name].model_copy(update={"series": "stage2-sw-af"})
    series = table.series_of(mutant, table.patch_of(name))
    assert series.contract == series_module.load("stage2-sw-af").contract
    assert series.contract is not None
    assert table.series_of(REAL.mutants[name], table.patch_of(name)).contract is None


def test_mutant_of_a_series_is_built_upon_it(tmp_path: Path) -> None:
    text = REAL_TEXT.replace(
        "\n  young-not-reported:", "\n    series: stage2-sw-af\n  young-not-reported:"
    )
    path = write(tmp_path, text)
    for patch in table.TABLE.parent.glob("*.patch"):
        (tmp_path / patch.name).write_bytes(patch.read_bytes())
    chosen = table.select(table.load(path), "af-never-cleared or hw-af-off")
    run = {subject.name: subject for subject in subjects(chosen, path, ALL, whole=False)}
    assert list(run)[:2] == ["base", "stage2-sw-af"]
    assert run["stage2-sw-af"].places == (Place("vhe", "hardware"),)
    assert run["stage2-sw-af"].ground == run["stage2-sw-af"].base == "base"
    assert (run["af-never-cleared"].ground, run["af-never-cleared"].base) == (
        "stage2-sw-af",
        "base",
    )
    assert run["hw-af-off"].ground == "base"


def test_patch_without_a_diff_is_refused(tmp_path: Path) -> None:
    patch = tmp_path / "a.patch"
    patch.write_text("words\n")
    with pytest.raises(UsageError, match=r"a\.patch"):
        table.series_of(a_break(), patch)


def test_debug_mutants_have_controls_of_their_own() -> None:
    chosen = table.select(REAL, "rcu-left-open or hw-af-off")
    run = {subject.name: subject for subject in subjects(chosen, table.TABLE, ALL, whole=False)}
    assert list(run)[:2] == ["base", "base-debug"]
    assert run["base-debug"].places == run["rcu-left-open"].places == (Place("vhe", "hardware"),)
    assert run["rcu-left-open"].base == "base-debug"
    assert run["hw-af-off"].base == "base"
    assert run["base-debug"].flavor is run["rcu-left-open"].flavor is DEBUG


@pytest.mark.parametrize("check", OF_SERIES)
def test_check_of_the_series_needs_no_cell(check: str) -> None:
    mutant = a_break(cells=[], check=check)
    assert table.places_of(mutant, ALL, whole=True) == ()
    assert not mutant.needs
    with pytest.raises(ValidationError):
        a_break(check=check)


def test_mutant_of_the_series_is_checked_without_a_cell() -> None:
    (subject,) = subjects(table.select(REAL, "kvm-needed-by-mm"), table.TABLE, ALL, whole=False)
    assert subject.checks_series
    assert subject.places == ()


def test_mutant_of_a_series_comes_with_the_patches_that_it_goes_on() -> None:
    """A check of the series builds upon the source; a cell's kernel upon that of the series."""
    name = "lockless-links-on-arm64-alone"
    under = table.ground("lockless-aging").patches
    whole = table.series_of(REAL.mutants[name], table.patch_of(name))
    assert whole.patches[:-1] == under
    (subject,) = subjects(table.select(REAL, name), table.TABLE, ALL, whole=False)
    assert (subject.ground, subject.series) == (BASE, whole)
    in_cells = "lockless-takes-lock"
    alone = table.series_of(REAL.mutants[in_cells], table.patch_of(in_cells))
    assert len(alone.patches) == 1


def test_checks_of_the_series_run_on_what_must_pass_too() -> None:
    chosen = table.select(REAL, "neutral-helper or hw-af-off")
    run = {subject.name: subject for subject in subjects(chosen, table.TABLE, ALL, whole=False)}
    assert run["neutral-helper"].checks_series
    assert not run["hw-af-off"].checks_series
    assert not run["base"].checks_series
