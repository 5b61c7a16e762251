# SPDX-License-Identifier: GPL-2.0-only
"""Figures in words."""

from __future__ import annotations

import pytest

from harness.report.figures import change
from harness.results import Figure

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
