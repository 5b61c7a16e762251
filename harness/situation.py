# SPDX-License-Identifier: GPL-2.0-only
"""What of a cell decides about aging: the KVM mode, and who sets access flags."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import get_args

from harness.inventory import AfMode, KvmMode


@dataclass(frozen=True)
class Situation:
    """What of a cell decides about aging.

    `stage1_af` is the host's own (FEAT_HAFDBS on all CPUs and CONFIG_ARM64_HW_AFDBM: bit 0x2 of
    lru_gen/enabled); `stage2_af` that of the guests (VTCR_EL2.HA on top of it).
    """

    mode: KvmMode
    stage1_af: AfMode
    stage2_af: AfMode


def situations() -> Iterator[Situation]:
    """All that exist: stage 2 is not managed by hardware that stage 1 lacks."""
    for mode in get_args(KvmMode):
        yield Situation(mode, "hardware", "hardware")
        yield Situation(mode, "hardware", "software")
        yield Situation(mode, "software", "software")
