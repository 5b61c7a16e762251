# SPDX-License-Identifier: GPL-2.0-only
"""CPU models that are known to have FEAT_HAFDBS, or to lack it, each with its source.

What is asked for is ID_AA64MMFR1_EL1.HAFDBS (Arm ARM, D24.2): 0 none, 1 the access flag, 2 dirty
state as well, from Armv8.1 on and optional there. Sources:

- TRM and number: Arm's Technical Reference Manual of the core.
- QEMU: the value in target/arm/tcg/cpu64.c, taken from the TRM there.
- FreeBSD: the value of a real machine, as decoded in its boot log ("HAF+DS").
- Kconfig: an erratum in arch/arm64/Kconfig that says so.

Part numbers: arch/arm64/include/asm/cputype.h. A model without a source is left out: it is unknown,
whatever its relatives have. Boot logs of a ThunderX2 (Linux 6.17) and of a Kunpeng 920 (Linux 5.11)
show no dirty state, which says nothing about the access flag, so they are not here either.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    """A CPU model: whether it advertises FEAT_HAFDBS, who says so, and its erratum there if any.

    One with an erratum acts on VTCR_EL2.HA although it does not advertise the feature.
    """

    name: str
    hafdbs: bool
    source: str
    erratum: str | None = None


_ARM, _FUJITSU, _AMPERE = 0x41, 0x46, 0xC0
_QEMU = "QEMU target/arm/tcg/cpu64.c"
_AMPEREONE = "Kconfig AMPERE_ERRATUM_AC03_CPU_38"

# (implementer, part number) -> model
MODELS = {
    (_ARM, 0xD03): Model("Cortex-A53", False, "FreeBSD boot log"),
    (_ARM, 0xD04): Model("Cortex-A35", False, _QEMU),
    (_ARM, 0xD05): Model("Cortex-A55", True, f"{_QEMU}, FreeBSD boot log"),
    (_ARM, 0xD07): Model("Cortex-A57", False, "TRM DDI 0488"),
    (_ARM, 0xD08): Model("Cortex-A72", False, "TRM 100095, FreeBSD boot log"),
    (_ARM, 0xD0B): Model("Cortex-A76", True, "TRM 100798 A5.5.2"),
    (_ARM, 0xD0C): Model("Neoverse N1", True, "TRM 100616"),
    (_ARM, 0xD40): Model("Neoverse V1", True, "TRM 101427"),
    (_ARM, 0xD42): Model("Cortex-A78AE", True, _QEMU),
    (_ARM, 0xD46): Model("Cortex-A510", True, "Kconfig ARM64_ERRATUM_2051678"),
    (_ARM, 0xD47): Model("Cortex-A710", True, _QEMU),
    (_ARM, 0xD49): Model("Neoverse N2", True, "TRM 102099"),
    (_ARM, 0xD4F): Model("Neoverse V2", True, "TRM 102375"),
    (_FUJITSU, 0x001): Model("A64FX", False, _QEMU),
    (_AMPERE, 0xAC3): Model("AmpereOne AC03", False, _AMPEREONE, "AC03_CPU_38"),
    (_AMPERE, 0xAC4): Model("AmpereOne AC04", False, _AMPEREONE, "AC04_CPU_10"),
}
