# SPDX-License-Identifier: GPL-2.0-only
"""Which CPUs a host has.

MIDR_EL1 is the only identification that reaches user space whole: ID_AA64MMFR1_EL1.HAFDBS is
hidden (Documentation/arch/arm64/cpu-feature-registers.rst).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.observe.cpu_models import MODELS, Model
from harness.observe.errors import ObserveError, shown
from harness.observe.text import whole_lines

_MIDR = re.compile(r"0x[0-9a-f]{16}")
_LINE = re.compile(r"cpu(?P<cpu>[0-9]{1,5}) (?P<midr>.*)")


@dataclass(frozen=True)
class Midr:
    """The fields of MIDR_EL1 (Arm ARM, D24.2)."""

    implementer: int
    variant: int
    architecture: int
    part: int
    revision: int

    @property
    def model(self) -> Model | None:
        """What is known of this model; None for one that the table lacks."""
        return MODELS.get((self.implementer, self.part))

    def __str__(self) -> str:
        value = self.implementer << 24 | self.variant << 20 | self.architecture << 16
        return f"{value | self.part << 4 | self.revision:#010x}"


def parse_midr(text: str, source: str = "midr_el1") -> Midr:
    """The fields of one CPU's MIDR_EL1 as sysfs shows it, 0x and 16 digits."""
    lines = whole_lines(text, source)
    if len(lines) != 1 or not _MIDR.fullmatch(lines[0]):
        raise ObserveError(source, 1, f"not a MIDR_EL1: {shown(text)}")
    midr = int(lines[0], 16)
    return Midr(
        implementer=midr >> 24 & 0xFF,
        variant=midr >> 20 & 0xF,
        architecture=midr >> 16 & 0xF,
        part=midr >> 4 & 0xFFF,
        revision=midr & 0xF,
    )


# Prints "cpuN MIDR" for each CPU that is online: one that goes offline takes its file along
# (arch/arm64/kernel/cpuinfo.c:cpuid_cpu_offline()). It forks nothing.
SCRIPT = (
    "cd /sys/devices/system/cpu\nfor c in cpu[0-9]*; do\n"
    'f="$c/regs/identification/midr_el1"\n[ -r "$f" ] || continue\n'
    'read -r v < "$f"; echo "$c $v"\ndone\n'
)


def parse(text: str, source: str = "midr_el1") -> dict[int, Midr]:
    """What SCRIPT printed: CPU number -> MIDR. ObserveError if it names no CPU."""
    found: dict[int, Midr] = {}
    for number, line in enumerate(whole_lines(text, source), 1):
        match = _LINE.fullmatch(line)
        if match is None or int(match["cpu"]) in found:
            raise ObserveError(source, number, f"not a CPU and its MIDR: {shown(line)}")
        cpu = int(match["cpu"])
        found[cpu] = parse_midr(f"{match['midr']}\n", f"{source} of cpu{cpu}")
    if not found:
        raise ObserveError(source, 0, "names no CPU")
    return found
