# SPDX-License-Identifier: GPL-2.0-only
"""Verdicts on what was measured (harness/figures/judge.py)."""

from dataclasses import replace

import pytest

from harness.figures.judge import ALONE, figures, floors, holm, rounds_needed
from harness.figures.measured import LEVEL, Measured
from harness.results import Figure

# Twelve rounds with noise of about 0.4 %, and a permutation of it.
NOISE = (0.1, -0.5, 0.3, 0.7, -0.2, -0.6, 0.4, 0.05, -0.3, 0.55, -0.1, 0.2)
OTHER = (-0.3, 0.2, 0.1, -0.5, 0.55, 0.4, -0.2, 0.7, 0.05, -0.6, 0.3, -0.1)
BASE = tuple(100 + value for value in NOISE)
OTHER_BASE = tuple(100 + value for value in OTHER)


def measured(effect: float = 0.0, rounds: int = 12) -> Measured:
    patched = tuple((100 + value) * (1 + effect) for value in OTHER)
    return Measured(
        metric="aging-pass",
        what="one pass of aging",
        unit="s",
        host="n1",
        kvm_mode="vhe",
        af_mode="hardware",
        base=BASE[:rounds],
        patched=patched[:rounds],
    )


def one(given: Measured) -> Figure:
    (found,) = figures([given])
    return found


def test_less_of_a_cost_is_better_and_more_is_worse() -> None:
    less, more = one(measured(-0.1)), one(measured(0.1))
    assert (less.verdict, more.verdict) == ("better", "worse")
    assert less.effect == pytest.approx(-0.1, abs=0.005)
    assert less.low is not None and less.high is not None
    assert less.low < -0.1 < less.high < -0.09
    assert less.confidence == 0.95
    assert less.smallest is not None and 0 < less.smallest < 0.02
    assert less.reason.startswith("p = 0.00049")


def test_more_of_what_is_wanted_is_better() -> None:
    assert one(replace(measured(0.1), more_is_better=True)).verdict == "better"
    assert one(replace(measured(-0.1), more_is_better=True)).verdict == "worse"


def test_what_is_shown_to_be_within_the_margin_is_the_same() -> None:
    found = one(measured())
    assert found.verdict == "same"
    assert found.reason.startswith("less than 2.0% apart, p = ")


def test_a_difference_within_the_margin_is_the_same_and_named() -> None:
    found = one(measured(0.01))
    assert found.verdict == "same"
    assert "a difference is shown" in found.reason


def test_what_could_be_either_is_inconclusive() -> None:
    found = one(measured(0.02))
    (narrow,) = figures([measured(0.0)], margin=0.001)
    assert found.verdict == "worse"
    assert narrow.verdict == "inconclusive"
    assert "neither a difference is shown" in narrow.reason


def test_too_few_rounds_are_inconclusive_and_say_how_many_it_takes() -> None:
    found = one(measured(0.5, rounds=5))
    assert found.verdict == "inconclusive"
    assert found.reason == "5 rounds cannot show a difference among 1 figures; 6 rounds can"
    assert found.smallest is None
    assert found.confidence == pytest.approx(1 - 2 / 2**5)
    assert found.low is not None and found.high is not None and found.low < 0.5 < found.high
    assert one(measured(0.5, rounds=6)).verdict == "worse"


def test_many_figures_need_more_rounds() -> None:
    many = [measured(0.5, rounds=6)] * 10
    assert {found.verdict for found in figures(many)} == {"inconclusive"}
    assert rounds_needed(1) == 6
    assert rounds_needed(10) == 9
    assert rounds_needed(100) == 12
    for family in (1, 10, 100):
        assert 2 / 2 ** rounds_needed(family) <= LEVEL / family
        assert 4 / 2 ** rounds_needed(family) > LEVEL / family


def test_a_figure_that_could_not_be_judged_still_counts_in_the_family() -> None:
    lost = replace(measured(), base=(), patched=())
    found = figures([measured(0.5, rounds=6), lost])
    assert [one.verdict for one in found] == ["inconclusive", "inconclusive"]
    assert found[1].reason == "nothing was measured"


def test_the_correction_is_that_of_holm() -> None:
    assert holm([0.01, 0.04, 0.03], 3) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.04, 0.01], 4) == pytest.approx([0.12, 0.04])
    assert holm([0.9, 0.8], 2) == [1.0, 1.0]


def test_nothing_below_the_noise_floor_is_an_effect() -> None:
    drifted = tuple(value * 1.1 for value in BASE)
    found = one(replace(measured(0.08), noise=(BASE, drifted)))
    assert found.verdict == "inconclusive"
    assert found.floor == pytest.approx(0.1)
    assert found.reason.startswith("within the noise floor: 10.00%")
    assert one(replace(measured(0.2), noise=(BASE, drifted))).verdict == "worse"


def test_nothing_is_the_same_where_the_noise_floor_is_above_the_margin() -> None:
    drifted = tuple(value * 1.03 for value in BASE)
    assert one(replace(measured(), noise=(BASE, drifted))).verdict == "inconclusive"
    assert one(replace(measured(), noise=(BASE, BASE))).verdict == "same"


def test_a_difference_must_be_larger_than_noise_and_not_only_than_its_estimate() -> None:
    """The base against itself strays so much that a difference above the floor proves nothing."""
    wild = tuple(value * (1.04 if at % 2 else 0.97) for at, value in enumerate(BASE))
    assert one(measured(0.03)).verdict == "worse"
    found = one(replace(measured(0.03), noise=(BASE, wild)))
    assert found.floor is not None and found.floor < 0.01
    assert found.verdict == "inconclusive"


