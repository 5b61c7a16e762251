# SPDX-License-Identifier: GPL-2.0-only
"""Who is in a race with the writer whose time is taken."""

from __future__ import annotations

import pytest

from harness.timing.test_timing import around_writer


@pytest.mark.parametrize(
    ("cpus", "vcpus", "agers"), [(1, 3, 1), (2, 3, 1), (3, 4, 2), (4, 4, 2), (128, 4, 2)]
)
def test_each_ager_has_a_cpu_without_the_writer(cpus: int, vcpus: int, agers: int) -> None:
    those = around_writer(cpus)
    assert (those.vcpus, those.agers) == (vcpus, agers)
