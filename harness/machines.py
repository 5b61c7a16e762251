# SPDX-License-Identifier: GPL-2.0-only
"""The machines that a run may use: looked at before anything is built, and those that it lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import pins
from harness.hosts.builder import builder_on
from harness.hosts.examine import examine
from harness.hosts.fitness import lacking
from harness.hosts.leasing import waited
from harness.hosts.machine import Machine
from harness.hosts.own_config import own_config
from harness.hosts.probe import Survey
from harness.hosts.revive import revive
from harness.inventory import Inventory, QemuHost, SshHost
from harness.kernel.bench import Builder
from harness.kernel.machine import MachineConfig, keep, kept
from harness.observe.cpu import Midr
from harness.plan import PlannedCell
from harness.printable import printable
from harness.progress import Progress
from harness.ranges import format_ranges
from harness.records import write_text_atomically
from harness.results import Host

# Of a run's folder: what machines said that a run goes on with.
FOLDER = "machines"


def _emulated(name: str, host: QemuHost) -> Host:
    return Host(name=name, cpu=host.cpu, cpus=host.cpus, memory_mib=host.memory_mib)


def _record(name: str, seen: Survey) -> Host | None:
    """What a machine of the lab said that it is; None if that was not all."""
    if not seen.cpus or seen.memory_mib is None:
        return None
    kinds: dict[Midr, list[int]] = {}
    for number, midr in sorted(seen.cpus.items()):
        kinds.setdefault(midr, []).append(number)
    words = (
        f"{f'{midr.model.name} ' if midr.model else ''}{midr} (CPU {format_ranges(numbers)})"
        for midr, numbers in kinds.items()
    )
    return Host(name=name, cpu=", ".join(words), cpus=len(seen.cpus), memory_mib=seen.memory_mib)


def _kept_emulator(folder: Path, name: str) -> str:
    """What Machines.keep() has written there, "" if it has not."""
    try:
        return (folder / FOLDER / f"{name}.emulator").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


class Machines:
    """What one run knows of the hosts in an inventory.

    `asked` are the places that the user named, hosts and groups; `run` is what a lease says; `wait`
    is for how many seconds to queue for a machine that is another's; `note` takes words for the
    report.
    """

    def __init__(
        self,
        stock: Inventory,
        asked: Sequence[str],
        run: str,
        wait: float,
        progress: Progress,
        note: Callable[[str], None],
    ) -> None:
        self._stock = stock
        self._asked = asked
        self._run = run
        self._wait = wait
        self._progress = progress
        self._note = note
        self._lost: dict[str, str] = {}
        self._seen: dict[str, Host] = {}
        self.own: dict[str, MachineConfig] = {}
        """Of each machine with `config: machine`, what its kernels start from."""
        self.emulators: dict[str, str] = {}
        """What emulates a machine of the lab, by the names of those that say so."""

    def look(self, folder: Path) -> None:
        """Look at the machines of the lab that were asked for, and read their configurations.

        What is in the run's `folder` already is not read again. InfraError names all that a machine
        lacks where it is needed: it is of no group, or none of its group is fit.
        """
        for place in self._asked:
            for name, host in self._stock.place(place).items():
                if not isinstance(host, SshHost):
                    continue
                try:
                    self._look_at(name, host, folder)
                except InfraError as exc:
                    self.do_without(name, exc)

    def do_without(self, name: str, trouble: InfraError) -> None:
        """Go on without a machine; raises its trouble where no other can run its cells."""
        self._lost[name] = f"{name}: {trouble}"
        places = (self._stock.place(place).keys() for place in self._asked)
        if any(name in machines and self._lost.keys() >= machines for machines in places):
            raise trouble
        self._progress.say(self._lost[name])
        self._note(f"not used: {self._lost[name]}")

    def of(self, cells: Iterable[PlannedCell]) -> dict[str, QemuHost | SshHost]:
        """All hosts that these cells may run on, by their names."""
        return {name: host for name, host in self._places(cells).items() if name not in self._lost}

    def _places(self, cells: Iterable[PlannedCell]) -> dict[str, QemuHost | SshHost]:
        """These, with those machines that were lost."""
        places = dict.fromkeys(cell.host for cell in cells)
        return {name: host for place in places for name, host in self._stock.place(place).items()}

    def emulators_of(self, cells: Iterable[PlannedCell]) -> tuple[str, ...]:
        """What emulates machines of the lab on which these cells may run, or have run."""
        return tuple(
            words for name in self._places(cells) if (words := self.emulators.get(name, ""))
        )

    def records(self, cells: Iterable[PlannedCell]) -> tuple[Host, ...]:
        """What is known of the hosts that these cells may run on.

        A machine of the lab that did not tell is left out: a part of it would pass for the whole.
        """
        known = {
            name: _emulated(name, host) if isinstance(host, QemuHost) else self._seen.get(name)
            for name, host in self.of(cells).items()
        }
        return tuple(host for host in known.values() if host is not None)

    def keep(self, folder: Path) -> None:
        """Keep what was read of machines in the run's folder, for the case that it is resumed."""
        for name, found in self.own.items():
            keep(found, folder / FOLDER, name)
        for name, words in self.emulators.items():
            (folder / FOLDER).mkdir(exist_ok=True)
            write_text_atomically(folder / FOLDER / f"{name}.emulator", f"{words}\n")

    def builder(self, name: str) -> AbstractContextManager[Builder | None]:
        """The machine of that name, to build on; "" is for this one."""
        if not name:
            return nullcontext()
        return builder_on(name, self._stock.ssh(name), self._run, self._wait, self._told(name))

    def _look_at(self, name: str, host: SshHost, folder: Path) -> None:
        # It may be lost by now, or be in a test kernel of this run that shows less than its own.
        if before := _kept_emulator(folder, name):
            self.emulators[name] = before
        with self._progress.stage(f"looking at {name}"):
            known = pins.load(pins.pins_path())
            revive(Machine(name, host, known, self._told(name)), self._run)
            found = waited(partial(examine, name, host), Deadline(self._wait))
        for one in found.findings:
            self._progress.say(f"{name}: {one}")
        if missing := lacking(found.findings):
            words = "\n".join(f"{one.what}: {one.words}" for one in missing)
            raise InfraError(f"host {name!r} is not fit for test kernels:\n{words}")
        if (record := _record(name, found.seen)) is not None:
            self._seen[name] = record
        if found.seen.emulator:
            self.emulators.setdefault(name, found.seen.emulator)
        if host.config == "machine":
            self.own[name] = self._configuration(name, host, folder)

    def _configuration(self, name: str, host: SshHost, folder: Path) -> MachineConfig:
        """What kernels for a machine start from: read once for a run and all that belongs to it."""
        if (found := kept(folder / FOLDER, name)) is not None:
            return found
        with self._progress.stage(f"configuration of {name}"):
            return own_config(name, host, self._run, self._wait, self._told(name))

    def _told(self, name: str) -> Callable[[str], None]:
        """Shows what is done to a machine."""
        return lambda words: self._progress.say(f"{name}: {printable(words)}")
