# SPDX-License-Identifier: GPL-2.0-only
"""Which hosts of a run share their kernels: those that these are made for in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.inventory import QemuHost, SshHost
from harness.kernel.built import Kernel
from harness.kernel.flavor import Flavor, on_machine, with_fragments
from harness.kernel.machine import MachineConfig
from harness.results import KernelLabel


@dataclass(frozen=True)
class Recipe:
    """How the kernels of some hosts are made, with a series and without."""

    hosts: tuple[str, ...]
    flavor: Flavor
    machine: MachineConfig | None = None
    """The configuration that they start from, None for allnoconfig."""
    builder: str = ""
    """The machine that builds them, "" for the controller."""


@dataclass(frozen=True)
class Kernels:
    """The kernels that were made by one recipe."""

    recipe: Recipe
    of: dict[KernelLabel, Kernel]


def recipes(
    hosts: Mapping[str, QemuHost | SshHost], flavor: Flavor, own: Mapping[str, MachineConfig]
) -> tuple[Recipe, ...]:
    """One recipe for all hosts that can share it, in the order of their first hosts.

    `own` has what was read of each machine with `config: machine`.
    """
    found: dict[tuple[Flavor, MachineConfig | None, str], list[str]] = {}
    for name, host in hosts.items():
        found.setdefault(_of(name, host, flavor, own), []).append(name)
    return tuple(Recipe(tuple(names), *how) for how, names in found.items())


def _of(
    name: str, host: QemuHost | SshHost, flavor: Flavor, own: Mapping[str, MachineConfig]
) -> tuple[Flavor, MachineConfig | None, str]:
    if not isinstance(host, SshHost):
        return flavor, None, ""
    more = with_fragments(flavor, [path.expanduser() for path in host.fragments])
    if host.config != "machine":
        return more, None, ""
    return on_machine(more), own[name], name if host.build == "on-host" else ""


def whose(recipe: Recipe, several: bool) -> str:
    """What tells kernels apart that have one label."""
    return f" of {' '.join(recipe.hosts)}" if several else ""
