# SPDX-License-Identifier: GPL-2.0-only
"""The ways in which a run configures its kernels, and what a host needs to boot each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.paths import PROJECT

CONFIGS = PROJECT / "kernel-configs"


@dataclass(frozen=True)
class Flavor:
    """One configuration, from Kconfig fragments: what a later one says of a symbol holds.

    `cmdline` are the boot arguments without which a part of it stays off. Every deadline of a wait
    on such a host is `slowdown` times that of the plain kernel. `tickless` says whether it may have
    a CPU without a tick: on its way into a VHE guest, Linux 6.12 traces that interrupts go off
    (local_daif_mask() in __kvm_vcpu_run()), where RCU no longer watches on such a CPU, and with
    lockdep it warns of that.
    """

    name: str
    fragments: tuple[Path, ...]
    cmdline: tuple[str, ...] = ()
    slowdown: float = 1.0
    tickless: bool = True


def with_fragments(flavor: Flavor, more: Sequence[Path]) -> Flavor:
    """The same with more fragments, those of a machine's drivers."""
    return replace(flavor, fragments=(*flavor.fragments, *more)) if more else flavor


_PLAIN = tuple(sorted(CONFIGS.glob("*.config")))

PLAIN = Flavor("plain", _PLAIN)
DEBUG = Flavor(
    "debug",
    (*_PLAIN, *sorted((CONFIGS / "debug").glob("*.config"))),
    # KASAN is silent after its first report otherwise, which may be one that the base has as well.
    cmdline=("page_poison=1", "kasan_multi_shot"),
    # An N1 in VHE mode: 92 seconds of QEMU's CPU time for a cell, 9.5 with the plain kernel.
    slowdown=10.0,
    tickless=False,
)


def on_machine(flavor: Flavor) -> Flavor:
    """The same for a kernel that starts from a machine's own configuration.

    That brings the drivers, so the fragment for emulated ones gives way to that for machines, which
    has the last word.
    """
    kept = [path for path in flavor.fragments if path.name != "10-arm64-virt.config"]
    own = sorted((CONFIGS / "machine").glob("*.config"))
    return replace(flavor, fragments=(*kept, *own))


# Never booted, so without what only a host needs: 1,270 steps, a plain build has 1,570.
WITHOUT_KVM = Flavor(
    "without KVM",
    (
        CONFIGS / "30-aging.config",
        CONFIGS / "40-observe.config",
        *sorted((CONFIGS / "without-kvm").glob("*.config")),
    ),
)

# Never booted either, and for another architecture, so with none of the other fragments.
X86_KVM = Flavor("x86-64 with KVM", tuple(sorted((CONFIGS / "x86").glob("*.config"))))
