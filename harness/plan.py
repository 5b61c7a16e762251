# SPDX-License-Identifier: GPL-2.0-only
"""From what the user asked for to the list of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.contract import Contract
from harness.errors import UsageError
from harness.inventory import AfMode, Inventory, KvmMode, QemuHost
from harness.results import Cell, KernelLabel, Outcome


@dataclass(frozen=True)
class PlannedCell:
    """One kernel on one host in one KVM mode, to be booted once."""

    host: str
    """A host of the inventory, or a group of machines that are alike."""
    kernel: KernelLabel
    kvm_mode: KvmMode
    af_mode: AfMode
    variant: str = ""
    cmdline: tuple[str, ...] = ()
    boot: str = ""
    """Which boot it is, where the same is booted again and again (harness/timing/rounds.py)."""

    @property
    def id(self) -> str:
        """E.g. "n1-vhe-patched-sw-af": safe as a folder's name and the same in every run."""
        parts = [self.host, self.kvm_mode, self.kernel, self.variant, self.boot]
        return "-".join(part for part in parts if part)

    def record(self, outcome: Outcome = "error", reason: str = "") -> Cell:
        """The record of this cell before anything was proven in it."""
        return Cell(
            id=self.id,
            host=self.host,
            kernel=self.kernel,
            kvm_mode=self.kvm_mode,
            af_mode=self.af_mode,
            variant=self.variant,
            outcome=outcome,
            reason=reason,
        )


# VHE is what KVM chooses by itself on a CPU that has it; the others are asked for.
# Documentation/admin-guide/kernel-parameters.txt, kvm-arm.mode.
MODE_CMDLINE: dict[KvmMode, tuple[str, ...]] = {
    "vhe": (),
    "nvhe": ("kvm-arm.mode=nvhe",),
    "protected": ("kvm-arm.mode=protected",),
}


def plan(
    inventory: Inventory,
    contract: Contract | None,
    *,
    hosts: Sequence[str] = (),
    kvm_modes: Sequence[KvmMode] = (),
    base_only: bool = False,
    cmdline: Sequence[str] = (),
) -> tuple[PlannedCell, ...]:
    """Every cell of the matrix, base before patched so that a comparison comes early.

    `hosts` and `kvm_modes` narrow it; empty means all emulated hosts, and all modes. UsageError if
    nothing is left, or for one of `hosts` that is neither a host nor a group. `cmdline` are boot
    arguments of every cell. A boot variant that is about who sets the access flag is for hosts on
    which it makes a difference: not_booted() tells of the others.
    """
    cells: list[PlannedCell] = []
    for name in dict.fromkeys(hosts or _unasked(inventory)):
        host = next(iter(inventory.place(name).values()))
        for mode in host.kvm_modes:
            if kvm_modes and mode not in kvm_modes:
                continue
            asked = (*MODE_CMDLINE[mode], *cmdline, *host.cmdline)
            cells.append(PlannedCell(name, "base", mode, host.af, cmdline=asked))
            if base_only:
                continue
            cells.append(PlannedCell(name, "patched", mode, host.af, cmdline=asked))
            cells += [
                PlannedCell(
                    name,
                    "patched",
                    mode,
                    variant.stage2_af or host.af,
                    variant.name,
                    (*asked, *variant.cmdline),
                )
                for variant in (contract.variants if contract else ())
                if variant.differs_on(host.af)
            ]
    if not hosts and not _unasked(inventory):
        raise UsageError(f"no host for a cell: {'; '.join(not_used(inventory, ()))}")
    if not cells:
        raise UsageError(
            f"no host has a KVM mode of {', '.join(kvm_modes)}; "
            "`kvm-harness hosts` lists what each can do"
        )
    return tuple(cells)


def not_used(inventory: Inventory, hosts: Sequence[str]) -> tuple[str, ...]:
    """Notes on hosts that a run which was asked for no hosts by name leaves out."""
    return tuple(
        f"not used: {name} (kind {inventory.host(name).kind}: a run reboots it, so --host must "
        "name it)"
        for name in (() if hosts else left_out(inventory, ()))
    )


def not_booted(
    inventory: Inventory, contract: Contract | None, cells: Sequence[PlannedCell]
) -> tuple[str, ...]:
    """Notes on boot variants that some hosts of a plan's cells do not need."""
    names = dict.fromkeys(cell.host for cell in cells if cell.kernel == "patched")
    hosts = {name: next(iter(inventory.place(name).values())) for name in names}
    return tuple(
        f"not booted: {name} +{variant.name}, since {host.af} sets the access flag there anyway"
        for name, host in hosts.items()
        for variant in (contract.variants if contract else ())
        if not variant.differs_on(host.af)
    )


def left_out(inventory: Inventory, hosts: Sequence[str]) -> tuple[str, ...]:
    """The hosts of the inventory that a run is not for, if it is asked for these and groups."""
    asked = {name for place in hosts for name in inventory.place(place)}
    used = asked if hosts else set(_unasked(inventory))
    return tuple(name for name in inventory.hosts if name not in used)


def _unasked(inventory: Inventory) -> tuple[str, ...]:
    """The hosts that a run uses which was asked for none."""
    return tuple(name for name, host in inventory.hosts.items() if isinstance(host, QemuHost))
