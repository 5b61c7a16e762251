# SPDX-License-Identifier: GPL-2.0-only
"""Which guests can rely on their CPU to make entries of their tables writable."""

from __future__ import annotations

import pytest

from harness.checks.test_guest_flags import dirties
from harness.observe.cpu import parse_midr

N1, A55, KRYO = "0x00000000414fd0c1", "0x00000000412fd050", "0x00000000517f805e"


@pytest.mark.parametrize(
    ("hafdbs", "midrs", "expected"),
    [
        (2, [N1], True),
        (3, [N1], True),
        (1, [N1], False),
        (0, [N1], False),
        (2, [N1, A55], False),
        (2, [KRYO], False),
    ],
)
def test_dirty_state_needs_the_feature_and_no_broken_cpu(
    hafdbs: int, midrs: list[str], expected: bool
) -> None:
    assert dirties(hafdbs, [parse_midr(f"{midr}\n") for midr in midrs]) == expected
