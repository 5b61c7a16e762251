# SPDX-License-Identifier: GPL-2.0-only
"""From what cells left to figures: which rounds count, and what is not called a result."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.figures.judge import ALONE
from harness.plan import PlannedCell
from harness.results import Cell, Check, Outcome
from harness.timing import CHECKS
from harness.timing.conditions import Conditions
from harness.timing.judge import EMULATED, NOTE, Boot, collect, judge
from harness.timing.options import TimingOptions
from harness.timing.rounds import boots
from harness.timing.tracking import WAYS
from harness.timing.values import METRICS, Values

WALK, WRITER = "time-aging-walk", "time-writer"
PAIR = (
    PlannedCell("n1", "base", "vhe", "hardware"),
    PlannedCell("n1", "patched", "vhe", "hardware"),
)
STATE = Conditions(
    drivers={"0": "cppc_cpufreq"},
    governors={"0": "performance"},
    khz={"0": "2400000"},
    min_khz={"0": "600000"},
    max_khz={"0": "3000000"},
    cpuinfo_min_khz={"0": "600000"},
    cpuinfo_max_khz={"0": "3000000"},
    boost="0",
    cpu_boost={},
    isolation=("isolcpus=1",),
    isolated="1",
    interrupts="0",
    online="0-1",
    smt="",
    loadavg="0.00 0.01 0.00 1/70 123",
    thp="always [madvise] never",
    lru_gen="0x0007",
)


def measured(
    number: int,
    slower: float = 1.5,
    *,
    aa: bool = True,
    kernels: Sequence[PlannedCell] = PAIR,
) -> tuple[tuple[PlannedCell, ...], dict[str, Boot]]:
    """So many rounds in which the patched kernel's walk takes `slower` times as long."""
    cells = boots(kernels, 1, TimingOptions(number, aa))
    rng = random.Random(1)
    found = {}
    for cell in cells:
        factor = slower if cell.kernel == "patched" else 1.0
        values = {WALK: factor * rng.uniform(0.99, 1.01), WRITER: rng.uniform(0.99, 1.01)}
        files = dict.fromkeys(values, f"cells/{cell.id}/check/values.json")
        found[cell.id] = Boot(cell.id, True, values, files, (STATE,))
    return cells, found


def without(boot: Boot, **changes: object) -> Boot:
    return Boot(**{**vars(boot), **changes})


def test_a_slower_kernel_is_worse_and_the_floor_is_told() -> None:
    cells, found = measured(10)
    times = judge(cells, found, emulated=False)
    walk, writer = times.figures
    assert (walk.metric, walk.unit, walk.verdict) == (WALK, "s", "worse")
    assert walk.effect == pytest.approx(0.5, abs=0.05)
    assert walk.floor is not None
    assert walk.floor < 0.02
    assert len(walk.base) == len(walk.patched) == 10
    assert len(walk.evidence) == 30
    assert writer.verdict != "worse"
    assert times.notes == ()


def test_without_a_second_base_there_is_no_floor() -> None:
    cells, found = measured(10, aa=False)
    assert judge(cells, found, emulated=False).figures[0].floor is None


def test_the_base_kernel_alone_has_a_floor_and_the_smallest_effect() -> None:
    cells, found = measured(10, kernels=PAIR[:1])
    times = judge(cells, found, emulated=False)
    assert [one.metric for one in times.figures] == [WALK, WRITER]
    for one in times.figures:
        assert (len(one.base), one.patched, len(one.evidence)) == (10, (), 20)
        assert one.floor is not None and one.smallest is not None
        assert 0 <= one.floor < 0.01 < one.smallest < 0.05
        assert (one.verdict, one.effect, one.low, one.high) == ("inconclusive", None, None, None)
        assert one.reason.startswith(f"{ALONE}, {one.floor:.2%} is what the base kernel shows")
        assert one.conditions["lru_gen"] == "0x0007"
    assert times.notes == ()


