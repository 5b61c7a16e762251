# SPDX-License-Identifier: GPL-2.0-only
"""How often harness/figures/judge.py is wrong, on data whose effects are known.

Each figure goes the way that a measured one goes, and only what its reader sees is counted. Noise
is made for slots of time, one for each value: two slots are a round, three where the base kernel
is measured twice in it (harness/timing/rounds.py), and chance decides which of them is whose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator
from scipy.special import bdtri, bdtrik

from harness.figures.judge import figures
from harness.figures.measured import LEVEL, MARGIN, Measured, Samples
from harness.figures.shift import Array
from harness.results import Figure

VALUES = (5, 10, 20)
EFFECTS = (0.01, 0.02, 0.05, 0.1)
COVERED = 0.05
"""The effect that the intervals are looked at for."""
FAMILY = 10
REAL = 0.1
"""Half of a family has this effect, or none of it."""
SCALE = 0.01
"""The noise makes about 1 % of a value."""
BIAS = 0.03
SURE = 0.95
"""With which a rate that is too high is found."""
DOUBT = 0.001
"""The chance that a simulation finds a sound judge wrong too often, whatever it looks at."""

Design = Literal["rounds", "rounds, A/A", "two runs"]
"""Base and patched in rounds; the same with the base kernel once more in each, held against the
first; two runs compared."""
DESIGNS: tuple[Design, ...] = get_args(Design)


def _correlated(random: Generator, slots: int) -> Array:
    noise: Array = random.normal(0, SCALE, slots)
    for slot in range(1, slots):
        noise[slot] = 0.8 * noise[slot - 1] + 0.6 * noise[slot]
    return noise


NOISE: Mapping[str, Callable[[Generator, int], Array]] = {
    "normal": lambda random, slots: random.normal(0, SCALE, slots),
    "lognormal": lambda random, slots: SCALE * (random.lognormal(0, 1, slots) - 1),
    "heavy tails": lambda random, slots: SCALE * random.standard_t(2, slots),
    "outliers": lambda random, slots: (
        random.normal(0, SCALE, slots) + math.log(2) * (random.random(slots) < 0.05)
    ),
    "two states": lambda random, slots: (
        random.normal(0, SCALE / 4, slots) + 3 * SCALE * (random.random(slots) < 0.5)
    ),
    "drift": lambda random, slots: random.normal(0, SCALE, slots) + np.linspace(0, 0.1, slots),
    "autocorrelated": _correlated,
}
"""Of logarithms. Heavy tails: Student's t, 2 degrees of freedom. Outliers: one of 20 values is
doubled. Two states: half of the boots are 3 % slower. Drift: 10 % from the first slot to the last.
Autocorrelated: 0.8 from slot to slot."""

POOLED = "all of these"
"""Stands for the kind of noise where rates of all kinds are added up."""
# Rates that have a promise: three of each row, and one more of families with a bias; of those with
# a bias five in two rows, for each sign of the bias; and once more for all kinds of noise together,
# where there are several.
PROMISES = len(VALUES) * (
    3 * len(DESIGNS) * (len(NOISE) + 1) + 1 + 10 * len(NOISE) + 3 * len(DESIGNS) + 5
)


@dataclass(frozen=True)
class Rate:
    """How many trials came out so, and how many may by what is promised."""

    count: int
    trials: int
    promised: float | None = None
    """The chance of it is at most so much; None where nothing is promised."""

    @property
    def allowed(self) -> int | None:
        """How many chance explains."""
        return None if self.promised is None else allowed_of(self.trials, self.promised)

    @property
    def exceeded(self) -> bool:
        """Whether there are more than chance explains."""
        return self.allowed is not None and self.count > self.allowed


@dataclass(frozen=True)
class Row:
    """What came of one kind of measurement; the names of its rates are a table's columns."""

    design: Design
    noise: str
    values: int
    rates: Mapping[str, Rate]


