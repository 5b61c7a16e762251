# SPDX-License-Identifier: GPL-2.0-only
"""Records of runs that never were, for tests: what a test does not care about is here."""

from __future__ import annotations

from typing import Any

from harness.results import Cell, Check, Summary


def a_cell(kernel: str = "patched", **fields: Any) -> Cell:
    """A cell on n1 in VHE mode that passed."""
    given = {"host": "n1", "kernel": kernel, "kvm_mode": "vhe", "af_mode": "hardware"}
    return Cell.model_validate({"id": f"n1-vhe-{kernel}", "outcome": "pass", **given, **fields})


def a_check(name: str = "test_x", **fields: Any) -> Check:
    """A check of the patched one that passed."""
    given = {"cell": "n1-vhe-patched", "outcome": "pass", "expected": "old", "observed": "young"}
    return Check.model_validate({**given, "name": name, **fields})


def a_summary(**fields: Any) -> Summary:
    """A run on an emulated host that passed, with nothing in it."""
    given = {"schema": 1, "harness": "0", "verdict": "pass", "series": "s", "seed": 1}
    made = {"started": "2026-11-22T19:35:50+00:00", "seconds": 12.5, "emulated": True}
    return Summary.model_validate({**given, **made, **fields})