def test_rounds_of_the_base_kernel_alone_must_be_whole_and_enough() -> None:
    cells, found = measured(7, kernels=PAIR[:1])
    for gone in ("r02", "r05-again"):
        found[f"n1-vhe-base-{gone}"] = without(found[f"n1-vhe-base-{gone}"], whole=False)
    times = judge(cells, found, emulated=False)
    assert {(one.reason, one.floor) for one in times.figures} == {
        ("5 whole rounds, and fewer than 6 show nothing", None)
    }
    assert times.notes[0].endswith("measured less than others: 2, 5")
    assert judge(cells, {}, emulated=False).notes[-1] == "no time was measured"
    emulated = judge(cells, found, emulated=True).figures
    assert {(one.reason, one.floor) for one in emulated} == {(EMULATED, None)}


def test_no_time_on_an_emulated_host_is_a_result() -> None:
    cells, found = measured(10)
    times = judge(cells, found, emulated=True)
    assert {one.verdict for one in times.figures} == {"inconclusive"}
    assert {(one.reason, one.doubt) for one in times.figures} == {(EMULATED, EMULATED)}
    assert {one.effect for one in times.figures} == {None}
    assert times.figures[0].base
    assert NOTE in times.notes


@pytest.mark.parametrize(
    "changes", [{"whole": False}, {"values": {WALK: 1.0}}], ids=["ended badly", "a metric less"]
)
def test_a_round_is_left_out_for_all_metrics(changes: Mapping[str, object]) -> None:
    cells, found = measured(10)
    found["n1-vhe-base-r03-again"] = without(found["n1-vhe-base-r03-again"], **changes)
    times = judge(cells, found, emulated=False)
    assert {len(one.base) for one in times.figures} == {9}
    gone = found["n1-vhe-base-r03"].values[WALK]
    assert gone not in times.figures[0].base
    assert times.notes == (
        "time: left out of 10 rounds, since a boot of them ended badly or measured less than "
        "others: 3",
    )


def test_a_boot_that_never_came_takes_its_round_with_it() -> None:
    cells, found = measured(8)
    del found["n1-vhe-patched-r08"]
    assert {len(one.base) for one in judge(cells, found, emulated=False).figures} == {7}


def test_few_rounds_show_nothing() -> None:
    cells, found = measured(6)
    found["n1-vhe-patched-r01"] = without(found["n1-vhe-patched-r01"], whole=False)
    walk, _ = judge(cells, found, emulated=False).figures
    assert walk.verdict == "inconclusive"
    assert walk.reason == "5 whole rounds, and fewer than 6 show nothing"


def test_what_one_kernel_cannot_do_drops_no_round() -> None:
    cells, found = measured(10)
    for name in [one for one in found if "patched" in one]:
        found[name] = without(found[name], values={WRITER: 1.0})
    (writer,) = judge(cells, found, emulated=False).figures
    assert (writer.metric, len(writer.base)) == (WRITER, 10)


def test_nothing_was_measured() -> None:
    cells, _ = measured(2)
    times = judge(cells, {}, emulated=True)
    assert times.figures == ()
    assert times.notes[-1] == "no time was measured on both kernels"


def test_conditions_that_differ_are_told_and_load_is_none_of_them() -> None:
    cells, found = measured(6)
    other = STATE.model_copy(update={"smt": "1", "loadavg": "9"})
    found["n1-vhe-base-r02"] = without(found["n1-vhe-base-r02"], conditions=(STATE, other))
    loaded = STATE.model_copy(update={"loadavg": "9", "khz": {"0": "1"}})
    found["n1-vhe-base-r03"] = without(found["n1-vhe-base-r03"], conditions=(loaded,))
    assert judge(cells, found, emulated=False).notes == (
        "time: the boots of round 2 differ in smt",
    )


def test_rounds_that_differ_from_those_before_are_told() -> None:
    cells, found = measured(8)
    capped = STATE.model_copy(update={"max_khz": {"0": "2000000"}})
    for name in [
        one for one in found if one.removesuffix("-again")[-2:] in ("05", "06", "07", "08")
    ]:
        found[name] = without(found[name], conditions=(capped,))
    mixed = found["n1-vhe-base-r07"]
    found["n1-vhe-base-r07"] = without(mixed, conditions=(STATE,))
    assert judge(cells, found, emulated=False).notes == (
        "time: rounds 4 and 5 differ in max_khz",
        "time: the boots of round 7 differ in max_khz",
    )


