# SPDX-License-Identifier: GPL-2.0-only
"""A plan spread over the machines that can run its cells: which cell is next, and where.

The cells of one place (a host, or a group of machines that are alike) in one KVM mode are held
against each other. So the machine that took the first of them gets the others as well, unless it
is lost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from harness import resume
from harness.cell import CellSpec
from harness.inventory import KvmMode
from harness.plan import PlannedCell
from harness.results import Cell

Batch = tuple[str, KvmMode]


class Spread:
    """The cells that have not begun, each in its order with all the machines that could run it.

    `jobs` emulated hosts at a time; a machine of the lab runs one cell at a time, beside them and
    beside all others.
    """

    def __init__(
        self,
        cells: Iterable[Sequence[CellSpec]],
        *,
        jobs: int,
        has: Mapping[Batch, str] | None = None,
    ) -> None:
        self._choices = {choices[0].folder: tuple(choices) for choices in cells}
        self.waiting = list(self._choices)
        """By their folders, since only those are different in all runs."""
        self._jobs = jobs
        self._lost: dict[str, str] = {}
        self._has = dict(has or {})

    def take(self, running: Collection[CellSpec]) -> CellSpec | None:
        """The first cell that can run beside the others, on the machine where it shall."""
        for folder in self.waiting:
            spec = self._placed(self._choices[folder], running)
            if spec is not None:
                self.waiting.remove(folder)
                self._has[batch(spec.cell)] = spec.machine
                return spec
        return None

    def lose(self, machine: str, reason: str) -> None:
        """No further cell runs on that machine."""
        self._lost.setdefault(machine, reason)

    def elsewhere(self, spec: CellSpec) -> bool:
        """Whether a machine is left for a cell beside that which `spec` has."""
        return any(
            one.machine not in self._lost and one.machine != spec.machine
            for one in self._choices[spec.folder]
        )

    def again(self, folder: Path) -> None:
        """Have a cell wait once more, before all others."""
        self.waiting.insert(0, folder)

    def stranded(self) -> tuple[tuple[CellSpec, str], ...]:
        """The cells that no machine is left for, with the reasons; they wait no longer."""
        found = []
        for folder in tuple(self.waiting):
            choices = self._choices[folder]
            why = [self._lost[spec.machine] for spec in choices if spec.machine in self._lost]
            if len(why) == len(choices):
                self.waiting.remove(folder)
                found.append((choices[0], f"no machine is left for it: {'; '.join(why)}"))
        return tuple(found)

    def _placed(
        self, choices: Sequence[CellSpec], running: Collection[CellSpec]
    ) -> CellSpec | None:
        if choices[0].host.kind == "qemu":
            emulated = sum(one.host.kind == "qemu" for one in running)
            return choices[0] if emulated < self._jobs else None
        left = [spec for spec in choices if spec.machine not in self._lost]
        its_own = [spec for spec in left if spec.machine == self._has.get(batch(spec.cell))]
        busy = {one.machine for one in running}
        return next((spec for spec in its_own or left if spec.machine not in busy), None)


def batch(cell: Cell | PlannedCell) -> Batch:
    """What a cell is held against has the same."""
    return cell.host, cell.kvm_mode


def taken(cells: Iterable[Cell]) -> dict[Batch, str]:
    """Which machine has run cells of each place and mode already, the first where many have."""
    found: dict[Batch, str] = {}
    for cell in cells:
        if cell.machine:
            found.setdefault(batch(cell), cell.machine)
    return found


def began(specs: Iterable[CellSpec]) -> dict[Batch, str]:
    """Which machine the cells of each place and mode were on when the run was cut off."""
    found: dict[Batch, str] = {}
    for spec in specs:
        booted = resume.booted_of(spec.folder)
        if booted is not None and booted.machine:
            found.setdefault(batch(spec.cell), booted.machine)
    return found


def notes(cells: Sequence[Cell]) -> tuple[str, ...]:
    """What a reader must know of a group's cells: who ran them, and what ran apart or unlike."""
    ran: dict[str, dict[str, list[Cell]]] = {}
    for cell in cells:
        if cell.machine not in ("", cell.host):
            ran.setdefault(cell.host, {}).setdefault(cell.machine, []).append(cell)
    found = []
    for group, machines in ran.items():
        shares = ", ".join(f"{name} ({len(its)})" for name, its in machines.items())
        found.append(f"cells of {group} by machine: {shares}")
        kinds = {_cpus(cell) for its in machines.values() for cell in its if cell.af_cpus}
        if len(kinds) > 1:
            found.append(f"machines of {group} have different CPUs: {', '.join(sorted(kinds))}")
    return (*found, *_apart(cells))


def _cpus(cell: Cell) -> str:
    return "+".join(sorted({cpu.midr for cpu in cell.af_cpus}))


def _apart(cells: Sequence[Cell]) -> Iterator[str]:
    bases = {batch(cell): cell for cell in cells if cell.kernel == "base"}
    for cell in cells:
        base = bases.get(batch(cell))
        if base is not None and cell.machine and base.machine not in ("", cell.machine):
            yield (
                f"{cell.id} ran on {cell.machine} and is compared with {base.id}, "
                f"which ran on {base.machine}"
            )
        if cell.earlier:
            where = f"ended on {cell.machine}" if cell.machine else "ended"
            before = "; ".join(words.splitlines()[0] for words in cell.earlier)
            yield f"{cell.id} {where} after it had begun on {before}"
