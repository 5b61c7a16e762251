# SPDX-License-Identifier: GPL-2.0-only
"""One tally of many records of runs of sound kernels: nothing is lost, nothing counted twice."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from test_mutants_judge import a_break, matrix, ran, sound

from harness import cli
from harness.errors import UsageError
from harness.mutants.results import Matrix, Result
from harness.repeat.join import Joined, join, read
from harness.repeat.report import bound, describe, markdown
from harness.results import SERIES

BASE = {"kernel": "base", "host": "n1", "kvm_mode": "vhe", "af_mode": "hardware"}
PLACES: Mapping[str, Mapping[str, str]] = {
    "n1-vhe-base": BASE,
    "n1-vhe-patched": {**BASE, "kernel": "patched"},
    "a57-nvhe-base": {**BASE, "host": "a57", "kvm_mode": "nvhe", "af_mode": "software"},
    "n1-vhe-patched-sw-af": {**BASE, "kernel": "patched", "variant": "sw-af"},
}


def a_kernel(**fields: Any) -> dict[str, Any]:
    given = {"label": "base", "source": "Debian", "version": "6.12.117", "build_id": "ab"}
    return {**given, "config_sha256": "cd", "cached": True, "build_seconds": 1.0, **fields}


def a_record(cells: dict[str, dict[str, int]], name: str = "r", **fields: Any) -> dict[str, Any]:
    """A record of runs in which test_a ended in each cell as the cell did."""
    runs = max((sum(counts.values()) for counts in cells.values()), default=0)
    seeds = list(range(1, runs + 1))
    made = {
        "schema": 1,
        "harness": "0.1.0",
        "harness_digests": ["d1"],
        "count": runs,
        "reason": "",
        "series": "lockless-aging",
        "series_digest": "5e71e5" * 4,
        "marks": "quick",
        "only": ["-m quick"],
        "started": "2026-11-29T16:00:00+00:00",
        "seconds": 7200.0,
        "emulated": True,
        "emulators": ["QEMU 7.2"],
        "kernels": [a_kernel()],
        "seeds": seeds,
        "runs": [{"seed": at, "folder": f"{name}-{at}", "verdict": "pass"} for at in seeds],
        "verdict": "pass",
        "places": {cell: PLACES.get(cell, BASE) for cell in cells},
        "cells": cells,
        "checks": {"test_a": cells},
    }
    return {**made, **fields}


def an_old(record: dict[str, Any]) -> dict[str, Any]:
    kept = ("schema", "count", "reason", "seeds", "runs", "verdict", "checks", "cells")
    return {key: record[key] for key in kept}


class Records:
    """Files of records."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, record: object, name: str = "part.json") -> Path:
        path = self._folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(record if isinstance(record, str) else json.dumps(record))
        return path

    def join(self, *records: dict[str, Any] | Matrix) -> Joined:
        plain = [
            one.model_dump(mode="json", by_alias=True) if isinstance(one, Matrix) else one
            for one in records
        ]
        return join([read(self.write(one, f"part{at}.json")) for at, one in enumerate(plain)])


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path)


def tables(text: str) -> dict[str, list[list[str]]]:
    """The rows of each table by the head that it stands under, without heads and code marks."""
    found: dict[str, list[list[str]]] = {}
    head = ""
    for line in text.splitlines():
        if line.startswith("#"):
            head = line.lstrip("# ")
        elif line.startswith("| "):
            cells = line.removeprefix("| ").removesuffix(" |").split(" | ")
            found.setdefault(head, []).append([cell.strip("`") for cell in cells])
    return {head: rows[2:] for head, rows in found.items()}


# ---- counts ---------------------------------------------------------------------------------


