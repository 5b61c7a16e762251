# SPDX-License-Identifier: GPL-2.0-only
"""What can be said of all figures of a run, and with what error (docs/figures.md says why so).

Of what varies, a difference and sameness are both claims that a test must make, each corrected over
the figures of the run (Holm 1979), so that a run makes a wrong one with a chance of LEVEL at most.
What is counted is no sample, and is judged elsewhere (harness/cost/judge.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import stdtrit

from harness.figures.measured import LEVEL, MARGIN, MAX_VALUES, POWER, Measured
from harness.figures.shift import Array, Shift, paired, unpaired
from harness.results import Effect, Figure

MAX_RATIO = 50.0
"""Of the largest value to the smallest, as a logarithm: more was not measured by anybody."""

ALONE = "no patched kernel: the noise floor alone"


@dataclass(frozen=True)
class _Tested:
    """The shift between the logarithms, and what else must lie on the same side of 0."""

    shift: Shift
    controls: tuple[Shift, ...]
    floor: float | None
    """How far the noise lies from 0, of the logarithm."""
    within_floor: bool
    """Whether the samples lie no further apart than that."""

    @property
    def differs(self) -> float:
        """The p-value of "nothing but the measurement makes the difference"."""
        if self.within_floor:
            return 1.0
        tests = (self.shift, *self.controls)
        return min(
            1.0,
            2 * min(max(test.above(0.0) for test in tests), max(test.below(0.0) for test in tests)),
        )

    def alike(self, margin: float) -> float:
        """The p-value of "apart by the margin or more" (TOST, Schuirmann 1987)."""
        low, high = math.log1p(-margin), math.log1p(margin)
        tests = (self.shift, *self.controls)
        return max(max(test.above(low), test.below(high)) for test in tests)


def figures(measured: Sequence[Measured], *, margin: float = MARGIN) -> tuple[Figure, ...]:
    """The figures of a run, in their order."""
    found = [_refused(one) or _tested(one) for one in measured]
    tested = [one for one in found if isinstance(one, _Tested)]
    # What could not be tested was meant to be: leaving it out would make the others' level depend
    # on it.
    family = len(measured)
    differs = iter(holm([one.differs for one in tested], family))
    alike = iter(holm([one.alike(margin) for one in tested], family))
    return tuple(
        _judged(one, test, next(differs), next(alike), family, margin)
        if isinstance(test, _Tested)
        else test
        for one, test in zip(measured, found, strict=True)
    )


def floors(measured: Sequence[Measured]) -> tuple[Figure, ...]:
    """The figures of a run that has the base kernel against itself alone, as the `noise` of each.

    Nothing is better or worse. How small an effect could have been shown is told as if the patched
    kernel had strayed as the base kernel's second boots did, for which these stand in.
    """
    stand_in = [replace(one, patched=one.noise[1] if one.noise else ()) for one in measured]
    return tuple(_floor(one) for one in figures(stand_in))


def _floor(judged: Figure) -> Figure:
    nothing = dict.fromkeys(("effect", "low", "high"))
    said: dict[str, object] = {"patched": (), "verdict": "inconclusive", "doubt": ALONE}
    # What no test could take has no floor, and a reason of its own.
    if judged.floor is not None:
        said["reason"] = f"{ALONE}, {judged.floor:.2%} is what the base kernel shows against itself"
    return judged.model_copy(update={**nothing, **said})


def holm(chances: Sequence[float], family: int) -> list[float]:
    """The p-values, corrected over a family of at least as many (Holm 1979)."""
    corrected = [1.0] * len(chances)
    worst = 0.0
    for done, index in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        worst = max(worst, min(1.0, chances[index] * (family - done)))
        corrected[index] = worst
    return corrected


def rounds_needed(family: int) -> int:
    """The fewest rounds whose test can show anything at all among so many figures."""
    return math.ceil(math.log2(2 * family / LEVEL))


def _refused(one: Measured) -> Figure | None:
    """What no test can take; ValueError for what JSON has no word for."""
    samples = (one.base, one.patched, *(one.noise or ()))
    values = [value for sample in samples for value in sample]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{one.metric}: a value is not a finite number")
    if not all(samples):
        return _figure(one, reason="nothing was measured")
    if any(len(sample) > MAX_VALUES for sample in samples):
        return _figure(one, reason=f"more than {MAX_VALUES} values")
    if min(values) <= 0 or math.log(max(values)) - math.log(min(values)) > MAX_RATIO:
        return _figure(one, reason="no ratio can be told: a value is not above 0, or one is absurd")
    rounds = [len(sample) for sample in (one.base, one.patched)]
    whole = one.noise is None or rounds == [len(sample) for sample in one.noise]
    if not whole or (one.paired and len(set(rounds)) > 1):
        return _figure(one, reason="the rounds are not whole: the samples differ in their number")
    return None


def _tested(one: Measured) -> _Tested:
    method = paired if one.paired else unpaired
    base, patched = _log(one.base), _log(one.patched)
    shift = method(base, patched)
    if one.noise is None:
        return _Tested(shift, (), None, False)
    first, second = map(_log, one.noise)
    floor = abs(method(first, second).estimate)
    within = abs(shift.estimate) <= floor
    if not one.paired:
        # The interval is that of the effects beside their controls: values of one run depend on
        # each other where the machine changes slowly, and the differences in a round do not.
        return _Tested(unpaired(base - first, patched - second), (shift,), floor, within)
    # What moves the base kernel against itself may move the patched one the other way, too. Then
    # both samples of a rank-sum test have the same first boots in them with opposite signs, and
    # stray against each other by 6/4 of the variance that it assumes, which weighs most far out,
    # where Holm's correction has many figures judged. The signed-rank test takes the two by round,
    # so it knows; but their sum is 0 in the middle only where noise is symmetric, and the
    # difference of the rank-sum test whatever the noise. So both must agree.
    effect, noise = patched - base, second - first
    turned = (unpaired(-noise, effect), paired(-noise, effect))
    return _Tested(shift, (unpaired(noise, effect), *turned), floor, within)


def _log(sample: Sequence[float]) -> Array:
    """Of noise that grows with the value the logarithm's is the same everywhere."""
    logarithms: Array = np.log(np.asarray(sample, dtype=float))
    return logarithms


