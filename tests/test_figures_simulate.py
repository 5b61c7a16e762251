# SPDX-License-Identifier: GPL-2.0-only
"""The simulation of harness/figures/simulate.py, small and always with the same numbers."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from harness.figures import simulate
from harness.figures.measured import LEVEL
from harness.figures.simulate import Design, Rate, Row, Setting
from harness.figures.tables import show

DRIFT = "steep drift"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One design, two kinds of noise, one number of values: milliseconds instead of minutes."""
    noise = {
        "outliers": simulate.NOISE["outliers"],
        DRIFT: lambda random, slots: random.normal(0, 0.01, slots) + np.linspace(0, 0.5, slots),
    }
    monkeypatch.setattr(simulate, "NOISE", noise)
    monkeypatch.setattr(simulate, "DESIGNS", ("rounds",))
    monkeypatch.setattr(simulate, "VALUES", (10,))
    monkeypatch.setattr(simulate, "FAMILY", 2)


def shown(*, fixed: bool) -> tuple[int, str]:
    out = io.StringIO()
    code = show(Setting(40, 3, fixed), Console(file=out, width=160))
    return code, out.getvalue()


def test_a_sound_measurement_keeps_what_is_promised() -> None:
    code, text = shown(fixed=False)
    assert code == 0
    assert "above what is promised: none" in text
    assert "40 trials each, seed 3" in text