def test_counts_add(records: Records) -> None:
    both = {"n1-vhe-base": {"pass": 3}, "n1-vhe-patched": {"pass": 2, "unproven": 1}}
    found = records.join(
        a_record(both, "x"), a_record({"n1-vhe-base": {"pass": 4, "fail": 1}}, "y", series="")
    )
    base, series = found.subjects
    assert (base.series, found.of(base)) == ("", {"pass": 7, "fail": 1})
    assert (series.series, found.of(series)) == ("lockless-aging", {"pass": 2, "unproven": 1})
    assert (found.runs[base], found.runs[series]) == (8, 3)
    assert found.seeds[base] == {1, 2, 3, 4, 5}
    assert found.checks["test_a"] == {"pass": 9, "fail": 1, "unproven": 1}
    assert found.verdict == "fail"


@pytest.mark.parametrize(
    "fields",
    [
        {"debug": True},
        {"marks": "deep"},
        {"names": "page_idle"},
        {"own_checks": True},
        {"linux_guest": True, "marks": ""},
        {"kernels": [a_kernel(version="6.13")]},
        {"kernels": [a_kernel(source="tree /x")]},
        {"series_digest": "0"},
    ],
)
def test_what_is_not_alike_is_counted_apart(records: Records, fields: dict[str, Any]) -> None:
    cells = {"n1-vhe-patched": {"pass": 1}}
    found = records.join(a_record(cells, "x"), a_record(cells, "y", **fields))
    assert [found.of(one) for one in found.subjects] == [{"pass": 1}] * 2
    totals = tables(markdown(found))["False alarms: how often is a sound kernel called broken?"]
    assert totals[0][:4] != totals[1][:4]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "quick"),
        ({"marks": ""}, "quick and deep"),
        ({"marks": "quick or deep"}, "quick and deep"),
        ({"marks": "not quick"}, "deep"),
        ({"marks": "quick or deep or stress"}, "quick, deep and stress"),
        ({"marks": "", "linux_guest": True}, "quick, deep and linux_guest"),
        ({"marks": "", "names": "idle"}, "-k idle"),
        ({"names": "idle"}, "quick, -k idle"),
        ({"own_checks": True, "names": "spin"}, "own checks, -m quick, -k spin"),
        ({"marks": "((("}, "-m ((("),
    ],
)
def test_checks_in_words(records: Records, fields: dict[str, Any], words: str) -> None:
    found = records.join(a_record({"n1-vhe-base": {"pass": 1}}, **fields))
    assert [one.checks for one in found.subjects] == [words]


def test_the_totals_are_the_sums_of_their_places(records: Records) -> None:
    cells = {
        "n1-vhe-base": {"pass": 5, "fail": 1},
        "a57-nvhe-base": {"pass": 3, "unproven": 3},
        "n1-vhe-patched": {"pass": 4, "error": 1, "skip": 1},
        "n1-vhe-patched-sw-af": {"pass": 6},
    }
    found = records.join(a_record(cells, "x"), a_record(cells, "y", debug=True), a_record(cells))
    parts = tables(markdown(found))
    totals = parts["False alarms: how often is a sound kernel called broken?"]
    assert len(totals) == 4
    for row in totals:
        places = [one for one in parts["By place"] if one[:4] == row[:4]]
        assert len(places) == 2
        sums = [sum(int(one[at]) for one in places) for at in range(6, 11)]
        assert sums == [int(text) for text in row[6:11]]
        assert int(row[6]) == sum(map(int, row[7:11]))
    (check,) = parts["By check"]
    assert check == ["test_a", "69", "54", "3", "3", "9", "3"]
    assert "3 false alarms in 69 cells, of which 54 passed" in markdown(found)
    assert "3 more were skipped whole" in markdown(found)


def test_a_place_has_its_variant_and_who_sets_the_flag(records: Records) -> None:
    found = records.join(a_record({"n1-vhe-patched-sw-af": {"pass": 1}}))
    (row,) = tables(markdown(found))["By place"]
    assert row[4:6] == ["n1 vhe +sw-af", "hardware"]