@dataclass(frozen=True)
class Setting:
    """How a simulation is made; `fixed` has the base kernel first in each round."""

    trials: int
    seed: int
    fixed: bool = False

    def rate(self, came: Iterable[bool], promised: float | None = None) -> Rate:
        """Count what came, where the chance of it is promised to be at most so much."""
        return Rate(sum(came), self.trials, promised)


def allowed_of(trials: int, chance: float) -> int:
    """The most of so many trials that a chance explains, by the binomial distribution."""
    return math.ceil(float(bdtrik(1 - DOUBT / PROMISES, trials, chance)))


def found_of(trials: int, chance: float) -> float:
    """The rate that so many trials tell from that chance, SURE to be above what that explains."""
    return float(bdtri(allowed_of(trials, chance), trials, 1 - SURE))


def pooled(rows: Sequence[Row]) -> tuple[Row, ...]:
    """What is promised of all kinds of noise together, by design and number of values.

    A rate that is too high a little in each row exceeds what chance explains only here: a row alone
    has too few trials. Not of all numbers of values, since few can be wrong in nothing.
    """
    alike: dict[tuple[Design, int], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.design, row.values), []).append(row)
    return tuple(
        Row(design, POOLED, values, _added([row.rates for row in some]))
        for (design, values), some in alike.items()
        if len(some) > 1
    )


def _added(rates: Sequence[Mapping[str, Rate]]) -> Mapping[str, Rate]:
    """Those with a promise, each summed. Of unlike promises it is the weakest that all keep."""
    found: dict[str, Rate] = {}
    for name in rates[0]:
        some = [each[name] for each in rates]
        promised = [rate.promised for rate in some if rate.promised is not None]
        if len(promised) == len(some):
            found[name] = Rate(
                sum(rate.count for rate in some), sum(rate.trials for rate in some), max(promised)
            )
    return found


def alone(setting: Setting) -> Iterator[Row]:
    """One figure to a run, with each kind of noise."""
    for design, noise, values in itertools.product(DESIGNS, NOISE, VALUES):
        run = partial(_runs, setting, design, (noise,), values)
        none = run((0.0,))
        some = [one for (one,) in run((COVERED,))]
        missed = (not _holds(one, COVERED) for one in some)
        rates = {
            "false": setting.rate(map(_any_differs, none), LEVEL),
            "missed": setting.rate(missed, 1 - some[0].confidence),
            "false same": setting.rate(map(_any_same, run((MARGIN,), margin=MARGIN)), LEVEL),
            "same": setting.rate(map(_any_same, run((0.0,), margin=MARGIN))),
        }
        for effect in EFFECTS:
            rates[f"{effect:.0%}"] = setting.rate(map(_any_worse, run((effect,))))
        smallest = [one.smallest for (one,) in none if one.smallest is not None]
        if smallest:
            middle = float(np.median(smallest))
            rates["smallest"] = setting.rate(map(_any_worse, run((middle,))))
        yield Row(design, noise, values, rates)


def together(setting: Setting) -> Iterator[Row]:
    """Runs of FAMILY figures: in how many of them anything is said that is wrong.

    This is what is promised of a run. So there are as many trials of each row as of one figure with
    all kinds of noise.
    """
    setting = replace(setting, trials=setting.trials * len(NOISE))
    kinds = tuple(itertools.islice(itertools.cycle(NOISE), FAMILY))
    half = FAMILY // 2
    for design, values in itertools.product(DESIGNS, VALUES):
        run = partial(_runs, setting, design, kinds, values)
        some = run((REAL,) * half + (0.0,) * (FAMILY - half))
        same = run((MARGIN,) * FAMILY, margin=MARGIN)
        rates = {
            "false": setting.rate(map(_any_differs, run((0.0,) * FAMILY)), LEVEL),
            "false of half": setting.rate((_any_differs(each[half:]) for each in some), LEVEL),
            "false same": setting.rate(map(_any_same, same), LEVEL),
        }
        if design == "rounds, A/A":
            turned = run((_turned(BIAS),) * FAMILY, bias=BIAS)
            rates["false turned"] = setting.rate(map(_any_differs, turned), LEVEL)
        yield Row(design, "all kinds", values, rates)


