# SPDX-License-Identifier: GPL-2.0-only
"""Which CPU a host has, and what that means for the access flag at stage 2.

MIDR_EL1 is the only identification that reaches user space whole: ID_AA64MMFR1_EL1.HAFDBS is
hidden (Documentation/arch/arm64/cpu-feature-registers.rst).

Sources for the table. FEAT_HAFDBS is optional from Armv8.1 (Arm ARM, A2.2): Cortex-A57 (TRM
DDI 0488) and Cortex-A72 (TRM 100095) implement Armv8.0. Neoverse N1 (TRM 100616), V1 (TRM 101427),
N2 (TRM 102099) and V2 (TRM 102375) report ID_AA64MMFR1_EL1.HAFDBS = 2. AmpereOne reports 0 but
acts on VTCR_EL2.HA all the same, and wrongly: errata AC03_CPU_38 and AC04_CPU_10, for which
Linux keeps HA clear (arch/arm64/Kconfig, AMPERE_ERRATUM_AC03_CPU_38;
Documentation/arch/arm64/silicon-errata.rst). Part numbers: arch/arm64/include/asm/cputype.h.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from harness.observe.errors import ObserveError, shown
from harness.observe.text import whole_lines

MIDR_PATH = "/sys/devices/system/cpu/cpu{cpu}/regs/identification/midr_el1"
_MIDR = re.compile(r"0x[0-9a-f]{16}")
_LINE = re.compile(r"cpu(?P<cpu>[0-9]{1,5}) (?P<midr>.*)")


@dataclass(frozen=True)
class Model:
    """A CPU model: whether it advertises FEAT_HAFDBS, and its erratum there if it has one."""

    name: str
    hafdbs: bool
    erratum: str | None = None


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


ARM = 0x41
AMPERE = 0xC0
MODELS = {
    (ARM, 0xD07): Model("Cortex-A57", hafdbs=False),
    (ARM, 0xD08): Model("Cortex-A72", hafdbs=False),
    (ARM, 0xD0C): Model("Neoverse N1", hafdbs=True),
    (ARM, 0xD40): Model("Neoverse V1", hafdbs=True),
    (ARM, 0xD49): Model("Neoverse N2", hafdbs=True),
    (ARM, 0xD4F): Model("Neoverse V2", hafdbs=True),
    (AMPERE, 0xAC3): Model("AmpereOne AC03", hafdbs=False, erratum="AC03_CPU_38"),
    (AMPERE, 0xAC4): Model("AmpereOne AC04", hafdbs=False, erratum="AC04_CPU_10"),
}


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


# Prints "cpuN MIDR" for each CPU that is or was online. It forks nothing.
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
