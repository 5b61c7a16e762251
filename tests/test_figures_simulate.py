# SPDX-License-Identifier: GPL-2.0-only
"""The simulation of harness/figures/simulate.py, small and always with the same numbers."""

import io

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from harness.figures import command, simulate
from harness.figures.judge import LEVEL
from harness.figures.simulate import Rate, Setting

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
    code = command.show(Setting(40, 3, fixed), Console(file=out, width=160))
    return code, out.getvalue()


def test_a_sound_measurement_keeps_what_is_promised() -> None:
    code, text = shown(fixed=False)
    assert code == 0
    assert "above what is promised: none" in text
    assert "40 trials each, seed 3" in text


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


def test_the_tolerance_is_that_of_the_binomial_distribution() -> None:
    allowed = simulate.allowed_of(1000, LEVEL)
    chance = simulate.DOUBT / simulate.PROMISES
    assert stats.binom.sf(allowed, 1000, LEVEL) <= chance < stats.binom.sf(allowed - 1, 1000, LEVEL)
    assert not Rate(allowed, 1000, allowed).exceeded
    assert Rate(allowed + 1, 1000, allowed).exceeded
    assert not Rate(1000, 1000).exceeded
