# SPDX-License-Identifier: GPL-2.0-only
"""In which group each variant of a check is, where not all are in the same."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import pytest


def grouped(variants: Iterable[object], *, stress: Collection[object]) -> list[object]:
    """Values to parametrize a check by, one or a tuple for each variant, with their marks.

    `-m deep` is to end while one waits for it, in all cells of the matrix. So in `stress` stands
    what one of `deep` shows in another way, and no mutant of ours needs.
    """
    return [
        pytest.param(
            *(one if isinstance(one, tuple) else (one,)),
            marks=pytest.mark.stress if one in stress else pytest.mark.deep,
        )
        for one in variants
    ]