def test_what_could_not_be_fixed_is_told_once() -> None:
    cells, found = measured(10)
    assert judge(cells, found, emulated=False).notes == ()
    loose = STATE.model_copy(update={"governors": {"0": "schedutil"}, "boost": "1"})
    found = {name: replace(boot, conditions=(loose, loose)) for name, boot in found.items()}
    (note,) = judge(cells, found, emulated=False).notes
    assert note == "time: could not be helped: governor schedutil (CPU 0); boost on"


def test_conditions_that_changed_meanwhile_are_told() -> None:
    cells, found = measured(6)
    found["n1-vhe-base-r02-again"] = without(found["n1-vhe-base-r02-again"], changed=("max_khz",))
    assert judge(cells, found, emulated=False).notes == (
        "time: max_khz changed while n1-vhe-base-r02-again was measured",
    )


def cell_of(folder: Path, text: str, outcome: Outcome = "pass") -> tuple[Cell, Check]:
    planned = boots(PAIR, 1, TimingOptions(1))[0]
    cell = planned.record(outcome)
    place = folder / "cells" / cell.id / "test_time_walk"
    place.mkdir(parents=True)
    (place / "values.json").write_text(text)
    (place / "conditions.json").write_text(STATE.model_dump_json())
    names = ("conditions.json", "values.json")
    evidence = tuple(f"cells/{cell.id}/test_time_walk/{name}" for name in names)
    check = Check(
        cell=cell.id,
        name="test_time_walk",
        outcome="pass",
        expected="",
        observed="",
        evidence=evidence,
    )
    return cell, check


def test_a_value_is_the_median_of_a_boot(tmp_path: Path) -> None:
    cell, check = cell_of(tmp_path, Values(passes={WALK: (3.0, 1.0, 2.0)}).model_dump_json())
    other = check.model_copy(update={"cell": "another", "evidence": ("not/there/values.json",)})
    boot = collect(cell, [check, other], tmp_path)
    assert boot.values == {WALK: 2.0}
    assert boot.evidence[WALK].endswith("/test_time_walk/values.json")
    assert (boot.whole, boot.conditions) == (True, (STATE,))


def test_what_changed_is_told_from_before_and_after(tmp_path: Path) -> None:
    cell, check = cell_of(tmp_path, '{"passes": {}}')
    throttled = STATE.model_copy(update={"max_khz": {"0": "2000000"}, "loadavg": "9"})
    after = f"cells/{cell.id}/test_time_walk/conditions-after.json"
    (tmp_path / after).write_text(throttled.model_dump_json())
    check = check.model_copy(update={"evidence": (after, *check.evidence)})
    boot = collect(cell, [check], tmp_path)
    assert boot.changed == ("max_khz",)
    assert boot.conditions == (STATE,)


@pytest.mark.parametrize("outcome", ["fail", "error"])
def test_a_boot_that_ended_badly_is_not_whole(tmp_path: Path, outcome: Outcome) -> None:
    cell, check = cell_of(tmp_path, '{"passes": {}}', outcome)
    assert not collect(cell, [check], tmp_path).whole


def test_a_cell_that_was_cut_off_by_a_kill_is_more_than_one_boot(tmp_path: Path) -> None:
    cell, check = cell_of(tmp_path, '{"passes": {}}')
    (tmp_path / "cells" / cell.id / "cut-1").mkdir()
    assert not collect(cell, [check], tmp_path).whole


@pytest.mark.parametrize("text", ["", "[]", '{"passes": {"x": [NaN]}}', '{"passes": {}, "y": 1}'])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    cell, check = cell_of(tmp_path, text)
    with pytest.raises(InfraError, match=r"values\.json is not what a cell writes"):
        collect(cell, [check], tmp_path)


def test_whatever_is_measured_is_a_metric_and_every_metric_is_measured() -> None:
    """Values of a name that is none are dropped without a word."""
    kept = {name for call in _calls_of_keep() for name in call}
    printed = {one.metric for way in WAYS for one in way.printed}
    assert {name.replace("_", "-") for name in kept | printed} == set(METRICS)


