# SPDX-License-Identifier: GPL-2.0-only
"""The ways in which a run configures its kernels, and what a host needs to boot each of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.paths import PROJECT

CONFIGS = PROJECT / "kernel-configs"


@dataclass(frozen=True)
class Flavor:
    """One configuration, from Kconfig fragments: what a later one says of a symbol holds.

    `cmdline` are the boot arguments without which a part of it stays off. Every deadline of a wait
    on such a host is `slowdown` times that of the plain kernel.
    """

    name: str
    fragments: tuple[Path, ...]
    cmdline: tuple[str, ...] = ()
    slowdown: float = 1.0


_PLAIN = tuple(sorted(CONFIGS.glob("*.config")))

PLAIN = Flavor("plain", _PLAIN)
DEBUG = Flavor(
    "debug",
    (*_PLAIN, *sorted((CONFIGS / "debug").glob("*.config"))),
    cmdline=("page_poison=1",),
    slowdown=4.0,
)
# Never booted: that it links is all that it is for.
WITHOUT_KVM = Flavor("without KVM", (*_PLAIN, *sorted((CONFIGS / "without-kvm").glob("*.config"))))