def _judged(
    one: Measured, test: _Tested, differs: float, alike: float, family: int, margin: float
) -> Figure:
    shift = test.shift
    verdict: Effect = "inconclusive"
    if alike <= LEVEL:
        verdict = "same"
    elif differs <= LEVEL:
        verdict = "better" if (shift.estimate > 0) == one.more_is_better else "worse"
    # Few values have no interval of the usual confidence: theirs is the widest, with its own.
    usual = shift.interval(LEVEL)
    low, high = usual or (float(shift.points[0]), float(shift.points[-1]))
    return _figure(
        one,
        effect=math.expm1(shift.estimate),
        low=math.expm1(low),
        high=math.expm1(high),
        confidence=1 - LEVEL if usual else 1 - shift.least_p,
        smallest=_smallest(test, LEVEL / family),
        floor=None if test.floor is None else math.expm1(test.floor),
        verdict=verdict,
        reason=_reason(one, test, differs, alike, family, margin),
    )


def _smallest(test: _Tested, level: float) -> float | None:
    """How large an effect would have been shown with POWER, None if none would."""
    found = [_reach(shift, level) for shift in (test.shift, *test.controls)]
    sure = [reach for reach in found if reach is not None]
    return math.expm1(max(sure) + (test.floor or 0.0)) if len(sure) == len(found) else None


def _reach(shift: Shift, level: float) -> float | None:
    """How far from 0 the estimate must lie on average to be shown with POWER, None if too few.

    A shift is shown where the interval of `level` ends before 0. How far the estimate strays is
    taken from the interval of the usual level, as if that were Student's.
    """
    needed, usual = shift.interval(level), shift.interval(LEVEL)
    if needed is None or usual is None:
        return None
    error = (usual[1] - usual[0]) / 2 / stdtrit(shift.freedom, 1 - LEVEL / 2)
    reach = max(needed[1] - shift.estimate, shift.estimate - needed[0])
    return float(reach + error * stdtrit(shift.freedom, POWER))


def _reason(
    one: Measured, test: _Tested, differs: float, alike: float, family: int, margin: float
) -> str:
    among = f", corrected over {family} figures" if family > 1 else ""
    shown = differs <= LEVEL
    if alike <= LEVEL:
        words = f"less than {margin:.1%} apart, p = {alike:.2g}{among}"
        return f"{words}; a difference is shown, smaller than that" if shown else words
    if shown:
        return f"p = {differs:.2g}{among}"
    if test.shift.least_p * family > LEVEL:
        values = len(one.base) + len(one.patched)
        have = f"{len(one.base)} rounds" if one.paired else f"{values} values"
        need = f"; {rounds_needed(family)} rounds can" if one.paired else ""
        return f"{have} cannot show a difference among {family} figures{need}"
    if test.floor is not None and test.within_floor:
        return (
            f"within the noise floor: {math.expm1(test.floor):.2%} is what the base kernel shows "
            "against itself"
        )
    return (
        f"neither a difference is shown (p = {differs:.2g}{among}) nor that there is none of "
        f"{margin:.1%} (p = {alike:.2g})"
    )


def _figure(
    one: Measured,
    *,
    effect: float | None = None,
    low: float | None = None,
    high: float | None = None,
    confidence: float = 1 - LEVEL,
    smallest: float | None = None,
    floor: float | None = None,
    verdict: Effect = "inconclusive",
    reason: str,
) -> Figure:
    return Figure(
        metric=one.metric,
        what=one.what,
        unit=one.unit,
        host=one.host,
        kvm_mode=one.kvm_mode,
        af_mode=one.af_mode,
        variant=one.variant,
        more_is_better=one.more_is_better,
        base=one.base,
        patched=one.patched,
        effect=effect,
        low=low,
        high=high,
        confidence=confidence,
        smallest=smallest,
        floor=floor,
        verdict=verdict,
        reason=reason,
        evidence=one.evidence,
    )