def _calls_of_keep() -> Iterator[list[str]]:
    for node in ast.walk(ast.parse(CHECKS.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "keep"
        ):
            yield [one.arg for one in node.keywords if one.arg is not None]


def test_figures_say_in_what_conditions_they_were_measured() -> None:
    cells, found = measured(8)
    times = judge(cells, found, emulated=False)
    for one in times.figures:
        assert one.conditions["governors"] == "performance (CPU 0)"
        assert (one.conditions["boost"], one.conditions["cpu_boost"]) == ("0", "none")
        assert one.conditions["isolation"] == "isolcpus=1"
        assert not {"khz", "loadavg"} & one.conditions.keys()


@pytest.mark.parametrize("label", ["base", "patched"])
def test_a_condition_that_was_not_alike_in_all_boots_is_not_told(label: str) -> None:
    cells, found = measured(8)
    last = [cell.id for cell in cells if cell.kernel == label][-1]
    found[last] = replace(found[last], conditions=(STATE.model_copy(update={"boost": "1"}),))
    for one in judge(cells, found, emulated=False).figures:
        assert (one.conditions["boost"], one.conditions["smt"]) == ("", "none")


def test_a_condition_that_changed_meanwhile_is_not_told() -> None:
    cells, found = measured(8)
    found[cells[0].id] = replace(found[cells[0].id], changed=("max_khz",))
    for one in judge(cells, found, emulated=False).figures:
        assert (one.conditions["max_khz"], one.conditions["boost"]) == ("", "0")


def test_conditions_of_boots_that_left_none() -> None:
    cells, found = measured(8)
    found = {name: replace(boot, conditions=()) for name, boot in found.items()}
    assert all(not one.conditions for one in judge(cells, found, emulated=False).figures)


OF_SERIES = STATE.model_copy(update={"lru_gen": "0x000f", "thp": "[always] madvise never"})


def with_series(number: int) -> tuple[tuple[PlannedCell, ...], dict[str, Boot]]:
    """Rounds of a series that adds a bit to lru_gen/enabled, and has another word on THP."""
    cells, found = measured(number)
    for cell in cells:
        if cell.kernel == "patched":
            found[cell.id] = replace(found[cell.id], conditions=(OF_SERIES,))
    return cells, found


def test_what_a_series_changes_of_conditions_is_told_of_each_kernel() -> None:
    times = judge(*with_series(8), emulated=False)
    assert times.notes == ()
    for one in times.figures:
        assert one.conditions["lru_gen"] == "base 0x0007, patched 0x000f"
        assert one.conditions["thp"] == (
            "base always [madvise] never, patched [always] madvise never"
        )
        assert one.conditions["governors"] == "performance (CPU 0)"


@pytest.mark.parametrize(
    ("boot", "notes"),
    [
        ("base-r03-again", ("time: the boots of round 3 differ in lru_gen",)),
        (
            # A round has but one boot of this kernel.
            "patched-r03",
            (
                "time: rounds 2 and 3 differ in lru_gen",
                "time: rounds 3 and 4 differ in lru_gen",
            ),
        ),
    ],
)
def test_boots_of_one_kernel_that_differ_in_what_depends_on_it(
    boot: str, notes: tuple[str, ...]
) -> None:
    cells, found = with_series(8)
    name = f"n1-vhe-{boot}"
    (state,) = found[name].conditions
    found[name] = replace(found[name], conditions=(state.model_copy(update={"lru_gen": "0x0003"}),))
    times = judge(cells, found, emulated=False)
    assert times.notes == notes
    for one in times.figures:
        assert (one.conditions["lru_gen"], one.conditions["smt"]) == ("", "none")


def test_what_a_series_cannot_change_must_be_alike_on_both_kernels() -> None:
    cells, found = measured(8)
    for cell in cells:
        if cell.kernel == "patched":
            other = STATE.model_copy(update={"smt": "1"})
            found[cell.id] = replace(found[cell.id], conditions=(other,))
    times = judge(cells, found, emulated=False)
    assert len(times.notes) == 8
    assert {one.conditions["smt"] for one in times.figures} == {""}