def test_a_failure_of_the_series_itself_is_no_cell_but_a_false_alarm(records: Records) -> None:
    built = {"build_without_kvm": {SERIES: {"pass": 1, "fail": 1}}}
    found = records.join(a_record({"n1-vhe-patched": {"pass": 2}}, checks=built))
    rows = tables(markdown(found))["By place"]
    assert [(row[4], row[6:9]) for row in rows] == [
        ("n1 vhe", ["2", "2", "0"]),
        ("the series itself", ["1", "0", "1"]),
    ]
    assert found.runs[found.subjects[0]] == 2


@pytest.mark.parametrize(
    ("passed", "failed", "low", "high"),
    [(100, 0, 0.02951, 0.02952), (1, 0, 0.9499, 0.9501), (0, 0, 1, 1), (99, 1, 0.0465, 0.0467)],
)
def test_the_bound_is_exact(passed: int, failed: int, low: float, high: float) -> None:
    assert low <= bound(passed, failed) <= high


def test_a_bound_is_rounded_up(records: Records) -> None:
    text = markdown(records.join(a_record({"n1-vhe-base": {"pass": 100, "error": 4}})))
    assert "| 1-104 | 104 | 100 | 0 | 4 | 0 | 2.96 % |" in text


# ---- what did not pass ----------------------------------------------------------------------


def test_reasons_are_kept(records: Records) -> None:
    told = {"seed": 7, "cell": "n1-vhe-base", "name": "test_a", "outcome": "unproven"}
    fail = {"seed": 3, "cell": "n1-vhe-base", "name": "", "outcome": "fail", "reason": "a panic"}
    record = a_record(
        {"n1-vhe-base": {"pass": 5, "unproven": 1, "fail": 1}},
        troubles=[{**told, "reason": "no race met", "observed": "0 of 4"}, fail],
    )
    record["runs"][0] |= {"verdict": "error", "reason": "QEMU ended with 1"}
    found = records.join(record)
    section = markdown(found).partition("## What did not pass\n\n")[2].partition("\n\n")[0]
    assert [line.startswith("- `part0`: ") for line in section.splitlines()] == [True] * 3
    first, second, third = section.splitlines()
    assert "fail: the cell by itself in n1 vhe (base, plain, seed 3): a panic`" in first
    assert "unproven: test_a in n1 vhe (base, plain, seed 7): no race met; observed: 0 of 4" in (
        second
    )
    assert "seed 1: error: QEMU ended with 1" in third
    lines = describe(found)
    assert "part0: seed 1: error: QEMU ended with 1" in lines
    assert any(line.endswith("seed 3): a panic") for line in lines)
    assert lines[-1].startswith("1 part: fail: 1 false alarm in 7 cells")


def test_nothing_is_said_to_be_nothing(records: Records) -> None:
    found = records.join(a_record({"n1-vhe-base": {"pass": 1}}))
    assert "## What did not pass\n\nNothing.\n" in markdown(found)
    assert found.verdict == "pass"


def test_a_run_that_ended_early_is_no_pass(records: Records) -> None:
    record = a_record({"n1-vhe-base": {"pass": 1}})
    record["runs"][0] |= {"verdict": "error", "reason": "no QEMU"}
    assert records.join(record).verdict == "error"


def test_the_markdown_is_of_one_form_whatever_the_words(records: Records) -> None:
    found = records.join(
        a_record({"n1-vhe-base": {"pass": 1}}, only=["-k 'a|b`'\n# c"], reason="<b>|")
    )
    for rows in tables(markdown(found)).values():
        assert len({len(row) for row in rows}) == 1
    assert "<b>" not in markdown(found) and "\n# c" not in markdown(found)


def test_hosts_that_are_emulated_are_told(records: Records) -> None:
    cells = {"n1-vhe-base": {"pass": 1}}
    lab: dict[str, Any] = {"emulated": False, "emulators": [], "hosts": []}
    one = markdown(records.join(a_record(cells)))
    assert "Hosts are emulated in all parts, by `QEMU 7.2`" in one
    both = markdown(records.join(a_record(cells, "x"), a_record(cells, "y", **lab)))
    assert "Hosts are emulated in the parts that say so below" in both
    assert "emulated" not in markdown(records.join(a_record(cells, **lab)))


