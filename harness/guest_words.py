# SPDX-License-Identifier: GPL-2.0-only
"""What kvm-guest can be told, where that is one of a few words (docs/guest-protocol.md)."""

from __future__ import annotations

from typing import Literal

Backing = Literal[
    "anon",
    "thp",
    "hugetlb",
    "hugetlbshared",
    "contiguous",
    "gigantic",
    "memfd",
    "memfdthp",
    "file",
    "fileprivate",
]
Second = Literal["slot", "above", "vm"]
ManualLog = Literal["clear", "set"]
Chunk = Literal["huge", "gigantic"]
Advice = Literal[
    "dontneed",
    "free",
    "cold",
    "pageout",
    "willneed",
    "remove",
    "hugepage",
    "nohugepage",
    "dontdump",
    "collapse",
]
Churn = Literal["idle", "run", "slots", "owner", "too-large"]
Holder = Literal["vm", "vcpu", "vm-stats", "vcpu-stats"]
MoveHow = Literal["away", "leave", "uffd"]
Ager = Literal["page-idle", "walk", "eviction"]
Opponent = Literal[
    "guest",
    "unmap",
    "dontneed",
    "timed-drop",
    "two-drops",
    "pageout",
    "split",
    "dirty-log",
    "slot-delete",
    "slot-move",
    "slot-flags",
    "slot-unmap",
    "vms",
]


def access(write: bool) -> str:
    """How kvm-guest's commands call a store or a load."""
    return "write" if write else "read"
