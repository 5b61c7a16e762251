# SPDX-License-Identifier: GPL-2.0-only
"""On what a run was done, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from harness.inventory import KvmMode
from harness.printable import plain_name
from harness.report.matrix import matrix
from harness.results import Cell, CpuAf, Figure, Kernel, KernelLabel, Summary

# RFC 5322's dot-atoms, which is what mail programs make, and no longer than a line may be.
_ATOMS = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,200}"
_MESSAGE_ID = re.compile(f"{_ATOMS}@{_ATOMS}")
ORIGIN = "kvm_harness"
"""Who reports, as KCIDB knows them."""
UNFINISHED = "The run has not come to its end"


def cpus(run: Summary) -> Mapping[str, tuple[str, ...]]:
    """The kinds of CPU of each host of cells and figures, by its name.

    Where no cell got as far as to tell, or none was made as for costs alone, what the run knew of
    the host before; of a group, of those of its machines that its cells ran on. None where that is
    not known either.
    """
    found: dict[str, dict[str, None]] = {name: {} for name in kvm_modes(run)}
    for cell in run.cells:
        found[cell.host].update(dict.fromkeys(cpu(kind) for kind in cell.af_cpus))
    known = {host.name: f"CPU model {host.cpu}" for host in run.hosts if host.cpu}
    return {
        host: tuple(kinds) or tuple(dict.fromkeys(known[one] for one in _ran(run, host, known)))
        for host, kinds in found.items()
    }


def _ran(run: Summary, host: str, known: Iterable[str]) -> Iterator[str]:
    """Those of these machines that stand for a host: itself, or what its cells ran on."""
    machines = (host, *(cell.machine for cell in run.cells if cell.host == host))
    yield from (name for name in known if name in machines)


def kvm_modes(run: Summary) -> Mapping[str, tuple[KvmMode, ...]]:
    """The modes of KVM in which each host has cells or figures."""
    found: dict[str, dict[KvmMode, None]] = {}
    every: tuple[Cell | Figure, ...] = (*run.cells, *run.figures)
    for one in every:
        found.setdefault(one.host, {})[one.kvm_mode] = None
    return {host: tuple(modes) for host, modes in found.items()}


def cpu(kind: CpuAf) -> str:
    """One kind of CPU: "Neoverse N1, MIDR_EL1 0x414fd0c1, CPUs 0-3"."""
    return f"{kind.model or 'unknown CPU'}, MIDR_EL1 {kind.midr}, CPUs {kind.cpus}"


def message_id(run: Summary) -> str:
    """That of the series, without <>; "" if there is none, or none that a header could hold."""
    return run.message_id if _MESSAGE_ID.fullmatch(run.message_id) else ""


def kernel_of(run: Summary, label: KernelLabel, host: str = "") -> Kernel | None:
    """The kernel that a machine boots, "" for any; None if it was not built."""
    return next(
        (
            kernel
            for kernel in run.kernels
            if kernel.label == label and (not host or not kernel.hosts or host in kernel.hosts)
        ),
        None,
    )


def fast_path(run: Summary) -> str:
    """In which cells the series' fast path was entered and in which not; "" if no check tells."""
    entered = {check.cell for check in run.checks if check.fast_path}
    closed = {check.cell for check in run.checks if check.fast_path is False} - entered
    shown = matrix(run).cells
    parts = {
        word: ", ".join(plain_name(cell.id) for cell in shown if cell.id in ids)
        for word, ids in (("entered in", entered), ("not seen in", closed))
    }
    return "; ".join(f"{word} {cells}" for word, cells in parts.items() if cells)


def notes(run: Summary) -> tuple[str, ...]:
    """What a reader must know, less what the lines on the hosts say already, if there are any."""
    told = f"hosts are emulated by {run.emulator}" if run.emulated and cpus(run) else None
    return tuple(note for note in run.notes if note != told)
