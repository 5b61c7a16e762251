# SPDX-License-Identifier: GPL-2.0-only
"""One matrix of several runs of parts of the table."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_mutants_judge import a_break, matrix, ran, sound

from harness.errors import UsageError
from harness.mutants.join import NAME, join, read
from harness.mutants.report import tally
from harness.mutants.results import NAMED, NAMED_IN_PARTS, Build, Matrix, Ran, Result, listed
from harness.mutants.table import Mutant
from harness.results import Outcome

BREAK = Mutant(breaks="all", claim=1, cells=("vhe hardware",), check="test_a")
TABLE = {"first": BREAK, "second": BREAK}


def caught(name: str = "wrong", seeds: tuple[int, ...] = (1, 2)) -> Result:
    return a_break(*(ran(seed=seed, a="fail") for seed in seeds), name=name)


def test_parts_are_one_in_the_order_of_the_table() -> None:
    parts = [
        matrix(sound(ran(a="pass")), caught(name="second")),
        matrix(sound(ran(seed=2, a="pass")), caught(name="first")),
    ]
    joined = join(parts, TABLE)
    assert [result.name for result in joined.results] == ["base", "first", "second"]
    assert [one.seed for one in joined.results[0].ran] == [1, 2]
    assert (joined.verdict, joined.seconds) == ("pass", 120.0)
    assert "2 of 2 mutants caught" in tally(joined)


def test_parts_of_different_harnesses_are_told_in_the_headline() -> None:
    one, other = matrix(caught("first")), matrix(caught("second"))
    assert join([one, other], TABLE).harnesses == ()
    assert "versions of the harness" not in tally(join([one, other], TABLE))
    mixed = join([one, other.model_copy(update={"harness": "1"})], TABLE)
    assert mixed.harnesses == ("0", "1")
    words = "by 2 versions of the harness, whose checks may differ"
    assert tally(mixed).endswith(words)
    assert tally(join([mixed, one], TABLE)).endswith(words)


def test_that_only_named_checks_ran_is_said_of_all_parts_or_of_some() -> None:
    whole, named = (matrix(caught(name)) for name in ("first", "second"))
    named = named.model_copy(update={"notes": (*named.notes, NAMED)})
    assert NAMED in join([named, named], TABLE).notes
    some = join([whole, named], TABLE)
    assert NAMED_IN_PARTS in some.notes and NAMED not in some.notes
    assert NAMED_IN_PARTS in join([some, whole], TABLE).notes
    assert not {NAMED, NAMED_IN_PARTS} & set(join([whole, whole], TABLE).notes)


def test_what_no_part_ran_is_told() -> None:
    joined = join([matrix(caught(name="first"))], TABLE)
    assert joined.verdict == "error"
    assert "not run in any part: second" in joined.notes


def test_a_seed_that_no_part_ran_is_told() -> None:
    joined = join([matrix(caught("first"), caught("second", seeds=(2,)))], TABLE)
    assert joined.verdict == "error"
    assert "not run in any part: second with seed 1" in joined.notes


def absent(table: dict[str, Mutant], *results: Result) -> str:
    """What is told of what no part ran, in runs with the seeds 1 and 2."""
    notes = join([matrix(*results)], table).notes
    prefix = "not run in any part: "
    return next((note.removeprefix(prefix) for note in notes if note.startswith(prefix)), "")


def test_a_cell_that_no_part_ran_is_told() -> None:
    both = BREAK.model_copy(update={"cells": ("nvhe hardware", "nvhe software", "vhe hardware")})
    whole = [
        ran(cell=cell, seed=seed, a="fail")
        for seed in (1, 2)
        for cell in ("n1-nvhe", "a57-nvhe", "n1-vhe")
    ]
    table = {"first": both}
    assert not absent(table, a_break(*whole, name="first"))
    assert absent(table, a_break(*whole[1:], name="first")) == "first in nvhe with seed 1"
    assert absent(table, a_break(*whole[:-1], name="first")) == "first in vhe with seed 2"


def test_of_what_must_pass_cells_and_checks_are_told_that_no_part_ran() -> None:
    neutral = Mutant(breaks="nothing", kind="neutral", modes=("vhe", "protected"))
    table = {"first": BREAK, "same": neutral, "debug": BREAK.model_copy(update={"debug": True})}
    first, debug = caught("first"), caught("debug").model_copy(update={"debug": True})
    alike = listed("same", neutral)

    def told(base: list[Ran], same: list[Ran]) -> str:
        of_debug = sound(*(ran(seed=seed, a="pass") for seed in (1, 2)), name="base-debug")
        return absent(
            table,
            sound(*base),
            of_debug.model_copy(update={"debug": True}),
            first,
            debug,
            alike.model_copy(update={"ran": tuple(same)}),
        )

    good = [ran(seed=seed, a="pass", b="skip") for seed in (1, 2)]
    one_seed = [ran(cell=f"n1-{mode}", seed=2, a="pass") for mode in ("protected", "nvhe")]
    both = [*one_seed, *(one.model_copy(update={"seed": 1}) for one in one_seed)]
    assert not told(good, good)
    assert told(good[1:], good) == "base with seed 1"
    # One seed will do for a neutral mutant, with which it ran wherever the others did.
    assert not told([*good, *one_seed], good)
    assert told([*good, *both], good) == "same in n1-protected with seed 1"
    assert not told(good, good[1:])
    # A part of what runs in a cell is not that cell.
    assert told(good, [ran(seed=2, b="pass")]) == "same in n1-vhe (test_a) with seed 2"


def test_much_that_no_part_ran_is_counted() -> None:
    table = {f"m{number:02}": BREAK for number in range(30)}
    assert absent(table, caught("m07")).startswith("m00, m01, m02, m03, m04, m05, m06, m08, and 21")


def test_a_false_alarm_of_any_part_stays_one() -> None:
    parts = [
        matrix(sound(ran(a="fail")), caught(name="first")),
        matrix(sound(ran(a="pass")), caught(name="second")),
    ]
    joined = join(parts, TABLE)
    assert (joined.verdict, joined.results[0].found) == ("fail", "false alarm")


def doubtful(**update: object) -> Ran:
    unproven = ran(a="unproven", b="pass").model_copy(update={"outcome": "unproven"})
    return unproven.model_copy(update=update)


@pytest.mark.parametrize(
    ("before", "again", "found"),
    [
        (doubtful(), ran(a="pass"), "pass"),
        # Of another seed, without that check, and not proven either.
        (doubtful(), ran(seed=2, a="pass"), "error"),
        (doubtful(), ran(b="pass"), "error"),
        (doubtful(), ran(a="skip"), "error"),
        # What did not run there at all is not told by this either.
        (doubtful(reason="test_c did not run here"), ran(a="pass"), "error"),
        (doubtful(checks={"b": "pass"}), ran(a="pass"), "error"),
    ],
)
def test_what_was_not_proven_counts_until_it_was(before: Ran, again: Ran, found: str) -> None:
    """And what was found in between, with another seed, is not what the note tells of."""
    parts = [
        matrix(sound(before), caught(name="first")),
        matrix(sound(ran(seed=2, a="pass"))),
        matrix(sound(again), caught(name="second")),
    ]
    joined = join(parts, TABLE)
    assert joined.results[0].found == found
    note = "base: an earlier part found: error (unproven in n1-vhe (seed 1)). The later one counts"
    assert (note in joined.notes) == (found == "pass")


def died(**checks: Outcome) -> Ran:
    return ran("n1-vhe", 1, "error", "the kernel died", "", None, (), **checks)


@pytest.mark.parametrize(
    ("again", "found", "told"),
    [
        (ran(a="pass", b="pass"), "pass", True),
        (ran(a="pass", b="fail"), "false alarm", True),
        # Of another seed, of less than ran before, and ended by an error as well.
        (ran(seed=2, a="pass", b="pass"), "error", False),
        (ran(a="pass"), "error", False),
        (died(a="pass", b="pass"), "error", False),
    ],
)
def test_what_an_error_kept_from_being_seen_may_be_seen_later(
    again: Ran, found: str, told: bool
) -> None:
    parts = [
        matrix(sound(died(a="pass", b="error")), caught(name="first")),
        matrix(sound(again), caught(name="second")),
    ]
    joined = join(parts, TABLE)
    assert joined.results[0].found == found
    words = "base: an earlier part found: error (error in n1-vhe (seed 1): the kernel died). "
    assert any(note.startswith(words) for note in joined.notes) == told


def test_words_are_those_that_the_table_has_now() -> None:
    build = Build(build_id="b", seconds=12.0, cached=True)
    update = {"claim": 7, "breaks": "something", "build": build}
    before = caught(name="first").model_copy(update=update)
    first = join([matrix(before, caught(name="second"))], TABLE).results[0]
    assert (first.name, first.claim, first.breaks) == ("first", 1, "all")
    assert (first.found, first.build) == ("caught", build)


@pytest.mark.parametrize(
    ("name", "was", "words"),
    [
        ("check", "test_b", "check test_b, and the table has test_a"),
        ("series", "x", "series x, and the table has None"),
        ("debug", True, "debug True, and the table has False"),
        ("kind", "neutral", "kind neutral, and the table has break"),
    ],
)
def test_what_was_run_as_something_else_is_refused(name: str, was: object, words: str) -> None:
    before = caught(name="first").model_copy(update={name: was})
    with pytest.raises(UsageError, match=f"first was run with {words}"):
        join([matrix(before)], TABLE)


def test_what_is_named_for_another_check_since_is_left_out() -> None:
    before = a_break(ran(b="pass"), name="first").model_copy(update={"check": "test_b"})
    joined = join([matrix(before), matrix(caught(name="first"), caught(name="second"))], TABLE)
    assert joined.results[0].found == "caught"
    told = "first: an earlier part found: missed (test_b: pass in n1-vhe (seed 1)). The table names"
    assert any(note.startswith(told) for note in joined.notes)


def test_a_miss_by_the_check_that_is_named_since_stays() -> None:
    before = a_break(ran(a="pass", b="pass"), name="first").model_copy(update={"check": "test_b"})
    joined = join([matrix(before), matrix(caught(name="first"), caught(name="second"))], TABLE)
    assert joined.results[0].found == "missed"


def test_what_was_only_listed_as_something_else_was_not_run() -> None:
    before = listed("first", BREAK).model_copy(update={"kind": "equivalent"})
    joined = join([matrix(before, caught(name="second"))], TABLE)
    assert joined.verdict == "error"
    assert any("not run in any part: first" in note for note in joined.notes)
    assert tally(joined).startswith("1 of 1 mutants caught by the check named, 1 more not run")


def part_of(harness: str, *results: Result) -> Matrix:
    """A part in a folder of its own, as read() has it."""
    placed = [
        result.model_copy(
            update={
                "ran": tuple(
                    one.model_copy(update={"folder": f"{harness}/{one.folder}"})
                    for one in result.ran
                )
            }
        )
        for result in results
    ]
    return matrix(*placed).model_copy(update={"harness": harness})


MISSED = a_break(*(ran(seed=seed, a="pass") for seed in (1, 2)), name="first")


def test_of_a_mutant_that_ran_twice_the_last_counts_and_the_first_is_told() -> None:
    parts = [
        part_of("one", MISSED, caught(name="second")),
        part_of("two", caught(name="first")),
    ]
    joined = join(parts, TABLE)
    assert joined.results[0].found == "caught"
    told = "first: an earlier part found: missed (test_a: pass in n1-vhe (seeds 1, 2)). "
    assert any(note.startswith(told) for note in joined.notes)
    assert join(parts[::-1], TABLE).results[0].found == "missed"


def test_what_the_same_harness_missed_is_not_caught_by_another_try() -> None:
    second = caught(name="second")
    again = [part_of("one", MISSED, second), part_of("one", caught(name="first"))]
    joined = join(again, TABLE)
    assert joined.results[0].found == "missed"
    assert len(joined.results[0].ran) == 4
    # But a cell that could not be run is no miss.
    broken = a_break(*(ran(seed=s, outcome="error") for s in (1, 2)), name="first")
    again = [part_of("one", broken, second), part_of("one", caught(name="first"))]
    assert join(again, TABLE).results[0].found == "caught"


def test_a_later_part_that_only_lists_a_mutant_says_nothing_of_it() -> None:
    parts = [
        matrix(caught(name="first"), caught(name="second")),
        matrix(listed("first", BREAK)),
    ]
    assert join(parts, TABLE).results[0].found == "caught"


def test_parts_may_have_seeds_of_their_own() -> None:
    parts = [
        matrix(caught("first", (seed,)), caught("second", (seed,))).model_copy(
            update={"seeds": (seed,)}
        )
        for seed in (3, 1)
    ]
    joined = join(parts, TABLE)
    assert (joined.seeds, joined.verdict) == ((1, 3), "pass")
    assert not any("not run" in note or "earlier" in note for note in joined.notes)
    assert [one.seed for one in joined.results[0].ran] == [3, 1]


def test_a_mutant_that_the_table_lacks_does_not_vanish() -> None:
    with pytest.raises(UsageError, match="third was run, and is not in the table"):
        join([matrix(caught("first")), matrix(caught("third"))], TABLE)


def test_parts_of_other_kernels_are_refused() -> None:
    one = matrix(caught())
    for name, value in (("version", "7.3"), ("source", "another")):
        with pytest.raises(UsageError, match=f"do not belong together: {name}"):
            join([one, one.model_copy(update={name: value})], TABLE)


def test_a_folder_is_read_and_evidence_is_told_from_there(tmp_path: Path) -> None:
    folder = tmp_path / "half.1"
    folder.mkdir()
    (folder / NAME).write_text(matrix(caught()).model_dump_json(by_alias=True))
    assert read(folder).results[0].ran[0].folder == "half.1/runs/x-seed1/cells/n1-vhe-patched"
    (folder / NAME).write_text("{}")
    with pytest.raises(UsageError, match="not what `kvm-harness mutants` writes"):
        read(folder)
    with pytest.raises(UsageError, match="No such file"):
        read(tmp_path / "none")


def test_a_record_alone_is_read_as_its_folder_would_be(tmp_path: Path) -> None:
    record = tmp_path / "half.json"
    record.write_text(matrix(caught()).model_dump_json(by_alias=True))
    assert read(record).results[0].ran[0].folder == "half/runs/x-seed1/cells/n1-vhe-patched"
