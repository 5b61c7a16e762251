# SPDX-License-Identifier: GPL-2.0-only
"""The whole table of outcomes: which outranks which, and whose fault a dead kernel is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import get_args

import pytest

from harness import errors, verdict
from harness.errors import Death
from harness.results import SERIES, Cell, Check, KernelLabel, Outcome, Splat

RANK: dict[Outcome, int] = {"fail": 3, "error": 2, "unproven": 1, "pass": 0}


def cell(
    kernel: KernelLabel = "base",
    outcome: Outcome = "pass",
    death: Death | None = None,
    *,
    host: str = "n1",
    variant: str = "",
    reason: str = "",
) -> Cell:
    return Cell(
        id=f"{host}-vhe-{kernel}{variant}",
        host=host,
        kernel=kernel,
        kvm_mode="vhe",
        af_mode="hardware",
        variant=variant,
        outcome=outcome,
        death=death,
        reason=reason or (f"it died of {death}." if death else ""),
    )


def check(
    of: Cell, outcome: Outcome = "pass", death: Death | None = None, name: str = "test_a"
) -> Check:
    reason = f"it died of {death}." if death else ""
    return Check(
        cell=of.id,
        name=name,
        outcome=outcome,
        expected="",
        observed="",
        death=death,
        reason=reason,
    )


def outcomes(cells: Sequence[Cell], checks: Sequence[Check]) -> tuple[list[str], list[str]]:
    judged, settled = verdict.judge(cells, checks)
    return [c.outcome for c in judged], [c.outcome for c in settled]


@pytest.mark.parametrize("several", list(itertools.product(RANK, repeat=3)))
def test_the_worst_of_several(several: tuple[Outcome, ...]) -> None:
    expected = max(several, key=lambda outcome: RANK[outcome])
    assert verdict.worst(several) == expected
    assert verdict.worst([*several, "skip"]) == expected


def test_nothing_and_skips_prove_nothing() -> None:
    assert verdict.worst([]) == "unproven"
    assert verdict.worst(["skip", "skip"]) == "unproven"
    assert verdict.judge([], []) == ((), ())


def test_only_pass_exits_0() -> None:
    assert {v for v, code in verdict.EXIT_CODES.items() if code == 0} == {"pass"}
    assert len(set(verdict.EXIT_CODES.values()) | {errors.EXIT_USAGE}) == 5


def test_a_cell_without_checks_is_unproven() -> None:
    assert outcomes([cell()], []) == (["unproven"], [])


def test_a_cell_with_nothing_but_skips_is_skipped_and_proves_nothing() -> None:
    base = cell()
    assert outcomes([base], [check(base, "skip")]) == (["skip"], ["skip"])
    assert verdict.worst(["skip"]) == "unproven"
    assert verdict.worst(["skip", "pass"]) == "pass"


def test_a_check_that_ran_on_base_alone_is_missed() -> None:
    base, patched = cell(), cell("patched")
    checks = [check(base), check(base, name="test_other"), check(patched)]
    judged, _ = verdict.judge([base, patched], checks)
    assert [one.outcome for one in judged] == ["pass", "unproven"]
    assert "test_other" in judged[1].reason


def test_a_death_in_a_check_is_judged_by_that_check_alone() -> None:
    base, patched = cell(), cell("patched", death="hang", outcome="error")
    checks = [check(base, "error", "livelock"), check(patched, "error", "hang")]
    judged, settled = verdict.judge([base, patched], checks)
    assert [one.outcome for one in settled] == ["error", "error"]
    assert judged[1].outcome == "error"


def test_a_repair_is_told_apart_from_a_break() -> None:
    base, patched = cell(outcome="fail"), cell("patched")
    assert verdict.only_base_failed([base, patched])
    assert not verdict.only_base_failed([base, cell("patched", outcome="fail")])
    assert not verdict.only_base_failed([cell(), patched])
    assert not verdict.only_base_failed([base, cell("patched", outcome="unproven")])
    assert not verdict.only_base_failed([base])


@pytest.mark.parametrize("outcome", ["error", "unproven"])
def test_trouble_with_the_cell_itself_outranks_checks_that_passed(outcome: Outcome) -> None:
    base = cell(outcome=outcome, reason="trouble")
    assert outcomes([base], [check(base)])[0] == [outcome]


def test_a_failed_check_outranks_trouble_with_its_cell() -> None:
    base = cell(outcome="error", reason="trouble")
    assert outcomes([base], [check(base, "fail")])[0] == ["fail"]


@pytest.mark.parametrize("death", get_args(Death))
def test_patched_dies_where_base_lived(death: Death) -> None:
    base, patched = cell(), cell("patched", "error", death)
    judged, _ = verdict.judge([base, patched], [check(base)])
    assert [c.outcome for c in judged] == ["pass", "fail"]
    assert "The base kernel lived" in judged[1].reason
    assert f"died of {death}" in judged[1].reason


@pytest.mark.parametrize("order", [1, -1])
def test_both_die_and_nobody_is_to_blame(order: int) -> None:
    cells = [cell("base", "error", "panic"), cell("patched", "error", "panic")][::order]
    judged, _ = verdict.judge(cells, [])
    assert [c.outcome for c in judged] == ["error", "error"]
    assert not any("lived" in c.reason for c in judged)


def test_patched_dies_and_base_never_ran() -> None:
    patched = cell("patched", "error", "panic")
    assert outcomes([patched], [])[0] == ["error"]
    lab = cell("base", "error", reason="no SSH")
    assert outcomes([lab, patched], [])[0] == ["error", "error"]


def test_base_of_another_host_or_mode_is_no_comparison() -> None:
    patched = cell("patched", "error", "panic")
    other_host = cell(host="a57")
    other_mode = cell().model_copy(update={"kvm_mode": "nvhe", "id": "n1-nvhe-base"})
    cells = [other_host, other_mode, patched]
    assert outcomes(cells, [check(other_host), check(other_mode)])[0] == ["pass", "pass", "error"]


def test_base_that_dies_alone_is_no_fault_of_the_series() -> None:
    base, patched = cell("base", "error", "hang"), cell("patched")
    assert outcomes([base, patched], [check(patched)])[0] == ["error", "pass"]


def test_a_variant_is_held_against_the_same_base() -> None:
    base, variant = cell(), cell("patched", "error", "hang", variant="sw-af")
    assert outcomes([base, variant], [check(base)])[0] == ["pass", "fail"]


@pytest.mark.parametrize("base_outcome", ["pass", "fail"])
def test_livelock_in_one_check_where_base_went_through(base_outcome: Outcome) -> None:
    base, patched = cell(), cell("patched")
    checks = [check(base, base_outcome), check(patched, "error", "livelock")]
    judged, settled = verdict.judge([base, patched], checks)
    assert settled[1].outcome == "fail"
    assert not settled[1].also_on_base
    assert "died of livelock. The base kernel lived through this check" in settled[1].reason
    assert judged[1].outcome == "fail"


def test_livelock_on_both() -> None:
    base, patched = cell(), cell("patched")
    checks = [check(base, "error", "livelock"), check(patched, "error", "livelock")]
    judged, settled = verdict.judge([base, patched], checks)
    assert [c.outcome for c in settled] == ["error", "error"]
    assert [c.also_on_base for c in settled] == [False, True]
    assert [c.outcome for c in judged] == ["error", "error"]


@pytest.mark.parametrize("twin", ["skip", "unproven", None])
def test_livelock_where_the_base_cell_lived_is_the_fault_of_the_series(
    twin: Outcome | None,
) -> None:
    base, patched = cell(), cell("patched")
    checks = [check(patched, "error", "livelock")]
    checks += [check(base, twin)] if twin else []
    _, settled = verdict.judge([base, patched], checks)
    assert settled[0].outcome == "fail"


@pytest.mark.parametrize("reference", [None, cell(outcome="error"), cell(death="panic")])
def test_livelock_without_a_base_that_lived_is_an_error(reference: Cell | None) -> None:
    patched = cell("patched")
    cells = [patched, *([reference] if reference else [])]
    _, settled = verdict.judge(cells, [check(patched, "error", "livelock")])
    assert settled[0].outcome == "error"


def test_another_death_on_base_settles_nothing_and_is_not_the_same() -> None:
    base, patched = cell(), cell("patched")
    checks = [check(base, "error", "guest-hang"), check(patched, "error", "guest-panic")]
    _, settled = verdict.judge([base, patched], checks)
    assert (settled[1].outcome, settled[1].also_on_base) == ("error", False)


def test_livelock_on_base_alone_is_an_error() -> None:
    base, patched = cell(), cell("patched")
    checks = [check(base, "error", "livelock"), check(patched)]
    assert outcomes([base, patched], checks) == (["error", "pass"], ["error", "pass"])


def test_a_failure_on_both_is_marked_and_stays_a_failure() -> None:
    base, patched = cell(), cell("patched")
    checks = [check(base, "fail"), check(patched, "fail"), check(patched, "fail", name="test_b")]
    judged, settled = verdict.judge([base, patched], checks)
    assert [c.outcome for c in settled] == ["fail", "fail", "fail"]
    assert [c.also_on_base for c in settled] == [False, True, False]
    assert [c.outcome for c in judged] == ["fail", "fail"]


def told(of: Cell, outcome: Outcome, reason: str) -> Check:
    return check(of, outcome).model_copy(update={"reason": reason})


def test_a_failure_that_is_an_error_on_the_base_is_the_labs() -> None:
    """A machine that is not what it is thought to be shows it with the series and without."""
    base, patched = cell(), cell("patched")
    checks = [told(base, "error", "software on CPU 0"), told(patched, "fail", "software on CPU 0")]
    judged, settled = verdict.judge([base, patched], checks)
    assert [c.outcome for c in settled] == ["error", "error"]
    assert [c.also_on_base for c in settled] == [False, True]
    assert [c.outcome for c in judged] == ["error", "error"]


@pytest.mark.parametrize(
    ("on_base", "why"), [("error", "the lab is on fire"), ("unproven", "software on CPU 0")]
)
def test_a_failure_where_the_base_ended_otherwise_stays_one(on_base: Outcome, why: str) -> None:
    base, patched = cell(), cell("patched")
    checks = [told(base, on_base, why), told(patched, "fail", "software on CPU 0")]
    _, settled = verdict.judge([base, patched], checks)
    assert (settled[1].outcome, settled[1].also_on_base) == ("fail", False)


def test_only_failures_are_marked() -> None:
    base, patched = cell(), cell("patched")
    _, settled = verdict.judge([base, patched], [check(base, "fail"), check(patched)])
    assert (settled[1].outcome, settled[1].also_on_base) == ("pass", False)


def test_a_base_that_died_did_not_live_whatever_its_checks_say() -> None:
    base, patched = cell("base", "pass", "gone"), cell("patched", "error", "panic")
    assert outcomes([base, patched], [check(base)])[0] == ["error", "error"]


def test_a_failure_where_base_passed_is_not_marked() -> None:
    base, patched = cell(), cell("patched")
    _, settled = verdict.judge([base, patched], [check(base), check(patched, "fail")])
    assert not settled[1].also_on_base


def test_judging_leaves_its_input_alone() -> None:
    base, patched = cell(), cell("patched", "error", "panic")
    checks = [check(base), check(patched, "error", "panic")]
    once = verdict.judge([base, patched], checks)
    assert verdict.judge([base, patched], checks) == once
    assert patched.outcome == "error"


@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_a_check_of_the_series_itself_counts_like_a_cell(outcome: Outcome) -> None:
    base = cell()
    own = check(base, outcome).model_copy(update={"cell": SERIES})
    assert verdict.of_run([base], [own]) == ("pass" if outcome == "skip" else outcome)
    assert verdict.of_run([cell(outcome="fail")], [own]) == "fail"


@pytest.mark.parametrize(
    ("base", "patched", "said"),
    [
        ("pass", "pass", "pass"),
        ("pass", "fail", "fail"),
        ("fail", "fail", "error"),
        ("unproven", "pass", "error"),
        ("skip", "fail", "fail"),
    ],
)
def test_nothing_is_said_of_a_commit_where_the_base_does_not_pass(
    base: Outcome, patched: Outcome, said: str
) -> None:
    cells = [cell(outcome=base), cell("patched", patched)]
    assert verdict.of_patched(cells, []) == said


def test_check_of_the_series_is_about_the_patched_kernel() -> None:
    cells = [cell(), cell("patched")]
    own = check(cells[0], "fail").model_copy(update={"cell": SERIES})
    assert verdict.of_patched(cells, [own]) == "fail"


def failing(of: Cell, name: str = "test_a", reason: str = "3 are young") -> Check:
    return check(of, "fail", name=name).model_copy(update={"reason": reason})


@pytest.mark.parametrize(
    ("on_base", "with_series", "old"),
    [
        ([("test_a", "x")], [("test_a", "x")], True),
        ([("test_a", "x")], [("test_a", "y")], False),
        ([("test_a", "x")], [("test_a", "x"), ("test_b", "x")], False),
        ([("test_a", "x"), ("test_b", "x")], [("test_a", "x")], True),
        ([], [("test_a", "x")], False),
        ([("test_a", "x")], [], False),
    ],
)
def test_what_failed_without_the_series_as_well_is_nothing_new(
    on_base: list[tuple[str, str]], with_series: list[tuple[str, str]], old: bool
) -> None:
    base, patched = cell(), cell("patched")
    checks = [failing(base, *one) for one in on_base]
    checks += [failing(patched, *one) for one in with_series]
    cells, judged = verdict.judge([base, patched], checks)
    assert verdict.nothing_new(cells, judged) is old


def test_a_death_with_the_series_alone_is_something_new() -> None:
    base, patched = cell(), cell("patched", "error", "panic")
    cells, judged = verdict.judge([base, patched], [failing(base), failing(patched)])
    assert cells[1].outcome == "fail"
    other = cell("patched", "error", "panic", host="a57")
    cells, judged = verdict.judge(
        [base, cell("patched"), cell(host="a57"), other], [failing(base), failing(cell("patched"))]
    )
    assert not verdict.nothing_new(cells, judged)


def splat(key: str, site: str = "") -> Splat:
    return Splat(kind="warn", title=f"WARNING: {key} {site}", key=key, site=site)


def with_splats(patched: list[Splat], base: list[Splat]) -> tuple[Cell, Check]:
    """The patched cell and its check of the log, where both kernels' logs had something."""
    cells, checks = [], []
    kernels: list[tuple[KernelLabel, list[Splat]]] = [("base", base), ("patched", patched)]
    for kernel, splats in kernels:
        one = cell(kernel).model_copy(update={"splats": tuple(splats)})
        cells.append(one)
        outcome: Outcome = "fail" if splats else "pass"
        checks.append(check(one, outcome).model_copy(update={"splats": tuple(splats)}))
    judged, settled = verdict.judge(cells, checks)
    return judged[1], settled[1]