def biased(setting: Setting) -> Iterator[Row]:
    """The measurement makes a difference of BIAS, which the base kernel shows as well."""
    for design, values in itertools.product(DESIGNS[1:], VALUES):
        for noise, bias in itertools.product(NOISE, (BIAS, -BIAS)):
            run = partial(_runs, setting, design, (noise,), values, bias=bias)
            # What the bias hides: together they make no difference.
            hidden = run((1 / (1 + bias) - 1,), margin=MARGIN)
            rates = {
                "false": setting.rate(map(_any_differs, run((0.0,))), LEVEL),
                "false same": setting.rate(map(_any_same, hidden), LEVEL),
            }
            if design == "rounds, A/A":
                turned = run((_turned(bias),))
                rates["false turned"] = setting.rate(map(_any_differs, turned), LEVEL)
            yield Row(design, f"{noise}, {bias:+.0%}", values, rates)


def _turned(bias: float) -> float:
    """The effect that has the measurement move the patched kernel as far as the base kernel against
    itself, but the other way."""
    return (1 + bias) ** -2 - 1


def _runs(
    setting: Setting,
    design: Design,
    kinds: Sequence[str],
    values: int,
    effects: Sequence[float],
    *,
    margin: float = 0.0,
    bias: float = 0.0,
) -> list[tuple[Figure, ...]]:
    """As many runs as there are trials, each with one figure for each kind of noise and effect.

    With a margin of 0 no difference is too small. Each has random numbers of its own, so that no
    result depends on what else is simulated.
    """
    name = f"{design} {kinds} {values} {effects} {margin} {bias}"
    random = np.random.default_rng([setting.seed, *name.encode()])
    return [
        figures(
            [
                _measured(setting, random, design, kind, values, effect, bias)
                for kind, effect in zip(kinds, effects, strict=True)
            ],
            margin=margin,
        )
        for _ in range(setting.trials)
    ]


def _measured(
    setting: Setting,
    random: Generator,
    design: Design,
    kind: str,
    values: int,
    effect: float,
    bias: float,
) -> Measured:
    def rounds(*factors: float) -> list[tuple[float, ...]]:
        """A sample of each kernel, by what it takes as a multiple of what the base kernel takes."""
        slots = NOISE[kind](random, len(factors) * values).reshape(values, len(factors))
        if not setting.fixed:
            slots = random.permuted(slots, axis=1)
        taken = 100 * np.exp(slots) * np.asarray(factors)
        return [tuple(sample) for sample in taken.T]

    changed = (1 + bias) * (1 + effect)
    noise: Samples | None = None
    if design == "rounds":
        base, patched = rounds(1.0, changed)
    elif design == "rounds, A/A":
        base, patched, again = rounds(1.0, changed, 1 + bias)
        noise = base, again
    else:
        first, base = rounds(1.0, 1.0)
        second, patched = rounds(1 + bias, changed)
        noise = first, second
    return Measured(
        metric="simulated",
        what=kind,
        unit="",
        host="none",
        kvm_mode="vhe",
        af_mode="hardware",
        base=base,
        patched=patched,
        paired=design != "two runs",
        noise=noise,
    )


def _any_differs(run: Sequence[Figure]) -> bool:
    return any(one.verdict in ("better", "worse") for one in run)


def _any_worse(run: Sequence[Figure]) -> bool:
    return any(one.verdict == "worse" for one in run)


def _any_same(run: Sequence[Figure]) -> bool:
    return any(one.verdict == "same" for one in run)


def _holds(one: Figure, effect: float) -> bool:
    return one.low is not None and one.high is not None and one.low <= effect <= one.high
