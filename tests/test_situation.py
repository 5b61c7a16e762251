# SPDX-License-Identifier: GPL-2.0-only
"""The situations that exist."""

from __future__ import annotations

from harness.situation import situations


def test_hardware_at_stage_2_only_is_no_situation() -> None:
    assert len(set(situations())) == 9
    assert all(s.stage1_af == "hardware" for s in situations() if s.stage2_af == "hardware")
