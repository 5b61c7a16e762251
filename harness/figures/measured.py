# SPDX-License-Identifier: GPL-2.0-only
"""What was measured, and what a judge of it promises (harness/figures/judge.py).

Apart from the judge, whose numerics take a quarter of a second to load: most commands judge none.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.inventory import AfMode, KvmMode
from harness.results import Figure

LEVEL = 0.05
"""The chance that a run calls anything better or worse that is neither; that of a wrong same."""
MARGIN = 0.02
"""Relative: what is known to differ by less is the same."""
POWER = 0.8
"""With which the smallest effect would have been shown."""
MAX_VALUES = 100
"""Of one sample; the work of the tests grows with the fourth power of it."""

Samples = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Measured:
    """One quantity on both kernels; fields that Figure has mean what they mean there."""

    metric: str
    what: str
    unit: str
    host: str
    kvm_mode: KvmMode
    af_mode: AfMode
    base: tuple[float, ...]
    patched: tuple[float, ...]
    variant: str = ""
    more_is_better: bool = False
    paired: bool = True
    """Value i of both is from round i, in which chance decided which kernel came first."""
    noise: Samples | None = None
    """Samples between which nothing but the measurement can make a difference. For a paired figure
    the base kernel against itself, in the same rounds; otherwise a control for each of `base` and
    `patched`, whose value i is from the same round."""
    evidence: tuple[str, ...] = ()


def no_result(figure: Figure, why: str) -> Figure:
    """The values stay, for whoever looks at how they were made; nothing is said of them."""
    nothing = dict.fromkeys(("effect", "low", "high", "smallest", "floor"))
    said = {"verdict": "inconclusive", "reason": why, "doubt": why}
    return figure.model_copy(update={**nothing, **said})
