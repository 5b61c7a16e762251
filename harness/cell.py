# SPDX-License-Identifier: GPL-2.0-only
"""One cell, run in a process of its own: boot the host, prove its kernel, run the checks on it.

`python -m harness.cell SPEC.json`. A process for each cell keeps a crash of one from the others,
lets several run at once, and takes its QEMU with it when it dies.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType

import pytest
from pydantic import BaseModel, ConfigDict

from harness import splatlog
from harness.checks.af_mode import record
from harness.checks.plugin import PYTEST_ARGS, CellPlugin
from harness.errors import (
    EXIT_INTERRUPTED,
    DeadlineExceeded,
    HarnessError,
    HostDied,
    HostLost,
    InfraError,
)
from harness.hosts import opening, proof
from harness.hosts.image import HostImage
from harness.hosts.preflight import quiet, require_af, require_cpus, require_vmm
from harness.hosts.protocols import Boot, BootedHost, Shell
from harness.hosts.recorder import Journal, RecordedShell
from harness.hosts.ssh import PUT_SECONDS
from harness.inventory import Host
from harness.observe import af, collect
from harness.plan import PlannedCell
from harness.records import append, write_atomically
from harness.replay import own_collection
from harness.results import Cell, CpuAf, Outcome, af_seen
from harness.selftests.build import Selftests

# What the host showed of its CPUs and of who manages the access flag there.
CPUS = "cpus.txt"
BOOTED = "booted.json"


class Booted(BaseModel):
    """booted.json: what a boot has proven, on disk before the first check begins."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    build_id: str
    boot_id: str
    kvm_line: str
    boot_seconds: float
    cmdline: str = ""
    machine: str = ""
    af_cpus: tuple[CpuAf, ...] = ()
    vmm: str = ""


class KernelFiles(BaseModel):
    """What a cell needs to know of a kernel that was built."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: Path
    vmlinux: Path
    build_id: str
    config_sha256: str
    modules: Path | None = None
    """The archive of its modules, of a kernel for a machine with a configuration of its own."""
    release: str = ""


class CellSpec(BaseModel):
    """All that a cell's process is told, in SPEC.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    run_folder: Path
    folder: Path
    cell: PlannedCell
    machine: str
    """The name of `host` in the inventory."""
    host: Host
    kernel: KernelFiles
    image: HostImage | None
    """The user space of an emulated host."""
    programs: dict[str, Path]
    contract: Path | None
    becomes: Path | None = None
    """The contract of the series that this kernel has the first patches of: what either promises
    will do."""
    base_contract: Path
    selftests: tuple[Selftests, ...] = ()
    """The kernel's own selftests, if they were asked for: the base tree's, and after them those of
    the patched tree where it has others, on the base kernel too if they are there to be timed."""
    linux_guest: bool = False
    """Whether checks with a Linux guest run, for which the host must have QEMU."""
    seed: int
    seen_boot_ids: frozenset[str] = frozenset()
    """Of the boots that this run has seen before; the scheduler fills them in."""
    pytest_args: tuple[str, ...]
    debug: bool = False
    """The kernel is a debug kernel (harness/kernel/flavor.py)."""
    tickless: bool = True
    """Whether the host has a CPU without a tick."""
    slowdown: float = 1.0
    """Factor of every deadline of a wait on this host; those below have it in them."""
    wait_seconds: int = 0
    """For a machine that another has."""
    boot_seconds: float
    check_seconds: float
    cell_seconds: float
    end_seconds: float
    """For a cell that is told to end early: to get its host into a state to be left in."""

    @property
    def emulated(self) -> bool:
        """Whether QEMU on this machine makes the host: a failure may be the emulator's then.

        No check of ours asks for it, but those that judge what is not ours: the kernel's selftests,
        and a guest's kernel. On a machine of the lab, whatever emulates it, none is excused.
        """
        return self.host.kind == "qemu"

    def record(self, outcome: Outcome = "error", reason: str = "") -> Cell:
        """The record of this cell on this machine before anything was proven in it."""
        return self.cell.record(outcome, reason).model_copy(update={"machine": self.machine})


def run_cell(spec: CellSpec) -> Cell:
    """Run the cell to its end and return its record; whatever goes wrong is in the record."""
    started = time.monotonic()
    # Filled in as it becomes known, so that what was proven before a panic is kept.
    facts: dict[str, object] = {}
    try:
        _boot_and_check(spec, facts)
    except HostDied as exc:
        facts |= {"outcome": "error", "death": exc.kind, "reason": str(exc)}
    except HostLost as exc:
        how = "was lost" if exc.kind == "down" else "was not to be had"
        reason = f"{spec.machine} {how}: {exc}"
        facts |= {"outcome": "error", "reason": reason, "lost": exc.kind}
    except HarnessError as exc:
        facts |= {"outcome": "error", "reason": str(exc)}
    # The host is gone by now, so this is all that it said, its death among it.
    facts["splats"] = splatlog.records(splatlog.findings(spec.folder))
    facts["seconds"] = round(time.monotonic() - started, 3)
    return spec.record().model_copy(update=facts)