def test_parts_say_what_they_were(records: Records) -> None:
    late = a_record({"n1-vhe-patched": {"pass": 2}}, "x", reason="interrupted")
    early = a_record({"n1-vhe-base": {"pass": 1}}, "y", started="2026-11-28", debug=True)
    first, second = tables(markdown(records.join(late, early)))["The parts"]
    assert first[:3] == ["part1", "2026-11-28", "2.0"]
    assert first[3:5] == ["0.1.0, d1", "-m quick; --debug"]
    assert second[4:] == [
        "-m quick; ended early: interrupted",
        "lockless-aging 5e71e55e71e5",
        "emulated by QEMU 7.2",
        "2",
    ]


# ---- other records --------------------------------------------------------------------------


def test_an_old_record_is_read_as_far_as_it_tells(records: Records) -> None:
    cells = {
        "n1-vhe-base": {"pass": 3},
        "my-host-nvhe-patched-sw-af": {"pass": 1, "unproven": 2},
    }
    record = an_old(a_record(cells))
    found = records.join(record)
    rows = tables(markdown(found))["By place"]
    assert [row[:7] for row in rows] == [
        ["base", *["not recorded"] * 3, "n1 vhe", "not recorded", "3"],
        ["series not recorded", *["not recorded"] * 3, "my-host nvhe +sw-af", "not recorded", "3"],
    ]
    words = "unproven: test_a in my-host nvhe +sw-af (series not recorded, not recorded, 2 times)"
    assert words in markdown(found)


def test_an_old_record_of_cells_with_other_names_is_refused(records: Records) -> None:
    record = an_old(a_record({"odd": {"pass": 1}}))
    with pytest.raises(UsageError, match="does not say what cell 'odd' is"):
        records.join(record)


def test_of_mutants_what_is_sound_is_counted(records: Records) -> None:
    neutral = Result(
        name="neutral-x", kind="neutral", breaks="", series="lockless-aging", ran=(ran(a="pass"),)
    )
    part = matrix(
        sound(ran(a="pass"), ran(seed=2, a="fail", b="unproven")),
        neutral,
        a_break(ran(a="fail")),
    )
    found = records.join(part)
    base, series = found.subjects
    assert (found.of(base), found.runs[base]) == ({"pass": 1, "fail": 1}, 2)
    assert (series.neutral, series.checks) == (True, "quick and deep")
    assert found.of(series) == {"pass": 1}
    assert found.checks == {"test_a": {"pass": 2, "fail": 1}, "test_b": {"unproven": 1}}
    text = markdown(found)
    assert "lockless-aging with a neutral mutant" in text
    assert "fail: test_a in n1 vhe (base, plain, seed 2)" in text


def test_of_mutants_a_part_of_the_checks_is_a_group_of_its_own(records: Records) -> None:
    part = matrix(sound(ran(a="pass")))
    named = part.model_copy(update={"notes": ("only the checks that are named",)})
    assert [one.checks for one in records.join(named).subjects] == ["what catches mutants"]


def test_a_key_of_a_later_version_is_passed_over(records: Records) -> None:
    record = a_record({"n1-vhe-base": {"pass": 1}}, later=[1])
    record["runs"][0]["later"] = 2
    assert records.join(record).verdict == "pass"


def test_a_folder_is_read_and_names_the_part(records: Records, tmp_path: Path) -> None:
    records.write(a_record({"n1-vhe-base": {"pass": 1}}), "night/repeat.json")
    assert read(tmp_path / "night").name == "night"
    assert read(tmp_path / "night" / "repeat.json").name == "night"
    records.write(matrix(sound(ran(a="pass"))).model_dump_json(by_alias=True), "m/mutants.json")
    assert read(tmp_path / "m").name == "m"


