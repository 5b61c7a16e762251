# SPDX-License-Identifier: GPL-2.0-only
"""How costs are counted, where a run is asked for them."""

from __future__ import annotations

from dataclasses import dataclass

from harness.cost.layouts import DEFAULT


@dataclass(frozen=True)
class CostOptions:
    """What the command line asked for."""

    only: bool = False
    """No cells run."""
    layouts: int = DEFAULT
    repeat: int = 1
    """Boots of the reference layout, which must be alike to the last byte."""
    neutral: bool = True
    """Kernels of neutral mutants tell as well what is no difference."""