def test_what_the_base_kernel_prints_too_is_told_apart() -> None:
    patched, log = with_splats([splat("warn: a < b")], [splat("warn: a < b")])
    assert [one.on_base for one in patched.splats] == [True]
    assert (log.outcome, log.also_on_base) == ("fail", True)


def test_another_report_than_the_bases_is_the_series_own() -> None:
    """Both checks fail, and that is no excuse."""
    patched, log = with_splats([splat("warn: a"), splat("oops: b")], [splat("warn: a")])
    assert [one.on_base for one in patched.splats] == [True, False]
    assert (log.outcome, log.also_on_base) == ("fail", False)
    assert [one.on_base for one in log.splats] == [True, False]
    assert "printed 1 of them as well, but not: WARNING: oops: b" in log.reason


def test_a_report_that_no_check_was_asked_to_judge_is_no_pass() -> None:
    heard = splat("warn: a")
    cells = [
        cell("base").model_copy(update={"splats": (heard,)}),
        cell("patched").model_copy(update={"splats": (heard,)}),
        cell("patched", host="a57").model_copy(update={"splats": (splat("oops: b"),)}),
    ]
    judged, _ = verdict.judge(cells, [check(one, "pass", name="test_a") for one in cells])
    # What the base kernel reports as well is told of the base kernel.
    assert [one.outcome for one in judged] == ["unproven", "pass", "unproven"]
    assert "test_kernel_log, which judges that, did not run: WARNING: oops: b" in judged[2].reason
    log = [check(one, "pass", name="test_kernel_log") for one in cells]
    assert {one.outcome for one in verdict.judge(cells, log)[0]} == {"pass"}