def _boot_and_check(spec: CellSpec, facts: dict[str, object]) -> None:
    boot = Boot(
        kernel=spec.kernel.image,
        cmdline=spec.cell.cmdline,
        programs=spec.programs,
        folder=spec.folder,
        run=spec.run_folder.name,
        longest=max(spec.check_seconds, PUT_SECONDS * spec.slowdown),
        wait=spec.wait_seconds,
        seconds=spec.boot_seconds,
        slowdown=spec.slowdown,
        tickless=spec.tickless,
        modules=spec.kernel.modules,
        release=spec.kernel.release,
    )
    with (
        opening.booted(spec.machine, spec.host, spec.image, boot) as host,
        contextlib.closing(Journal(spec.folder / "commands.jsonl")) as journal,
    ):
        facts["boot_seconds"] = host.boot_seconds
        try:
            shell = RecordedShell(host.shell, journal, own_collection)
            booted = _prove(spec, shell, host.boot_seconds)
            _know(spec, facts, booted)
            _prepare_and_check(spec, facts, booted, shell, host)
        except DeadlineExceeded as exc:
            # It had answered before: a kernel that stops to do so has hung.
            raise host.console.hung(str(exc)) from exc


def _prove(spec: CellSpec, shell: RecordedShell, boot_seconds: float) -> Booted:
    shown = proof.prove(
        shell,
        proof.Expected(spec.kernel.build_id, spec.kernel.config_sha256),
        spec.cell.kvm_mode,
        set(spec.seen_boot_ids),
    )
    return Booted(
        build_id=shown.build_id,
        boot_id=shown.boot_id,
        kvm_line=shown.kvm_line,
        cmdline=shown.cmdline,
        boot_seconds=boot_seconds,
        machine=spec.machine,
    )


def _know(spec: CellSpec, facts: dict[str, object], booted: Booted) -> None:
    """Have what was proven in the cell's record, also if that is made up after a kill."""
    facts |= dict(booted)
    write_atomically(spec.folder / BOOTED, booted)


def _prepare_and_check(
    spec: CellSpec,
    facts: dict[str, object],
    booted: Booted,
    shell: RecordedShell,
    host: BootedHost,
) -> None:
    expected = _expected_af(spec, shell)
    booted = booted.model_copy(update={"af_cpus": tuple(record(kind) for kind in expected)})
    _know(spec, facts, booted)
    require_cpus(spec.host, expected)
    if spec.cell.kernel == "base":
        require_af(spec.host, expected, shell)
    if spec.linux_guest:
        _know(spec, facts, booted.model_copy(update={"vmm": require_vmm(shell)}))
    with quiet(shell):
        plugin = CellPlugin(spec, shell, host.console, host.shell, expected, shell.mark)
        _check(spec, facts, plugin)
        shell.mark("")


def _expected_af(spec: CellSpec, shell: Shell) -> tuple[af.Expected, ...]:
    """Who must set guests' access flag on each kind of CPU; what tells it is kept as cpus.txt."""
    seen = collect.af_witnesses(shell)
    (spec.folder / CPUS).write_text(seen.raw)
    cell = spec.cell
    if cell.kernel == "patched":
        # What a series did to the kernel's word on its CPUs must not pass for what they can do.
        seen = replace(seen, dirty=frozenset())
    cleared = cell.variant if (spec.host.af, cell.af_mode) == ("hardware", "software") else ""
    return af.expect(seen, inventory=spec.host.af, mode=cell.kvm_mode, cleared_by=cleared)


def _check(spec: CellSpec, facts: dict[str, object], plugin: CellPlugin) -> None:
    """Run pytest over the checks; the plugin records each of them."""
    args = [*PYTEST_ARGS, "--rootdir", str(spec.folder), *spec.pytest_args]
    status = pytest.main(args, plugins=[plugin])
    facts |= af_seen(plugin.checks)
    if plugin.death is not None:
        raise plugin.death
    if status == pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise InfraError(f"pytest ended with {status!r}; see {spec.folder / 'checks.log'}")
    facts["outcome"] = "pass"


def _end(signum: int, frame: FrameType | None) -> None:
    """Leave by way of every `finally`, so that QEMU and its files go too.

    pytest lets a KeyboardInterrupt through; a SystemExit would become the outcome of a check.
    """
    signal.signal(signum, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> None:
    """Run the cell that SPEC.json describes and append its record when it is over."""
    signal.signal(signal.SIGTERM, _end)
    spec = CellSpec.model_validate_json(Path(sys.argv[1]).read_text())
    try:
        append(spec.folder / "records.jsonl", run_cell(spec))
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
