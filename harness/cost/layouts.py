# SPDX-License-Identifier: GPL-2.0-only
"""Boots of one kernel that differ in nothing that a cost may depend on.

Where things lie in memory, in which order they are measured, and when the tick comes is chance: it
differs from kernel to kernel as soon as one of them has a line more.
"""

from __future__ import annotations

from dataclasses import dataclass

# Numbers of tested pages. Many are slow, and few leave the tick too much weight.
SIZES = (128, 256, 512, 1024)


@dataclass(frozen=True)
class Layout:
    """`ballast` are pages that are taken before anything is measured, `padding` is in bytes."""

    name: str
    memory_mib: int = 2048
    padding: int = 0
    ballast: int = 0
    down: bool = False
    """The largest size first, and the metrics in reverse order."""

    @property
    def cmdline(self) -> tuple[str, ...]:
        """What the program is told; it has no other arguments (guests/cost/init.c)."""
        words = [f"kvm_cost.sizes={','.join(map(str, SIZES))}"]
        words += [f"kvm_cost.ballast={self.ballast}"] if self.ballast else []
        words += ["kvm_cost.order=down"] if self.down else []
        return tuple(words)


LAYOUTS = (
    Layout("reference"),
    Layout("down", memory_mib=1536, padding=5_000_000, ballast=3000, down=True),
    Layout("ballast", memory_mib=1792, padding=1_234_567, ballast=777),
    Layout("more", memory_mib=2560, padding=77_777, down=True),
)
DEFAULT = 3
"""How many of them are booted unless it is said."""
