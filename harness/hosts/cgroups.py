# SPDX-License-Identifier: GPL-2.0-only
"""Where a machine has the memory controller of cgroups.

Checks need it in cgroup v2 (Documentation/admin-guide/cgroup-v2.rst) at /sys/fs/cgroup. A
controller is in one hierarchy only, so systemd's "legacy" and "hybrid" layouts, which have it in
v1, leave none for v2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

PLACE = "/sys/fs/cgroup"


@dataclass(frozen=True)
class Memory:
    """What the kernel that runs shows; nothing is mounted, or has it, where all is empty."""

    v1: str = ""
    """Where it is mounted as v1."""
    v2: bool = False
    """It is to be had in v2, at PLACE."""


def memory(mounts: Sequence[str], controllers: Sequence[str]) -> Memory:
    """From the cgroup lines of /proc/mounts, and PLACE/cgroup.controllers if there is one."""
    v1 = ""
    v2 = False
    for line in mounts:
        _, place, kind, options, *_ = [*line.split(" "), "", "", "", ""]
        if kind == "cgroup" and "memory" in options.split(","):
            v1 = place
        if kind == "cgroup2" and place == PLACE:
            v2 = "memory" in " ".join(controllers).split()
    return Memory(v1, v2)


def moved(cmdline: Sequence[str]) -> bool:
    """Whether boot arguments take the memory controller from v1, whatever the machine has."""
    words = dict(word.partition("=")[::2] for word in cmdline)
    return words.get("systemd.unified_cgroup_hierarchy") in ("1", "yes", "true", "on") or not {
        "all",
        "memory",
    }.isdisjoint(words.get("cgroup_no_v1", "").split(","))
