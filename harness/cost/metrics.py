# SPDX-License-Identifier: GPL-2.0-only
"""From what one boot said to one number for each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from statistics import median_low

from harness.cost.fit import Line, line
from harness.cost.framing import Garbled
from harness.cost.judge import MARGIN
from harness.cost.readings import Pass, Readings

INSTRUCTIONS = "instructions"
# The passes from this one on are alike: MGLRU has its generations, swap its slots.
LATER = 2
# Kinds of passes that call KVM's notifiers of aging.
_CALLING = frozenset(("idle", "walk", "reclaim", "damon", "damon-check", "khugepaged"))


@dataclass(frozen=True)
class Metric:
    """What is measured: `unit` says what of, `floor` is the least difference that counts as one."""

    what: str
    unit: str
    floor: Fraction
    by_af: bool = False
    """It depends on who sets the access flag at stage 2."""


def _instructions(what: str, each: str) -> Metric:
    # Code that is run for each page has one instruction at least.
    return Metric(what, f"instructions per {each}, under TCG", Fraction(1))


def _calls(what: str, each: str) -> Metric:
    return Metric(what, f"calls per {each}", Fraction(1, 100))


METRICS: Mapping[str, Metric] = {
    "cost-idle": _instructions("page_idle marks a guest's pages idle", "page"),
    "cost-walk": _instructions("MGLRU's walk of a guest's pages, all young", "page"),
    "cost-access": replace(
        _instructions("a guest's touch of a page that page_idle made old", "touch"), by_af=True
    ),
    "cost-notifier": _instructions("KVM's notifier, called by page_idle", "call"),
    "cost-reclaim": _instructions("memory.reclaim of a guest's old pages, to zram", "page"),
    "cost-damon": _instructions("DAMON ages a guest's pages, all young", "page"),
    "cost-damon-check": _instructions(
        "DAMON asks whether old pages were accessed, and forgets them", "page"
    ),
    "cost-khugepaged": _instructions("khugepaged asks whether a guest's pages are young", "page"),
    "calls-idle": _calls("notifiers of aging, called by page_idle", "page"),
    "calls-walk": _calls("notifiers of aging, called by MGLRU's walk", "page"),
    "calls-reclaim": _calls("notifiers of aging, called by memory.reclaim", "page"),
    "calls-damon": _calls("notifiers of aging, called by DAMON to age", "page"),
    "calls-damon-check": _calls("notifiers of aging, called by DAMON to ask", "page"),
    "calls-khugepaged": _calls("notifiers of aging, called by khugepaged", "page"),
    "faults-access": Metric(
        "exits of a guest that touches old pages", "exits per touch", Fraction(1, 100), by_af=True
    ),
}


@dataclass(frozen=True)
class Costs:
    """One boot's: a number for each metric that it has, and the lines that they come from.

    `doubts` say of some metrics why their readings do not make a number of them. `lines` are by
    kind of pass, those of the first passes apart.
    """

    values: Mapping[str, Fraction]
    doubts: Mapping[str, str]
    lines: Mapping[str, Line]
    first: Mapping[str, Line]


def costs(readings: Readings) -> Costs:
    """The slopes of a boot; Garbled if it lacks what they take.

    Of several passes the median counts: the tick comes by in some of them. The kernel's profile
    has no line for a function that was not called, so where others were its calls are none; what a
    call costs is no number then.
    """
    if not readings.calls:
        raise Garbled("no call of a notifier was counted")
    kinds = dict.fromkeys(one.metric for one in readings.passes)
    lines = {kind: _line(readings.passes, kind, later=True) for kind in kinds}
    first = {kind: _line(readings.passes, kind, later=False) for kind in kinds}
    if not {"idle", "idle-bare"} <= kinds.keys():
        raise Garbled("page_idle, with a guest and without, was not measured")
    slopes = {f"cost-{kind}": one for kind, one in lines.items() if kind != "idle-bare"}
    for kind in kinds.keys() & _CALLING:
        slopes[f"calls-{kind}"] = _calls_line(readings, kind)
    slopes["faults-access"] = _through(
        (one.pages, one.count) for one in readings.faults if one.number == LATER
    )
    values = {name: one.slope for name, one in slopes.items()}
    sources: dict[str, tuple[Line, ...]] = {name: (one,) for name, one in slopes.items()}
    if values["calls-idle"]:
        bare = lines["idle"].slope - lines["idle-bare"].slope
        values["cost-notifier"] = bare / values["calls-idle"]
        sources["cost-notifier"] = (lines["idle"], lines["idle-bare"], slopes["calls-idle"])
    names = [name for name in METRICS if name in values]
    doubts = {name: why for name in names if (why := _doubt(sources[name]))}
    return Costs({name: values[name] for name in names}, doubts, lines, first)


def _doubt(lines: Iterable[Line]) -> str:
    """Why these lines do not say what one page more makes, "" if they do."""
    bent = next((one for one in lines if not one.fits(MARGIN)), None)
    if bent is None:
        return ""
    return (
        f"the numbers of pages do not agree: one is {float(bent.residual):.0f} of "
        f"{bent.largest} beside the line through all of them"
    )


def _line(passes: Iterable[Pass], kind: str, *, later: bool) -> Line:
    """Through the median of each size: of the later passes, or the first alone."""
    sizes: dict[int, list[tuple[int, int]]] = {}
    for one in passes:
        if one.metric == kind and (one.number >= LATER if later else one.number == 0):
            sizes.setdefault(one.pages, []).append((one.instructions, one.units))
    middles = (median_low(sorted(size)) for size in sizes.values())
    return _through((units, instructions) for instructions, units in middles)


def _calls_line(readings: Readings, kind: str) -> Line:
    hits = {one.pages: 0 for one in readings.passes if one.metric == kind}
    for one in readings.calls:
        if one.metric == kind:
            hits[one.pages] = hits.get(one.pages, 0) + one.hits
    return _through(hits.items())


def _through(points: Iterable[tuple[int, int]]) -> Line:
    try:
        return line(tuple(points))
    except ValueError as exc:
        raise Garbled(str(exc)) from None
