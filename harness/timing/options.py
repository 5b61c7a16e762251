# SPDX-License-Identifier: GPL-2.0-only
"""How time is measured, where a run is asked for it."""

from __future__ import annotations

from dataclasses import dataclass

from harness.figures.measured import MAX_VALUES

DEFAULT = 10
ENOUGH = 6
"""Rounds below which no test can show anything (docs/figures.md)."""
MOST = MAX_VALUES


@dataclass(frozen=True)
class TimingOptions:
    """What the command line asked for."""

    rounds: int = DEFAULT
    aa: bool = True
    """Whether the base kernel is booted a second time in each round, for the noise floor."""
