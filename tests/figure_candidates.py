# SPDX-License-Identifier: GPL-2.0-only
"""The tests that could judge paired rounds, against the same simulated noise (docs/figures.md).

Run by hand, `python -m tests.figure_candidates`; no part of `make test`. Prints for each the rate
of false differences at a level of 5 %, 0.5 % and 0.05 %, and how often 5 % are shown there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from scipy import stats

from harness.figures.shift import Array, paired
from harness.figures.simulate import NOISE, VALUES

LEVELS = (0.05, 0.005, 0.0005)
EFFECT = 0.05


def student(differences: Array) -> Array:
    """The paired t-test."""
    found: Array = stats.ttest_1samp(differences, 0, axis=1).pvalue
    return found


def trimmed(differences: Array) -> Array:
    """The t-test of the mean without a fifth at each end (Tukey and McLaughlin 1963, Yuen 1974)."""
    count = differences.shape[1]
    cut = count // 5
    ordered = np.sort(differences, axis=1)
    inner = ordered[:, cut : count - cut]
    winsorized = np.clip(ordered, inner[:, :1], inner[:, -1:])
    left = inner.shape[1]
    error = winsorized.std(axis=1, ddof=1) * np.sqrt((count - 1) / (left * (left - 1)))
    found: Array = 2 * stats.t.sf(np.abs(inner.mean(axis=1) / error), left - 1)
    return found


def signed_rank(differences: Array) -> Array:
    """What harness/figures/judge.py uses."""
    shifts = [paired(np.zeros(len(row)), row) for row in differences]
    return np.array([min(1.0, 2 * min(one.above(0.0), one.below(0.0))) for one in shifts])


CANDIDATES: dict[str, Callable[[Array], Array]] = {
    "Student": student,
    "trimmed": trimmed,
    "signed rank": signed_rank,
}


def main(trials: int = 5000) -> None:
    """Print a line for each number of rounds, kind of noise and candidate."""
    random = np.random.default_rng(1)
    print(f"{trials} trials; levels {LEVELS}: false differences, then {EFFECT:.0%} shown")
    for rounds in VALUES:
        for kind, noise in NOISE.items():
            slots = np.array([noise(random, 2 * rounds) for _ in range(trials)])
            pairs = random.permuted(slots.reshape(trials, rounds, 2), axis=2)
            differences = pairs[:, :, 1] - pairs[:, :, 0]
            for name, test in CANDIDATES.items():
                none, some = test(differences), test(differences + np.log1p(EFFECT))
                rates = [f"{np.mean(none <= level):7.2%}" for level in LEVELS]
                rates += [f"{np.mean(some <= level):5.0%}" for level in LEVELS]
                print(f"{rounds:2} {kind:15}{name:12}", *rates)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