@pytest.mark.parametrize("design", ["rounds, A/A", "two runs"])
def test_so_does_each_other_design(design: Design, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a measurement that makes a difference itself, too, of either sign."""
    monkeypatch.setattr(simulate, "DESIGNS", ("rounds", design))
    code, text = shown(fixed=False)
    assert (code, "above what is promised: none" in text) == (0, True)
    rows = list(simulate.biased(Setting(40, 3)))
    assert [(row.design, row.noise) for row in rows] == [
        (design, f"{noise}, {sign}3%") for noise in ("outliers", DRIFT) for sign in "+-"
    ]
    families = [row for row in simulate.together(Setting(2, 3)) if row.design == design]
    for row in (*rows, *families):
        assert ("false turned" in row.rates) == (design == "rounds, A/A")
        assert {rate.promised for rate in row.rates.values()} == {LEVEL}


def test_drift_is_found_out_where_the_base_comes_always_first() -> None:
    """A simulation that nothing could fail would show nothing."""
    code, text = shown(fixed=True)
    assert code == 1
    assert f"above what is promised: rounds, {DRIFT}, 10 values, false: 40 of 40" in text


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, again, other = (list(simulate.alone(Setting(10, seed))) for seed in (5, 5, 6))
    assert first == again != other


def test_the_larger_an_effect_the_more_often_it_is_shown() -> None:
    outliers, _ = simulate.alone(Setting(40, 1))
    counts = [outliers.rates[name].count for name in ("1%", "2%", "5%")]
    assert counts == sorted(counts)
    assert counts[0] < 20 < counts[-1]


def test_the_base_kernel_against_itself_is_simulated_as_it_is_timed() -> None:
    """`time` boots the base kernel twice in a round, and both comparisons share the first boot."""
    setting, random = Setting(1, 1), np.random.default_rng(1)
    one = simulate._measured(setting, random, "rounds, A/A", "outliers", 10, 0.1, 0.0)
    assert one.noise is not None
    assert one.noise[0] == one.base
    assert len({*one.base, *one.patched, *one.noise[1]}) == 30


def test_all_rates_with_a_promise_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the whole simulation: what chance explains in each depends on how many there are."""
    monkeypatch.undo()
    parts = (simulate.alone, simulate.together, simulate.biased)
    made = [list(part(Setting(1, 1))) for part in parts]
    made += [list(simulate.pooled(rows)) for rows in made]
    rates = [rate for rows in made for row in rows for rate in row.rates.values()]
    assert sum(rate.promised is not None for rate in rates) == simulate.PROMISES


def test_the_tolerance_is_that_of_the_binomial_distribution() -> None:
    allowed = simulate.allowed_of(1000, LEVEL)
    chance = simulate.DOUBT / simulate.PROMISES
    assert stats.binom.sf(allowed, 1000, LEVEL) <= chance < stats.binom.sf(allowed - 1, 1000, LEVEL)
    assert not Rate(allowed, 1000, LEVEL).exceeded
    assert Rate(allowed + 1, 1000, LEVEL).exceeded
    assert not Rate(1000, 1000).exceeded


# ---- all kinds of noise together ------------------------------------------------------------


def rows(*counts: int, design: Design = "rounds", values: int = 10) -> list[Row]:
    """Of 400 trials each so many came out wrong."""
    return [
        Row(design, f"noise {number}", values, {"false": Rate(count, 400, LEVEL)})
        for number, count in enumerate(counts)
    ]


def test_what_each_row_explains_by_chance_all_of_them_do_not() -> None:
    """A judge that is wrong in 8 % of cases, where 5 % are promised."""
    each = rows(32, 29, 35, 32, 31, 34, 31)
    assert not any(row.rates["false"].exceeded for row in each)
    (all_of_them,) = simulate.pooled(each)
    assert (all_of_them.noise, all_of_them.rates["false"].count) == (simulate.POOLED, 224)
    assert all_of_them.rates["false"].exceeded
    (sound,) = simulate.pooled(rows(20, 17, 23, 20, 19, 22, 19))
    assert not sound.rates["false"].exceeded


def test_what_can_be_wrong_in_nothing_hides_nothing() -> None:
    """Of five rounds no difference is ever shown, nor does one design stand for another."""
    bad = rows(*[32] * 7)
    none = rows(*[0] * 7, values=5) + rows(*[0] * 7, design="two runs")
    found = simulate.pooled([*none, *bad])
    assert [row.rates["false"].exceeded for row in found] == [False, False, True]


def test_only_what_is_promised_of_each_row_is_added_up() -> None:
    first = {"false": Rate(1, 400, 0.05), "missed": Rate(2, 400, 0.05), "shown": Rate(3, 400)}
    other = {**first, "missed": Rate(2, 400, 0.0625)}
    (found,) = simulate.pooled([Row("rounds", noise, 5, rates) for noise, rates in
                                (("a", first), ("b", other))])  # fmt: skip
    assert found.rates == {"false": Rate(2, 800, 0.05), "missed": Rate(4, 800, 0.0625)}
    assert simulate.pooled(rows(20)) == (), "one row says all that there is to say"


def test_runs_of_many_figures_are_as_many_as_all_of_them() -> None:
    (row,) = simulate.together(Setting(10, 1))
    assert {rate.trials for rate in row.rates.values()} == {20}, "two kinds of noise"


def test_all_of_them_decide_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "alone", lambda _: iter(rows(*[32] * 7)))
    code, text = shown(fixed=False)
    assert code == 1
    assert f"above what is promised: rounds, {simulate.POOLED}, 10 values, false: 224 of" in text
    assert "above what is promised: 1 rates" in text


@pytest.mark.parametrize("trials", [40, 2800])
def test_what_is_said_to_be_found_is_found(trials: int) -> None:
    rate = simulate.found_of(trials, LEVEL)
    unseen = stats.binom.cdf(simulate.allowed_of(trials, LEVEL), trials, rate)
    assert unseen == pytest.approx(1 - simulate.SURE)


def test_each_table_says_what_chance_explains_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row, of two kinds of noise, and of these with both signs of a bias."""
    monkeypatch.setattr(simulate, "DESIGNS", ("rounds", "rounds, A/A"))
    lines = [line for line in shown(fixed=False)[1].splitlines() if line.startswith("chance: ")]
    trials = (40, 80, 80, 40, 160)
    assert len(lines) == len(trials)
    for line, number in zip(lines, trials, strict=True):
        allowed, found = simulate.allowed_of(number, LEVEL), simulate.found_of(number, LEVEL)
        assert line.startswith(f"chance: up to {allowed} of {number} (")
        assert f"{found:.1%} is found" in line