def test_a_boot_that_both_comparisons_share_is_no_evidence_twice() -> None:
    """Patched 1 % above the base and the second base 0.4 % below it, both without noise: whatever
    the first base strays moves both comparisons, so to a rank-sum test it looks like less."""
    above, below = (tuple((100 + value / 100) * by for value in OTHER) for by in (1.01, 0.996))
    (found,) = figures([replace(measured(), patched=above, noise=(BASE, below))], margin=0.001)
    assert found.floor is not None and found.effect is not None and found.floor < found.effect
    assert found.verdict == "inconclusive"
    (larger,) = figures([replace(measured(0.02), noise=(BASE, below))], margin=0.001)
    assert larger.verdict == "worse"


def test_what_moves_the_control_as_well_is_no_difference() -> None:
    """Two runs on a machine that became slower by a tenth, and one that really is."""
    base, slower = BASE, tuple(value * 1.1 for value in OTHER_BASE)
    runs = replace(measured(), base=base, patched=slower, paired=False)
    assert one(runs).verdict == "worse"
    assert one(replace(runs, noise=(BASE, slower))).verdict == "inconclusive"
    assert one(replace(runs, noise=(BASE, OTHER_BASE))).verdict == "worse"


def test_the_floor_is_part_of_the_smallest_effect() -> None:
    without, with_it = (
        one(replace(measured(), noise=(BASE, tuple(value * more for value in BASE)))).smallest
        for more in (1.0, 1.05)
    )
    assert without is not None and with_it is not None
    assert with_it > without + 0.05


def test_samples_without_rounds_are_judged_as_well() -> None:
    found = one(replace(measured(0.1), base=BASE[:5], patched=measured(0.1).patched, paired=False))
    assert found.verdict == "worse"
    few = one(replace(measured(0.1), base=BASE[:2], patched=BASE[:3], paired=False))
    assert few.reason == "5 values cannot show a difference among 1 figures"


@pytest.mark.parametrize(
    ("base", "patched", "reason"),
    [
        ((1.0, 0.0), (1.0, 1.0), "no ratio can be told"),
        ((1.0, -1.0), (1.0, 1.0), "no ratio can be told"),
        ((1.0, 1e300), (1.0, 1e-300), "no ratio can be told"),
        ((1.0,) * 101, (1.0,) * 101, "more than 100 values"),
        ((1.0,) * 9, (1.0,) * 8, "the rounds are not whole"),
        ((), (1.0,), "nothing was measured"),
    ],
)
def test_what_no_test_can_take_is_inconclusive(
    base: tuple[float, ...], patched: tuple[float, ...], reason: str
) -> None:
    found = one(replace(measured(), base=base, patched=patched))
    assert found.verdict == "inconclusive"
    assert found.reason.startswith(reason)


def test_controls_are_from_the_same_rounds() -> None:
    lacking = replace(measured(), paired=False, noise=(BASE[:5], BASE))
    assert one(lacking).reason.startswith("the rounds are not whole")
    unlike = replace(measured(), noise=(BASE[:5], BASE))
    assert one(unlike).reason.startswith("the rounds are not whole")
    fewer = replace(measured(), noise=(BASE[:7], OTHER_BASE[:7]))
    assert one(fewer).reason.startswith("the rounds are not whole")
    assert one(replace(measured(), noise=(BASE, OTHER_BASE))).verdict == "same"


def test_values_that_are_no_numbers_make_no_figure() -> None:
    with pytest.raises(ValueError, match="finite"):
        one(replace(measured(), base=(float("nan"),) * 12))


# ---- the base kernel alone ------------------------------------------------------------------


def alone(again: tuple[float, ...] = OTHER_BASE) -> Measured:
    return replace(measured(), patched=(), noise=(BASE, again))


def test_the_floor_alone_is_that_of_a_comparison_and_no_verdict() -> None:
    (found,) = floors([alone(tuple(1.05 * value for value in OTHER_BASE))])
    beside = one(replace(alone(tuple(1.05 * value for value in OTHER_BASE)), patched=BASE))
    assert found.floor == beside.floor == pytest.approx(0.05, abs=0.005)
    assert (found.verdict, found.effect, found.patched) == ("inconclusive", None, ())
    assert found.doubt == ALONE
    assert found.reason.startswith(f"{ALONE}, 5.")


def test_the_smallest_effect_is_about_that_of_a_comparison_with_the_same_noise() -> None:
    (found,) = floors([alone()])
    beside = one(replace(measured(), noise=(BASE, OTHER_BASE)))
    assert found.smallest is not None and beside.smallest is not None
    assert beside.smallest / 2 < found.smallest < 2 * beside.smallest


def test_more_figures_take_a_larger_effect_to_show_one() -> None:
    (few, *_), (many, *_) = floors([alone()]), floors([alone()] * 20)
    assert few.smallest is not None and many.smallest is not None
    assert few.smallest < many.smallest


def test_what_no_test_can_take_has_no_floor_and_says_why() -> None:
    for given, why in (
        (alone((0.0, *OTHER_BASE[1:])), "no ratio can be told"),
        (alone(OTHER_BASE[1:]), "the rounds are not whole"),
        (replace(alone(), noise=None), "nothing was measured"),
    ):
        (found,) = floors([given])
        assert found.reason.startswith(why)
        assert (found.floor, found.smallest, found.doubt) == (None, None, ALONE)