# ---- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again", [lambda record: record, lambda record: {**record, "runs": record["runs"][:1]}]
)
def test_a_part_given_twice_is_refused(records: Records, again: Any) -> None:
    record = a_record({"n1-vhe-base": {"pass": 2}})
    with pytest.raises(UsageError, match=r"part0\.json and .*part1\.json tell of the same runs"):
        records.join(record, again(record))


def test_mutants_given_twice_are_refused(records: Records) -> None:
    part = matrix(sound(ran(a="pass")))
    with pytest.raises(UsageError, match="tell of the same runs"):
        records.join(part, part)


def test_runs_without_a_folder_are_not_the_same(records: Records) -> None:
    record = a_record({})
    record["runs"] = [{"seed": 1, "folder": "", "verdict": "error", "reason": "no space"}]
    assert records.join(record, record).verdict == "error"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[]", "no record of"),
        ('{"schema": 1}', "no record of"),
        ('{"schema": 1, "runs": []}', "no record of .*: count: Field required"),
        ('{"schema": 1, "results": []}', "no record of"),
        ("[" * 100_000, "part.json"),
    ],
)
def test_what_is_no_record_is_refused(records: Records, text: str, words: str) -> None:
    path = records.write(text)
    with pytest.raises(UsageError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "schema 2: this version reads schema 1"),
        ({"cells": {"n1-vhe-base": {"passed": 1}}}, "cells"),
        ({"cells": {"n1-vhe-base": {"pass": -1}}}, "cells"),
        ({"places": {}}, "does not say what cell 'n1-vhe-base' is"),
        ({"checks": {"test_a": {"n2": {"pass": 1}}}}, "it tells of cell 'n2', which is not there"),
        (
            {"troubles": [{"seed": 1, "cell": "n2", "name": "", "outcome": "fail"}]},
            "it tells of cell 'n2', which is not there",
        ),
    ],
)
def test_a_record_that_cannot_be_is_refused(
    records: Records, change: dict[str, Any], words: str
) -> None:
    path = records.write({**a_record({"n1-vhe-base": {"pass": 1}}), **change})
    with pytest.raises(UsageError, match=words) as caught:
        read(path)
    assert str(path) in str(caught.value)


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json: No such file"):
        read(tmp_path / "none.json")
    with pytest.raises(UsageError, match=r"there is no repeat\.json in it, and no mutants\.json"):
        read(tmp_path)


# ---- the command ----------------------------------------------------------------------------


def command(*args: str | Path) -> int | str | None:
    with pytest.raises(SystemExit) as end:
        cli.main(["repeat", *map(str, args)])
    return end.value.code


def test_the_command_joins_and_writes(
    records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = records.write(a_record({"n1-vhe-base": {"pass": 2}}))
    target = tmp_path / "table.md"
    assert command("--join", good, "--markdown", target) == 0
    assert "1 part: pass: 0 false alarms in 2 cells" in capsys.readouterr().out
    assert target.read_text().startswith("<!-- SPDX")
    bad = records.write(a_record({"n1-vhe-base": {"fail": 1}}, "b"), "bad.json")
    assert command("--join", good, bad) == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("--join", "{none}"), "none.json: No such file"),
        (("--join", "{good}", "{good}"), "tell of the same runs"),
        (("--join", "{good}", "--count", "3", "--debug"), "it goes without count, debug"),
        (("--join", "{good}", "--markdown", "{none}/x"), "--markdown"),
        (("--markdown", "x"), "--markdown goes with --join"),
    ],
)
def test_the_command_refuses(
    records: Records, capsys: pytest.CaptureFixture[str], args: tuple[str, ...], words: str
) -> None:
    good = records.write(a_record({"n1-vhe-base": {"pass": 2}}))
    made = [one.format(good=good, none=good.with_name("none.json")) for one in args]
    assert command(*made) == 2
    assert words in capsys.readouterr().err
