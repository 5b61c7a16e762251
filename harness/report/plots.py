# SPDX-License-Identifier: GPL-2.0-only
"""Plots as SVG that stands inside an HTML page: the page's colours and fonts, no outside reference.

matplotlib draws; the same numbers give the same bytes. What is drawn has no text of the run but
labels in ASCII, which matplotlib takes literally and writes escaped.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import median
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from harness.report.generations import Step

WIDTH = 400 / 72
"""Inches. A point is a CSS pixel on a phone; wider screens show plots somewhat larger."""
MAX_POINTS = 200
_MAX_LABEL = 32
# matplotlib adds and multiplies, which must not overflow.
_MAX_VALUE = 1e100
# Stand for colours of the page's style.
_COLOURS = {
    "#010101": "currentColor",
    "#020202": "var(--line)",
    "#030303": "var(--base)",
    "#040404": "var(--patched)",
    "#050505": "var(--fail)",
    "#060606": "var(--pass)",
    "#070707": "var(--skip)",
    "#080808": "var(--old)",
    "#090909": "var(--older)",
    "#0a0a0a": "var(--younger)",
    "#0b0b0b": "var(--young)",
}
_INK, _LINE, _BASE, _PATCHED, _WORSE, _BETTER, _NEITHER, *_AGES = _COLOURS
_STYLE: dict[Any, object] = {
    "axes.edgecolor": _LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.facecolor": "none",
    "font.size": 10,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "kvm-harness",
    "text.color": _INK,
    "text.parse_math": False,
    "xtick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
}
_GENERATIONS = ((4, "fourth"), (3, "third"), (2, "second"), (1, "youngest"))
_METADATA = ("Creator", "Date", "Format", "Type")
_NAMESPACE = re.compile(r"^\{[^}]*\}")
_FONTS = re.compile(r"font-family: [^;]*;? ?")
_COLOUR = re.compile("#[0-9a-f]{6}")


@dataclass(frozen=True)
class EffectRow:
    """A relative effect with its interval, where there is one."""

    label: str
    effect: float
    low: float | None
    high: float | None
    verdict: str


def plottable(values: Iterable[float]) -> tuple[float, ...]:
    """The values that a plot can have, not more than MAX_POINTS."""
    return tuple(v for v in values if isfinite(v) and abs(v) <= _MAX_VALUE)[:MAX_POINTS]


def distributions(name: str, base: Sequence[float], patched: Sequence[float]) -> Markup:
    """Each repetition as a dot, base above patched, with a line at the median of each.

    `name` tells the plots of a page apart; it is of letters and digits.
    """
    with _style():
        figure, axes = _figure(1.15)
        figure.subplots_adjust(left=0.12, right=0.96, top=0.97, bottom=0.24)
        for at, (values, colour) in enumerate(((patched, _PATCHED), (base, _BASE))):
            if not (known := plottable(values)):
                continue
            # Equal values beside one another, or ten of them would look like one.
            spread = [at + (number % 5 - 2) * 0.09 for number in range(len(known))]
            axes.scatter(known, spread, s=16, color=colour, alpha=0.75, linewidths=0)
            axes.vlines(median(known), at - 0.36, at + 0.36, color=colour, linewidth=1.5)
        axes.set_yticks((0, 1), ("patched", "base"))
        axes.set_ylim(-0.5, 1.5)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.ticklabel_format(axis="x", useOffset=False)
        return _svg(figure, name, "base and patched, each repetition a dot, medians as lines")


def effects(name: str, rows: Sequence[EffectRow]) -> Markup:
    """Relative effects with their intervals, and a line where there is none."""
    colours = {"better": _BETTER, "worse": _WORSE}
    with _style():
        figure, axes = _figure(0.6 + 0.2 * len(rows))
        figure.set_layout_engine("constrained")
        for at, row in enumerate(reversed(rows)):
            colour = colours.get(row.verdict, _NEITHER)
            low, high = (row.effect if end is None else end for end in (row.low, row.high))
            if len(plottable((low, row.effect, high))) == 3:
                axes.hlines(at, low, high, color=colour, linewidth=2)
                marks = [value for value in (row.low, row.high) if value is not None]
                axes.plot(marks, [at] * len(marks), "|", color=colour, markersize=7)
                axes.plot(row.effect, at, "o", color=colour, markersize=5)
        axes.axvline(0, color=_INK, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_yticks(range(len(rows)), [_label(row.label) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("patched against base")
        return _svg(figure, name, "effects with their intervals, patched against base")


def generations(name: str, steps: Sequence[Step]) -> Markup:
    """Pages in each generation, step by step; under the classic LRU, pages on its two lists."""
    with _style():
        figure, axes = _figure(2.6)
        figure.subplots_adjust(left=0.135, right=0.99, top=0.88, bottom=0.36)
        floor = [0.0] * len(steps)
        for label, colour, pages in _layers(steps):
            top = [under + on_top for under, on_top in zip(floor, pages, strict=True)]
            axes.stairs(top, baseline=floor, fill=True, color=colour, linewidth=0, label=label)
            floor = top
        every = 1 + len(steps) // 28
        words = [f"{_label(one.step)}  {one.uptime - steps[0].uptime:.1f} s" for one in steps]
        middles = [at + 0.5 for at in range(len(steps))]
        axes.set_xticks(middles[::every], words[::every], rotation=90, fontsize=7)
        axes.tick_params(axis="x", length=0)
        axes.margins(x=0)
        axes.set_ylabel("pages")
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=4, fontsize=8)
        return _svg(figure, name, "pages in each generation, step by step")


def _layers(steps: Sequence[Step]) -> Iterable[tuple[str, str, list[float]]]:
    """What is stacked, the oldest below: its label, its colour, its pages at each step."""
    # The classic LRU has empty ones.
    if not any(one.anon for step in steps for one in step.generations):
        yield "inactive list", _AGES[0], [float(step.inactive_anon) for step in steps]
        yield "active list", _AGES[-1], [float(step.active_anon) for step in steps]
        return
    # By age, not by number: a page that nobody touches goes through all colours.
    for colour, (age, label) in zip(_AGES, _GENERATIONS, strict=True):
        pages = [
            float(step.generations[-age].anon) if age <= len(step.generations) else 0.0
            for step in steps
        ]
        yield label, colour, pages


@contextlib.contextmanager
def _style() -> Iterator[None]:
    """Draw in this style, whatever a matplotlibrc of the user's or the working folder's says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height))
    return figure, figure.add_subplot()


