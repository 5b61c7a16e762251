# SPDX-License-Identifier: GPL-2.0-only
"""What a run says of itself by what it was asked for."""

from __future__ import annotations

import pytest

from harness.contract_load import load as load_contract
from harness.cost.options import CostOptions
from harness.options import PLAIN_NOTE, STRESS_NOTE, Options
from harness.paths import PROJECT

FAST = load_contract(PROJECT / "series" / "lockless-aging" / "series.yaml")


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        (Options(), [PLAIN_NOTE, STRESS_NOTE]),
        (Options(debug=True), [STRESS_NOTE]),
        # That only some checks ran is a note of its own.
        (Options(pytest_args=("-m", "deep or stress")), [PLAIN_NOTE]),
        (Options(pytest_args=("-k", "page_idle"), debug=True), []),
        (Options(cost=CostOptions(only=True)), []),
    ],
)
def test_what_a_pass_leaves_open_of_a_fast_path_is_told(options: Options, notes: list[str]) -> None:
    assert options.not_looked_at(FAST) == notes
    assert options.not_looked_at(load_contract(None)) == []
