# SPDX-License-Identifier: GPL-2.0-only
"""Figures in words."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import a_summary

from harness.figures.judge import floors
from harness.figures.measured import Measured
from harness.report.command import FORMATS, Request
from harness.report.figures import change, foremost
from harness.report.mail import mail
from harness.report.mailbody import MAX_FIGURES
from harness.report.markdown import markdown
from harness.results import Effect, Figure

Values = tuple[float, ...]


def figure(base: Values, patched: Values, spread: float | None) -> Figure:
    return Figure(
        metric="cost-idle", what="", unit="instructions", host="n1", kvm_mode="vhe",
        af_mode="hardware", base=base, patched=patched, effect=0.35, low=0.35, high=0.35,
        spread=spread, verdict="same",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("base", "patched", "words"),
    [
        ((100.0, 100.0), (135.0, 135.0), "+35.0 %, exact"),
        ((100.0, 100.0, 140.0), (135.0, 135.0, 137.0), "+35.0 %, layouts differ by 40.0 %"),
        ((100.0, 100.0), (135.0, 136.0), "+35.0 %, layouts differ by 1.0 %"),
        ((100.0,), (135.0,), "+35.0 %, one layout"),
        ((0.0, 2.0, 0.0), (1.0, 1.0, 1.0), "+35.0 %, layouts differ by 2"),
    ],
)
def test_a_count_is_exact_only_if_no_layout_differs(
    base: Values, patched: Values, words: str
) -> None:
    assert change(figure(base, patched, 1.0)) == words


def test_what_is_measured_is_never_exact() -> None:
    said = change(figure((100.0, 100.0), (135.0, 135.0), None))
    assert said == "+35.0 %, 95 % interval +35.0 % to +35.0 %"


def of(verdict: Effect, count: int) -> tuple[Figure, ...]:
    one = figure((1.0,), (1.0,), None)
    names = (f"{verdict}-{number}" for number in range(count))
    return tuple(one.model_copy(update={"metric": name, "verdict": verdict}) for name in names)


def nothing(path: str) -> None:
    """No run folder."""


def test_what_is_worse_comes_first_and_is_never_left_out() -> None:
    every = (*of("same", 2), *of("inconclusive", 1), *of("better", 1), *of("worse", 2))
    names = ["worse-0", "worse-1", "better-0", "inconclusive-0", "same-0", "same-1"]
    assert [one.metric for one in foremost(every, 6)] == names
    assert [one.metric for one in foremost(every, 3)] == names[:3]
    assert [one.metric for one in foremost(every, 1)] == names[:2]


@pytest.mark.parametrize("form", [mail, markdown])
def test_no_worse_figure_hides_in_and_more(form: Callable[..., str]) -> None:
    """However many others a run has found before it."""
    text = form(a_summary(figures=(*of("same", MAX_FIGURES), *of("worse", 1))), nothing)
    assert "worse-0" in text
    assert f"same-{MAX_FIGURES - 1}" not in text
    assert "nd 1 more figures" in text


def test_of_very_many_that_are_worse_markdown_has_those_that_fit() -> None:
    """And says how many there are, before all else."""
    text = markdown(a_summary(figures=of("worse", 1000)), nothing)
    assert "`worse-0`" in text
    assert "`worse-999`" not in text
    assert "1000 figures: 1000 worse" in text.split("###")[0]
    assert re.search(r"and \d+ more parts of this report", text)


BASE = (1.01, 0.99, 1.0, 1.02, 0.98, 1.005, 0.995, 1.015)


@pytest.mark.parametrize("form", sorted(FORMATS.keys() - {"github", "kcidb"}))
def test_the_noise_floor_of_the_base_kernel_alone_is_shown(form: str, tmp_path: Path) -> None:
    """GitHub's annotations have no figures, and KCIDB has them where it has a kernel's build."""
    measured = Measured(
        metric="time-aging-walk", what="", unit="s", host="n1", kvm_mode="vhe", af_mode="hardware",
        base=BASE, patched=(), noise=(BASE, tuple(1.05 * value for value in BASE)),
    )  # fmt: skip
    run = a_summary(series="", figures=floors([measured]))
    told = FORMATS[form](Request(run, tmp_path, "someone", None)).replace("|", "")
    text = " ".join(told.split())
    assert "5.00% is what the base kernel shows against itself" in text
    assert "base against patched" not in text


@pytest.mark.parametrize("form", ["text", "markdown", "html", "mail"])
def test_conditions_of_times_are_shown(form: str, tmp_path: Path) -> None:
    found = {"governors": "schedutil (CPU 0-3)", "max_khz": "", "idle": "none", "boost": "1"}
    figures = tuple(one.model_copy(update={"conditions": found}) for one in of("same", 2))
    told = FORMATS[form](Request(a_summary(figures=figures), tmp_path, "someone", None))
    text = " ".join(told.replace("|", "").split())
    words = "governors schedutil (CPU 0-3), max khz not the same all the time, boost 1"
    assert text.count(f"times on n1 vhe hardware AF with {words}") == 1


@pytest.mark.parametrize("form", ["text", "markdown", "html", "mail"])
def test_counts_have_no_conditions(form: str, tmp_path: Path) -> None:
    told = FORMATS[form](Request(a_summary(figures=of("same", 2)), tmp_path, "someone", None))
    assert "times on" not in told
