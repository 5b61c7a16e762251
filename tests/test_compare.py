# SPDX-License-Identifier: GPL-2.0-only
"""Two runs side by side: what is refused, what changed, and with which exit code."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest
from made_up import a_summary
from rich.console import Console

from harness.compare import command
from harness.compare.changes import compare, turn
from harness.compare.like import unlike
from harness.compare.report import text_report
from harness.errors import UsageError
from harness.figures.judge import ALONE, figures, floors
from harness.figures.measured import Measured, no_result
from harness.records import write_atomically
from harness.results import Cell, Check, CpuAf, Figure, Host, Kernel, Outcome, Summary
from harness.timing.judge import EMULATED

CPU = CpuAf(cpus="0-1", midr="0x413fd0c1", model="", expected="hardware", why="")
KERNEL = Kernel(
    label="base", source="s", version="6.12", build_id="ab", config_sha256="cc", cached=True,
    build_seconds=1, compiler="gcc 12", page_kib=4, source_digest="debian-aa",
)  # fmt: skip
CELL = Cell(
    id="n1-vhe-base", host="n1", machine="n1", kernel="base", kvm_mode="vhe", af_mode="hardware",
    af_cpus=(CPU,), outcome="pass", kvm_line="VHE mode initialized successfully",
    cmdline="panic=15",
)  # fmt: skip
PATCHED = CELL.model_copy(update={"id": "n1-vhe-patched", "kernel": "patched"})
HOST = Host(name="n1", cpu="neoverse-n1", cpus=2, memory_mib=2048)
STEADY = (100.1, 99.5, 100.3, 100.7, 99.8, 99.4, 100.4, 100.0, 99.7, 100.5)
OTHER = (99.7, 100.2, 100.1, 99.5, 100.5, 100.4, 99.8, 100.7, 100.0, 99.4)

Values = tuple[float, ...]
HUNDRED = (100.0, 100.0, 101.0)
CONDITIONS = {"governors": "performance (CPU 0-3)", "boost": "0"}


def check(outcome: Outcome = "pass", cell: str = PATCHED.id, name: str = "test_a") -> Check:
    return Check(
        cell=cell, name=name, outcome=outcome, expected="4", observed="3", evidence=("x.txt",)
    )


def figure(patched: tuple[float, ...] = OTHER, base: tuple[float, ...] = STEADY) -> Figure:
    measured = Measured(
        metric="aging", what="a pass", unit="s", host="n1", kvm_mode="vhe", af_mode="hardware",
        base=base, patched=patched,
    )  # fmt: skip
    return figures([measured])[0].model_copy(update={"conditions": CONDITIONS})


def count(
    patched: Values, base: Values = HUNDRED, metric: str = "cost-idle", spread: float = 0.0
) -> Figure:
    return Figure(
        metric=metric, what="", unit="instructions", host="n1", kvm_mode="vhe",
        af_mode="hardware", base=base, patched=patched, confidence=1.0, spread=spread,
        verdict="same",
    )  # fmt: skip


def run(**update: Any) -> Summary:
    sound = a_summary(
        harness="1", harness_digest="dd", emulated=False, hosts=(HOST,),
        kernels=(KERNEL, KERNEL.model_copy(update={"label": "patched"})),
        cells=(CELL, PATCHED), checks=(check(),), figures=(figure(),),
    )  # fmt: skip
    return sound.model_copy(update=update)


def slower(values: tuple[float, ...], by: float = 1.1) -> tuple[float, ...]:
    return tuple(value * by for value in values)


def text(one: Summary, other: Summary) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(text_report(compare(one, other, ("A", "B"))))
    return out.getvalue()


def test_a_run_is_like_itself() -> None:
    found = compare(run(), run(), ("A", "B"))
    assert found.unlike == () == found.changes
    assert (found.alike, found.exit_code) == (3, 0)
    assert [one.figure.verdict for one in found.figures] == ["same"]
    said = text(run(), run())
    assert "verdict: no worse: all that was shown before is shown again" in said
    assert "pass" not in said


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"harness": "2"}, "harness version: 1 / 2"),
        ({"harness_digest": "ee"}, "harness digest: dd / ee"),
        ({"harness_digest": ""}, "harness digest: dd / not recorded"),
        ({"debug": True}, "debug kernels: False / True"),
        ({"emulated": True}, "emulated hosts: False / True"),
        (
            {"kernels": (KERNEL.model_copy(update={"source_digest": "git-ab"}),)},
            "source of the base kernel: debian-aa / git-ab",
        ),
        (
            {"kernels": (KERNEL.model_copy(update={"source_digest": ""}),)},
            "source of the base kernel: debian-aa / not recorded",
        ),
        (
            {"kernels": (KERNEL.model_copy(update={"config_sha256": "dd"}),)},
            "configuration of the base kernel: cc / dd",
        ),
        (
            {"kernels": (KERNEL.model_copy(update={"compiler": "gcc 14"}),)},
            "toolchain of the base kernel: gcc 12 / gcc 14",
        ),
        (
            {"kernels": (KERNEL.model_copy(update={"page_kib": 64}),)},
            "page size of the base kernel (KiB): 4 / 64",
        ),
        (
            {
                "kernels": (
                    KERNEL.model_copy(update={"hosts": ("n2",)}),
                    KERNEL.model_copy(update={"hosts": ("n1",), "config_sha256": "ee"}),
                )
            },
            "configuration of the base kernel of n1: cc / ee",
        ),
        ({"hosts": ()}, "CPU model of n1: neoverse-n1 / not recorded"),
        (
            {"hosts": (HOST.model_copy(update={"cpu": "cortex-a57"}),)},
            "CPU model of n1: neoverse-n1 / cortex-a57",
        ),
        ({"hosts": (HOST.model_copy(update={"cpus": 4}),)}, "CPUs of n1: 2 / 4"),
        (
            {"hosts": (HOST.model_copy(update={"memory_mib": 4096}),)},
            "memory of n1 (MiB): 2048 / 4096",
        ),
        (
            {"cells": (CELL.model_copy(update={"kvm_mode": "nvhe"}),)},
            "KVM modes of n1: vhe / nvhe",
        ),
        (
            {"cells": (CELL.model_copy(update={"kvm_line": "Protected hVHE mode"}),)},
            "KVM mode in n1-vhe-base: vhe, VHE mode initialized successfully / "
            "vhe, Protected hVHE mode",
        ),
        (
            {"cells": (CELL.model_copy(update={"af_cpus": ()}),)},
            "MIDR in n1-vhe-base: 0x413fd0c1 (CPU 0-1) / not recorded",
        ),
        (
            {"cells": (CELL.model_copy(update={"cmdline": "panic=15 mitigations=off"}),)},
            "boot arguments in n1-vhe-base: panic=15 / panic=15 mitigations=off",
        ),
        (
            {"cells": (CELL.model_copy(update={"cmdline": ""}),)},
            "boot arguments in n1-vhe-base: panic=15 / not recorded",
        ),
        ({"cells": (CELL.model_copy(update={"host": "a57"}),)}, "hosts: n1 / a57"),
    ],
)
def test_unlike_runs_name_the_field_and_both_values(update: dict[str, Any], said: str) -> None:
    assert said in [str(field) for field in unlike(run(), run(**update))]


def test_what_differs_in_all_boots_of_a_measurement_is_said_once() -> None:
    def timed(cmdline: str) -> Summary:
        names = [f"{CELL.id}-r{number:02}" for number in range(1, 11)]
        return run(
            cells=tuple(CELL.model_copy(update={"id": n, "cmdline": cmdline}) for n in names)
        )

    (field,) = unlike(timed("panic=15"), timed("panic=15 mitigations=off"))
    assert field.field == "boot arguments in n1-vhe-base"


def test_a_cell_that_never_booted_is_unlike_none() -> None:
    lost = CELL.model_copy(update={"outcome": "error", "kvm_line": "", "cmdline": ""})
    assert unlike(run(), run(cells=(lost, PATCHED))) == ()


def test_one_source_may_have_several_names() -> None:
    """Two checkouts of one commit, or a tag and what it stands for."""
    named = [KERNEL.model_copy(update={"source": name}) for name in ("tree /a at v1", "git /b#v1")]
    assert unlike(*(run(kernels=(one,)) for one in named)) == ()


def test_what_neither_run_recorded_is_not_alike() -> None:
    old, later = run(harness_digest=""), run(harness_digest="", seed=2)
    assert "harness digest: not recorded / not recorded" in map(str, unlike(old, later))
    assert unlike(old, old) == (), "it is the same run"


# ---- machines of a lab ----------------------------------------------------------------------

ALTRA = Host(name="a1", cpu="Neoverse N1 0x413fd0c1 (CPU 0-79)", cpus=80, memory_mib=261888)
LIKE_IT = ALTRA.model_copy(update={"name": "a2"})
UNLIKE_IT = ALTRA.model_copy(update={"name": "a2", "memory_mib": 130816})


def in_lab(place: str = "a1", machine: str = "a1", **update: Any) -> Summary:
    """A run of the base kernel on a machine, or on a group that has it."""
    cell = CELL.model_copy(update={"id": f"{place}-vhe-base", "host": place, "machine": machine})
    given = {
        "hosts": (ALTRA, LIKE_IT), "cells": (cell,),
        "kernels": (KERNEL,), "checks": (), "figures": (),
    }  # fmt: skip
    return run(**{**given, **update})


def test_two_runs_on_a_machine_of_a_lab_are_alike() -> None:
    assert unlike(in_lab(), in_lab(seed=2)) == ()
    changed = in_lab(hosts=(ALTRA.model_copy(update={"cpus": 40}),))
    assert [str(one) for one in unlike(in_lab(), changed)] == ["CPUs of a1: 80 / 40"]
    unknown = [str(one) for one in unlike(in_lab(), in_lab(hosts=()))]
    assert f"CPU model of a1: {ALTRA.cpu} / not recorded" in unknown


def test_of_a_group_those_machines_count_that_ran() -> None:
    one, other = (in_lab("altra", machine) for machine in ("a1", "a2"))
    assert unlike(one, other) == ()
    fewer = in_lab("altra", "a2", hosts=(ALTRA, UNLIKE_IT))
    assert [str(one) for one in unlike(one, fewer)] == ["memory of altra (MiB): 261888 / 130816"]
    assert unlike(one, in_lab("altra", "a1", hosts=(ALTRA, UNLIKE_IT))) == (), "it ran nothing"


def test_cells_of_a_mode_that_went_to_unlike_machines() -> None:
    """The first was lost: figures may be of the one or of the other."""
    first = in_lab("altra", "a1", hosts=(ALTRA, UNLIKE_IT))
    moved = first.cells[0].model_copy(update={"id": "altra-vhe-patched", "machine": "a2"})
    both = first.model_copy(update={"cells": (*first.cells, moved)})
    assert "memory of altra (MiB): 261888 / 130816 or 261888" in map(str, unlike(first, both))
    assert unlike(both, both.model_copy(update={"seed": 2})) == ()


def test_kernels_of_a_group_are_those_of_the_machines_that_ran() -> None:
    """With `config: machine` each machine has its own."""
    made = {"a1": "aa", "a2": "bb"}
    kernels = tuple(
        KERNEL.model_copy(update={"hosts": (name,), "config_sha256": sha})
        for name, sha in made.items()
    )
    one, other = (in_lab("altra", machine, kernels=kernels) for machine in made)
    assert [str(one) for one in unlike(one, other)] == [
        "configuration of the base kernel of altra: aa / bb"
    ]
    assert unlike(one, in_lab("altra", "a1", kernels=kernels, seed=2)) == ()


# ---- runs without cells ---------------------------------------------------------------------


def costs_only(**update: Any) -> Summary:
    given = {"cells": (), "checks": (), "figures": (count((100.0,) * 3),)}
    return run(**{**given, **update})


def test_runs_of_costs_alone_are_compared(tmp_path: Path) -> None:
    assert unlike(costs_only(), costs_only(seed=2)) == ()
    code, said = ask(folders(tmp_path, costs_only(), costs_only(seed=2)))
    assert code == 0
    assert "1 cost-idle" in said and "verdict: no worse" in said


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"figures": (count((1.0,) * 3).model_copy(update={"host": "a57"}),)}, "hosts: n1 / a57"),
        (
            {"figures": (count((1.0,) * 3).model_copy(update={"kvm_mode": "nvhe"}),)},
            "KVM modes of n1: vhe / nvhe",
        ),
        (
            {"hosts": (HOST.model_copy(update={"cpu": "max"}),)},
            "CPU model of n1: neoverse-n1 / max",
        ),
        (
            {"kernels": (KERNEL.model_copy(update={"compiler": "gcc 14"}),)},
            "toolchain of the base kernel: gcc 12 / gcc 14",
        ),
    ],
)
def test_unlike_runs_of_costs_name_the_field(update: dict[str, Any], said: str) -> None:
    assert [str(field) for field in unlike(costs_only(), costs_only(**update))] == [said]


def test_costs_that_came_to_nothing_are_untold_and_not_unlike() -> None:
    """A run whose boots all went wrong has neither cells nor figures: its check says why."""
    nothing = costs_only(figures=(), checks=(check("error", "series", "cost[n1-vhe]"),))
    found = compare(costs_only(), nothing, ("A", "B"))
    assert (found.unlike, found.exit_code) == ((), 4)


def test_a_run_of_fewer_cells_is_like_the_whole() -> None:
    part = run(cells=(CELL,), kernels=(KERNEL,), checks=(), figures=())
    found = compare(run(), part, ("A", "B"))
    assert found.unlike == ()
    assert found.only_one == (
        "n1-vhe-patched",
        "n1 vhe hardware AF, aging, s",
    )
    assert found.exit_code == 4
    assert "verdict: inconclusive" in text(run(), part)
    more = compare(part, run(), ("A", "B"))
    assert more.only_other == found.only_one
    assert more.exit_code == 0


@pytest.mark.parametrize("missing", ["cells", "checks", "figures"])
def test_what_is_missing_now_was_not_shown(missing: str) -> None:
    left = (CELL,) if missing == "cells" else ()
    assert compare(run(), run(**{missing: left}), ("A", "B")).exit_code == 4


@pytest.mark.parametrize("early", [0, 1])
def test_a_run_that_did_not_end_leaves_all_open(early: int) -> None:
    both = [run(), run()]
    both[early] = run(reason="inter\x1brupted")
    found = compare(both[0], both[1], ("A", "B"))
    assert found.untold == (f"{'AB'[early]} has not come to its end: inter\x1brupted",)
    assert found.exit_code == 4
    said = text(*both)
    assert f"untold  {'AB'[early]} has not come to its end: inter\\x1brupted" in said
    assert "verdict: inconclusive" in said


@pytest.mark.parametrize("outcome", ["error", "unproven"])
def test_what_could_not_be_told_before_either_is_no_pass(outcome: Outcome) -> None:
    found = compare(run(checks=(check(outcome),)), run(checks=(check(outcome),)), ("A", "B"))
    assert found.changes == ()
    assert found.untold == (f"n1-vhe-patched, test_a: {outcome}, as before",)
    assert found.exit_code == 4


def test_what_failed_before_is_no_worse() -> None:
    assert compare(run(checks=(check("fail"),)), run(checks=(check("fail"),)), ("A", "B")) == (
        compare(run(), run(), ("A", "B"))
    )


@pytest.mark.parametrize(("outcome", "code"), [("fail", 4), ("error", 4), ("pass", 0), ("skip", 0)])
def test_what_is_new_and_no_pass_is_untold(outcome: Outcome, code: int) -> None:
    more = run(checks=(check(), check(outcome, name="test_b")))
    assert compare(run(), more, ("A", "B")).exit_code == code


def test_what_is_untold_has_no_end_but_in_the_report() -> None:
    many = run(checks=tuple(check("error", name=f"test_{n}") for n in range(50)))
    assert text(many, many).count("\nuntold  ") == 21
    assert "untold  30 more" in text(many, many)


@pytest.mark.parametrize(
    ("one", "other", "meaning"),
    [
        ("pass", "fail", "worse"),
        ("skip", "fail", "worse"),
        ("error", "fail", "worse"),
        ("fail", "pass", "better"),
        ("unproven", "pass", "better"),
        ("pass", "unproven", "untold"),
        ("fail", "error", "untold"),
        ("error", "unproven", "untold"),
        ("skip", "error", "untold"),
        ("pass", "skip", "untold"),
        ("fail", "skip", "untold"),
        ("error", "skip", "other"),
        ("skip", "pass", "other"),
    ],
)
def test_only_a_failure_is_worse(one: Outcome, other: Outcome, meaning: str) -> None:
    assert turn(one, other) == meaning


@pytest.mark.parametrize(("outcome", "code"), [("fail", 1), ("error", 4), ("skip", 4)])
def test_a_changed_check_decides_the_exit_code(outcome: Outcome, code: int) -> None:
    found = compare(run(), run(checks=(check(outcome),)), ("A", "B"))
    (change,) = found.changes
    assert (change.cell, change.check, change.kernel) == ("n1-vhe-patched", "test_a", "patched")
    assert (change.one, change.other) == ("pass", outcome)
    assert found.exit_code == code
    assert compare(run(checks=(check(outcome),)), run(), ("A", "B")).exit_code == 0


def test_a_slower_patched_kernel_is_worse() -> None:
    found = compare(run(), run(figures=(figure(slower(OTHER)),)), ("A", "B"))
    (one,) = found.figures
    assert one.figure.verdict == "worse"
    assert one.figure.effect == pytest.approx(0.1, abs=0.01)
    assert one.control.verdict == "same"
    assert found.exit_code == 1


def test_a_machine_that_became_slower_is_not_the_series_fault() -> None:
    found = compare(run(), run(figures=(figure(slower(OTHER), slower(STEADY)),)), ("A", "B"))
    (one,) = found.figures
    assert one.control.verdict == "worse"
    assert one.figure.verdict == "inconclusive"
    assert found.exit_code == 4


EMULATED_RUN = {"emulated": True, "emulator": "QEMU 7.2"}


def test_no_time_on_an_emulated_host_is_a_result() -> None:
    slow = figure(slower(OTHER), slower(STEADY))
    one, other = run(**EMULATED_RUN), run(**EMULATED_RUN, figures=(slow,))
    found = compare(one, other, ("A", "B"))
    (compared,) = found.figures
    for each in (compared.figure, compared.control):
        assert (each.verdict, each.reason, each.effect) == ("inconclusive", EMULATED, None)
    assert found.exit_code == 4
    assert f"1 inconclusive: {EMULATED}" in text(one, other)


@pytest.mark.parametrize("doubted", [0, 1])
def test_what_a_run_calls_no_result_is_none_beside_another(doubted: int) -> None:
    both = [figure(), figure(slower(OTHER))]
    both[doubted] = no_result(both[doubted], "5 whole rounds, and fewer than 6 show nothing")
    found = compare(run(figures=both[:1]), run(figures=both[1:]), ("A", "B"))
    (one,) = found.figures
    assert (one.figure.verdict, one.figure.effect) == ("inconclusive", None)
    assert one.figure.reason.startswith("5 whole rounds")
    assert found.exit_code == 4


def alone() -> Figure:
    """Of a run that has the base kernel alone, twice in each round."""
    given = Measured(
        metric="aging", what="a pass", unit="s", host="n1", kvm_mode="vhe", af_mode="hardware",
        base=STEADY, patched=(), noise=(STEADY, OTHER),
    )  # fmt: skip
    return floors([given])[0].model_copy(update={"conditions": CONDITIONS})


@pytest.mark.parametrize("both", [False, True])
def test_a_noise_floor_alone_is_no_comparison(both: bool) -> None:
    one = run(figures=(alone(),), seed=2)
    other = run(figures=(alone() if both else figure(slower(OTHER)),))
    for pair in ((one, other), (other, one)):
        found = compare(*pair, ("A", "B"))
        (compared,) = found.figures
        for each in (compared.figure, compared.control):
            assert (each.verdict, each.reason, each.effect) == ("inconclusive", ALONE, None)
        assert found.exit_code == 4


def test_a_noise_floor_alone_lacks_the_conditions_of_a_patched_kernel() -> None:
    own = CONDITIONS | {"lru_gen": "base 0x0007, patched 0x000f"}
    series = run(figures=(figure().model_copy(update={"conditions": own}),))
    assert unlike(run(figures=(alone(),)), series) == ()


# ---- counts -------------------------------------------------------------------------------------


def counts(one: Figure, other: Figure) -> tuple[Figure, int]:
    found = compare(run(figures=(one,)), run(figures=(other,)), ("A", "B"))
    return found.figures[0].figure, found.exit_code


@pytest.mark.parametrize(
    ("one", "other", "verdict", "code"),
    [
        ((100.0, 100.0, 101.0), (135.0, 136.0, 135.0), "worse", 1),
        ((135.0, 136.0, 135.0), (100.0, 100.0, 101.0), "better", 0),
        ((100.0, 100.0, 101.0), (101.0, 101.0, 101.0), "same", 0),  # as far as layouts go
        ((100.0, 100.0, 101.0), (102.0, 102.0, 102.0), "worse", 1),
        ((100.0, 140.0, 100.0), (135.0, 137.0, 135.0), "inconclusive", 4),
        ((1.0, 900.0, 900.0), (1.0, 1.0, 900.0), "inconclusive", 4),  # not by the first values
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), "same", 0),
        ((0.0, 0.0, 0.0), (0.5, 0.5, 0.5), "same", 0),  # below the floor: one instruction
        ((0.5, 0.5, 0.5), (0.2, 0.3, 0.2), "same", 0),
        ((0.0, 0.0, 0.0), (2.0, 2.0, 2.0), "worse", 1),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 3.0), "inconclusive", 4),
        ((100.0,), (135.0,), "inconclusive", 4),  # one layout
        ((100.0,), (100.0,), "same", 0),
    ],
)
def test_counts_are_compared_by_their_medians(
    one: Values, other: Values, verdict: str, code: int
) -> None:
    found, exit_code = counts(count(one), count(other))
    assert (found.verdict, exit_code) == (verdict, code)
    assert "p = " not in found.reason


@pytest.mark.parametrize("doubted", [0, 1])
def test_counts_that_their_run_doubts_are_not_compared(doubted: int) -> None:
    """Values through which no line goes: that they differ says nothing of a page."""
    both = [count((1.0,) * 3), count((900.0,) * 3)]
    why = "the numbers of pages do not agree"
    both[doubted] = both[doubted].model_copy(update={"doubt": why})
    found, code = counts(*both)
    assert (found.verdict, found.reason, found.doubt, code) == ("inconclusive", why, why, 4)


@pytest.mark.parametrize(
    ("conditions", "field", "values"),
    [
        (CONDITIONS | {"boost": "1"}, "boost", "0 / 1"),
        (CONDITIONS | {"boost": ""}, "boost", "0 / not recorded"),
        ({"boost": "0"}, "governors", "performance (CPU 0-3) / not recorded"),
    ],
)
def test_times_of_other_conditions_are_unlike(
    conditions: dict[str, str], field: str, values: str
) -> None:
    other = run(figures=(figure().model_copy(update={"conditions": conditions}),))
    found = [str(one) for one in unlike(run(), other)]
    assert found == [f"{field} on n1 vhe all the time that was measured: {values}"]


def test_times_of_a_series_that_changes_a_condition_are_alike() -> None:
    """A series that adds a bit to lru_gen/enabled is what is compared."""
    own = CONDITIONS | {"lru_gen": "base 0x0007, patched 0x000f"}
    both = [
        run(figures=(figure(values).model_copy(update={"conditions": own}),))
        for values in (OTHER, slower(OTHER))
    ]
    assert unlike(*both) == ()


def test_times_of_conditions_that_one_run_knows_are_unlike() -> None:
    other = run(figures=(figure().model_copy(update={"conditions": {}}),))
    (field,) = unlike(run(), other)
    assert str(field) == "conditions in which time was measured on n1 vhe: recorded / not recorded"


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ({}, "conditions in which time was measured on n1 vhe"),
        (CONDITIONS | {"boost": ""}, "boost on n1 vhe all the time that was measured"),
    ],
)
def test_what_neither_run_knows_of_its_conditions_is_unlike(
    conditions: dict[str, str], words: str
) -> None:
    update = {"conditions": conditions}
    both = [run(figures=(figure(values).model_copy(update=update),)) for values in (STEADY, OTHER)]
    assert [field.field for field in unlike(*both)] == [words]


def test_only_times_have_conditions() -> None:
    assert unlike(run(), run(figures=(count(HUNDRED),))) == ()
    nothing = figure().model_copy(update={"base": (), "patched": (), "conditions": {}})
    assert unlike(run(), run(figures=(nothing,))) == (), "no round was whole"


def test_counts_of_other_layouts_are_unlike() -> None:
    fewer = run(figures=(count((100.0,) * 2, (100.0,) * 2),))
    (field,) = unlike(run(figures=(count((100.0,) * 4, (100.0,) * 4),)), fewer)
    assert str(field) == "layouts that counts are from: 4 / 2"
    assert unlike(run(), fewer) == (), "nothing was counted"


@pytest.mark.parametrize(("one", "other"), [(2, 3), (3, 2)])
def test_a_count_that_one_layout_lacks_is_not_compared(one: int, other: int) -> None:
    """Other layouts of the same kernel differ: the median of others says nothing of it."""
    left, right = ((100.0, 100.0, 150.0)[:number] for number in (one, other))
    found, code = counts(count(left), count(tuple(2 * value for value in right)))
    assert (found.verdict, code) == ("inconclusive", 4)
    assert found.reason == f"counted in other layouts: in {one} of them, and in {other}"


def test_a_call_where_there_was_none_is_worse() -> None:
    none, some = (count((n, n, n), (0.0,) * 3, "calls-idle") for n in (0.0, 1.0))
    assert counts(none, some)[0].verdict == "worse"
    assert counts(some, none)[0].verdict == "better"


@pytest.mark.parametrize("nothing", [0.0, 5e-324])
def test_a_metric_that_is_not_known_has_no_ratio_to_nothing(nothing: float) -> None:
    none, some = (count((n,) * 3, (0.0,) * 3, "calls-of-tomorrow") for n in (nothing, 1e9))
    found, code = counts(none, some)
    assert (found.verdict, found.effect, found.smallest, code) == ("worse", None, None, 1)
    assert counts(none, none)[0].verdict == "same"


def test_the_larger_spread_of_both_counts() -> None:
    wide = count((100.0, 100.0, 101.0), spread=1.9)
    assert counts(wide, count((101.5,) * 3))[0].verdict == "same"
    assert counts(count((100.0,) * 3), count((101.5,) * 3, spread=30.0))[0].verdict != "worse"
    assert counts(wide, count((102.0,) * 3))[0].verdict == "worse"


def test_what_the_base_kernels_differ_by_is_no_difference_of_the_patched() -> None:
    found, code = counts(count((110.0,) * 3), count((150.0,) * 3, (140.0,) * 3))
    assert (found.verdict, code) == ("inconclusive", 4)
    assert "other changes differ by up to 40.000" in found.reason


def test_more_of_a_count_can_be_better() -> None:
    one, other = (
        count((n,) * 3).model_copy(update={"more_is_better": True}) for n in (100.0, 135.0)
    )
    assert counts(one, other)[0].verdict == "better"


@pytest.mark.parametrize("base", [(0.0,) * 3, (0.2, 0.0, 0.4), (100.0, 90.0, 300.0), (7.0,)])
@pytest.mark.parametrize("patched", [(), (0.0,) * 3, (0.2, 0.0, 0.4), (100.0, 90.0, 300.0)])
def test_counts_of_a_run_are_like_themselves(base: Values, patched: Values) -> None:
    same = run(figures=(count(patched, base, spread=210.0), figure()))
    found = compare(same, same, ("A", "B"))
    assert [one.figure.verdict for one in found.figures] == ["same", "same"]
    assert [one.control.verdict for one in found.figures] == ["same", "same"]
    assert found.exit_code == 0


def test_counts_take_nothing_from_the_tests_of_other_figures() -> None:
    many = tuple(count((1.0,) * 3, metric=f"cost-{n}") for n in range(100))
    found = compare(run(figures=(figure(), *many)), run(figures=(figure(), *many)), ("A", "B"))
    alone = compare(run(figures=(figure(),)), run(figures=(figure(),)), ("A", "B"))
    assert found.figures[0] == alone.figures[0]


def test_the_legend_is_about_what_the_table_has() -> None:
    measured, counted = run(), run(figures=(count((100.0, 140.0, 100.0)),))
    assert "with an interval and its confidence" in text(measured, measured)
    said = text(counted, counted)
    assert "no test judges them" in said
    assert "interval and its confidence" not in said and "[" not in said


def test_each_interval_has_its_own_confidence() -> None:
    few = run(figures=(figure(OTHER[:3], STEADY[:3]),))
    assert "+1.11%] (90 %)" in text(few, few)
    assert "] (95 %)" in text(run(), run())


def test_the_report_says_what_changed_and_keeps_control_characters_out() -> None:
    evil = check("fail").model_copy(update={"reason": "\x1b[2Jverdict: pass\nverdict: pass"})
    said = text(run(), run(checks=(evil,), figures=(figure(slower(OTHER)),)))
    assert "A against B: 1 outcomes differ, 2 do not" in said
    assert "worse  n1-vhe-patched, test_a: pass -> fail" in said
    assert "\x1b" not in said and "\nverdict: pass" not in said
    assert "evidence: x.txt" in said
    assert "1 aging" in said and "worse: p = " in said
    assert "verdict: worse: something got worse" in said


# ---- the command ----------------------------------------------------------------------------


def folders(tmp_path: Path, *runs: Summary) -> list[str]:
    for number, one in enumerate(runs):
        (tmp_path / f"run{number}").mkdir()
        write_atomically(tmp_path / f"run{number}" / "summary.json", one)
    return [str(tmp_path / f"run{number}") for number in range(len(runs))]


def ask(argv: list[str]) -> tuple[int, str]:
    parser = argparse.ArgumentParser()
    command.add_parser(parser)
    args, out = parser.parse_args(argv), io.StringIO()
    return args.command(args, Console(file=out, width=200)), out.getvalue()


def test_unlike_runs_are_refused_unless_forced(tmp_path: Path) -> None:
    emulated = {"emulated": True, "figures": ()}
    argv = folders(
        tmp_path,
        run(**emulated, emulator="QEMU 7.2"),
        run(**emulated, emulator="QEMU 8", harness="2"),
    )
    with pytest.raises(UsageError) as refused:
        ask(argv)
    assert refused.value.exit_code == 2
    assert "harness version: 1 / 2\nemulator: QEMU 7.2 / QEMU 8" in str(refused.value)
    code, said = ask([*argv, "--force"])
    assert code == 4
    first, second, third, *_ = said.splitlines()
    assert first.startswith("FORCED: these runs are not of like things, 2 fields differ")
    assert second == "differs: harness version: 1 / 2"
    assert third == "differs: emulator: QEMU 7.2 / QEMU 8"
    assert "of unlike things, by force" in said.splitlines()[-1]


def test_the_comparison_is_written_for_programs(tmp_path: Path) -> None:
    argv = folders(tmp_path, run(), run(checks=(check("fail"),), debug=True))
    code, _ = ask([*argv, "--force", "--json", str(tmp_path / "out.json")])
    written = json.loads((tmp_path / "out.json").read_text())
    assert code == 1
    assert (written["schema"], written["forced"]) == (1, True)
    assert written["unlike"] == [{"field": "debug kernels", "one": "False", "other": "True"}]
    assert written["changes"][0]["turn"] == "worse"
    with pytest.raises(UsageError, match="--json"):
        ask([*argv, "--force", "--json", str(tmp_path / "no" / "out.json")])


def test_what_is_no_run_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (one,) = folders(tmp_path, run())
    for other in (str(tmp_path / "empty"), str(tmp_path / "absent")):
        with pytest.raises(UsageError):
            ask([one, other])