def test_a_report_that_only_the_patched_kernel_has() -> None:
    patched, log = with_splats([splat("warn: a")], [])
    assert [one.on_base for one in patched.splats] == [False]
    assert (log.outcome, log.also_on_base, log.reason) == ("fail", False, "")


def test_a_warning_that_moved_is_not_new_but_a_second_one_is() -> None:
    patched, _ = with_splats([splat("warn: a", "m.c:12")], [splat("warn: a", "m.c:10")])
    assert [one.on_base for one in patched.splats] == [True]
    two = [splat("warn: a", "m.c:12"), splat("warn: a", "m.c:14")]
    patched, log = with_splats(two, [splat("warn: a", "m.c:10")])
    assert [one.on_base for one in patched.splats] == [False, False]
    assert not log.also_on_base


def test_the_base_kernels_own_reports_are_compared_with_nothing() -> None:
    base = cell().model_copy(update={"splats": (splat("warn: a"),)})
    (judged,), _ = verdict.judge([base], [check(base, "fail")])
    assert [one.on_base for one in judged.splats] == [False]


BAD = "Memory failure: 0x41a: recovery action for dirty LRU page: Recovered"
SICK = Splat(kind="memory-failure", title=BAD, key=f"memory-failure: {BAD}")


@pytest.mark.parametrize("outcome", ["pass", "fail", "error", "unproven"])
@pytest.mark.parametrize("death", [None, "panic"])
def test_on_a_machine_that_is_sick_nothing_is_a_kernels_fault(
    outcome: Outcome, death: Death | None
) -> None:
    base = cell()
    patched = cell("patched", death=death).model_copy(update={"splats": (SICK,)})
    patched = patched.model_copy(update={"machine": "altra"})
    checks = [check(base), check(patched, outcome, death)]
    judged, settled = verdict.judge([base, patched], checks)
    assert [one.outcome for one in judged] == ["pass", "error"]
    assert f"altra is sick, its kernel reported: {BAD}" in judged[1].reason
    expected = "error" if outcome == "fail" or death else outcome
    assert settled[1].outcome == expected
    assert verdict.of_run(judged, ()) == "error"


def test_a_cell_that_died_with_its_machine_sick_proves_nothing() -> None:
    base = cell()
    patched = cell("patched", death="panic").model_copy(update={"splats": (SICK,)})
    judged, _ = verdict.judge([base, patched], [check(base), check(patched)])
    assert judged[1].outcome == "error"
    assert judged[1].reason.endswith("it died of panic.")


def test_nothing_is_compared_with_a_base_whose_machine_was_sick() -> None:
    base = cell().model_copy(update={"splats": (SICK,)})
    patched = cell("patched", death="panic")
    checks = [check(base, "fail"), check(patched, "fail"), check(patched, "error", "panic", "b")]
    judged, settled = verdict.judge([base, patched], checks)
    assert [one.outcome for one in judged] == ["error", "fail"]
    assert [one.outcome for one in settled] == ["error", "fail", "error"]
    assert not settled[1].also_on_base
    assert verdict.of_patched(judged, settled) == "error"