def _label(text: str) -> str:
    """The text in ASCII: what a font lacks, and what a browser obeys, is spelt out."""
    plain = text.encode("ascii", "backslashreplace").decode()
    return re.sub(r"[\x00-\x1f\x7f]", "?", plain)[:_MAX_LABEL]


def _svg(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an element of an HTML page."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata=dict.fromkeys(_METADATA))
    drawn = ET.fromstring(out.getvalue())
    root = ET.Element("svg", {"class": "plot", "viewBox": drawn.attrib["viewBox"], "role": "img"})
    root.set("aria-label", title)
    for child in drawn:
        _take_over(child, root, name)
    return Markup(ET.tostring(root, encoding="unicode"))


def _take_over(drawn: ET.Element, parent: ET.Element, name: str) -> None:
    """Copy an element without namespaces, fonts and names of groups, in the page's colours.

    What others refer to gets the plot's name in front, since ids are the whole page's.
    """
    tag = _NAMESPACE.sub("", drawn.tag)
    if tag == "style":
        return
    element = ET.SubElement(parent, tag)
    for key, value in drawn.attrib.items():
        key = _NAMESPACE.sub("", key)
        if key == "id" and tag != "g":
            element.set(key, f"{name}-{value}")
        elif key == "href":
            element.set(key, f"#{name}-{value.removeprefix('#')}")
        elif key == "clip-path":
            element.set(key, value.replace("#", f"#{name}-"))
        elif key == "style":
            value = _FONTS.sub("", value)
            element.set(key, _COLOUR.sub(lambda match: _COLOURS.get(match[0], match[0]), value))
        elif key != "id":
            element.set(key, " ".join(value.split()))
    element.text = drawn.text.strip() if drawn.text else None
    for child in drawn:
        _take_over(child, element, name)
