# SPDX-License-Identifier: GPL-2.0-only
"""Run the processes of several cells at once, each with a deadline, none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc, resume, splatlog
from harness.cell import CellSpec
from harness.deadline import Deadline
from harness.hosts import aside
from harness.records import append, of_cell, read, write_atomically
from harness.results import Cell, Check
from harness.spread import Batch, Spread

POLL = 0.05


@dataclass
class _Running:
    spec: CellSpec
    process: subprocess.Popen[bytes]
    deadline: Deadline
    log: Path
    records: int
    """How many the cell had already, from a machine that was lost or a run that was cut off."""


def run_cells(
    specs: Sequence[CellSpec],
    *,
    jobs: int,
    finished: Callable[[CellSpec, Cell, tuple[Check, ...]], None],
    tick: Callable[[Sequence[str]], None],
    say: Callable[[str], None],
    seen_boot_ids: frozenset[str] = frozenset(),
    pass_fds: tuple[int, ...] = (),
    others: Mapping[str, Sequence[CellSpec]] | None = None,
    has: Mapping[Batch, str] | None = None,
) -> None:
    """Run every cell as Spread orders them; a cell gets as long as its spec says.

    `others` has by a cell's id the same cell on other machines. A machine that is lost runs no
    further cell, and the one that it was lost in goes on elsewhere, unless that has happened too
    often. `has` is as Spread has it.
    `finished` gets each cell's record as it ends, `tick` the ids of those that run. Leaving early,
    by Ctrl-C say, ends every process that is still there; for a machine of the lab that takes until
    it is home, which `say` is told. `seen_boot_ids` are of boots before.
    Each cell holds the descriptors `pass_fds` for as long as it lives.
    """
    choices = [(spec, *(others or {}).get(spec.cell.id, ())) for spec in specs]
    spread = Spread(choices, jobs=jobs, has=has)
    boot_ids = set(seen_boot_ids)
    running: list[_Running] = []
    try:
        while spread.waiting or running:
            for stranded, why in spread.stranded():
                finished(stranded, *_unplaced(stranded, why))
            while (spec := spread.take([cell.spec for cell in running])) is not None:
                seen = {"seen_boot_ids": frozenset(boot_ids)}
                running.append(_start(spec.model_copy(update=seen), pass_fds))
            for cell in [c for c in running if _over(c)]:
                # Until it has ended it is among those that are told to.
                record, checks = _result(cell)
                running.remove(cell)
                boot_ids.add(record.boot_id)
                elsewhere = spread.elsewhere(cell.spec)
                if why := _loss(cell.spec, record, elsewhere):
                    spread.lose(cell.spec.machine, why)
                if record.lost and elsewhere and resume.may_go_on(cell.spec.folder):
                    _put_away(cell.spec)
                    spread.again(cell.spec.folder)
                    say(f"{record.id} goes to another machine: {record.reason}")
                else:
                    finished(cell.spec, record, checks)
            tick([cell.spec.cell.id for cell in running])
            time.sleep(POLL)
    finally:
        # All are told to end before any is waited for.
        for cell in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(cell.process.pid, signal.SIGTERM)
            if cell.spec.host.kind == "ssh":
                seconds = cell.spec.end_seconds
                say(f"bringing {cell.spec.machine} home, up to {seconds:.0f} s")
        for cell in running:
            _end(cell, say)


def _end(cell: _Running, say: Callable[[str], None]) -> None:
    """End a cell's process. Another Ctrl-C leaves no machine of the lab behind, a third one may."""
    if cell.spec.host.kind == "ssh":
        try:
            return proc.end(cell.process, grace=cell.spec.end_seconds)
        except KeyboardInterrupt:
            host = cell.spec.machine
            say(f"{host} is not home yet; Ctrl-C once more leaves it with whatever it runs")
    return proc.end(cell.process, grace=cell.spec.end_seconds)


def _loss(spec: CellSpec, record: Cell, elsewhere: bool) -> str:
    """Why no further cell runs on the machine that a cell ran on, "" if there is no reason.

    One that was not to be had just now may be for the next cell, if there is no other for that.
    """
    if spec.host.kind != "ssh":
        return ""
    if record.lost == "down" or (record.lost and elsewhere):
        return record.reason
    out = aside.find(spec.machine)
    return f"{spec.machine} was {out}" if out else ""


def _put_away(spec: CellSpec) -> None:
    """Keep what a cell that goes on elsewhere left, but for its records, in a folder of its own."""
    _, checks = resume.recorded(spec.folder)
    resume.set_aside(spec.folder, checks)


def _unplaced(spec: CellSpec, why: str) -> tuple[Cell, tuple[Check, ...]]:
    """The records of a cell that no machine is left for."""
    spec.folder.mkdir(parents=True, exist_ok=True)
    path = spec.folder / resume.RECORDS
    return _ended(path, spec.cell.record(reason=why).model_copy(update={"lost": "unavailable"}))


def _ended(path: Path, record: Cell) -> tuple[Cell, tuple[Check, ...]]:
    """What the records of a cell say with this last one, which is appended."""
    append(path, record)
    found = of_cell(path)
    assert found.cell is not None, "it was appended just now"
    return found.cell, found.checks


def _start(spec: CellSpec, pass_fds: tuple[int, ...]) -> _Running:
    # A cell that was cut off by a kill has its folder, with its records.
    spec.folder.mkdir(parents=True, exist_ok=True)
    path = spec.folder / "spec.json"
    write_atomically(path, spec)
    log = spec.folder / "checks.log"
    with log.open("wb") as out:
        process = proc.spawn(
            [sys.executable, "-m", "harness.cell", str(path)],
            env=cell_environment(),
            stdout=out,
            stderr=out,
            pass_fds=pass_fds,
        )
    before = len(read(spec.folder / resume.RECORDS))
    return _Running(spec, process, Deadline(spec.cell_seconds), log, before)


def cell_environment() -> dict[str, str]:
    """The user's, less what would make pytest select or load something unseen."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


def _over(cell: _Running) -> bool:
    return cell.process.poll() is not None or cell.deadline.expired()


def _result(cell: _Running) -> tuple[Cell, tuple[Check, ...]]:
    """The records of a cell that is over; one is written for a process that left none."""
    exited = cell.process.poll()
    proc.end(cell.process, grace=cell.spec.end_seconds)
    path = cell.spec.folder / resume.RECORDS
    found = of_cell(path)
    if found.cell is not None and any(isinstance(one, Cell) for one in read(path)[cell.records :]):
        return found.cell, found.checks
    if exited is None:
        why = f"the cell did not end within {cell.deadline.budget:.0f} s"
    else:
        why = f"the cell's process ended with {exited} and without a verdict"
    lost = cell.spec.record(reason=f"{why}; see {cell.log}")
    # What the kernel said may be why.
    splats = splatlog.records(splatlog.findings(cell.spec.folder))
    update = {"seconds": round(cell.deadline.elapsed(), 3), "splats": splats}
    return _ended(path, lost.model_copy(update=update))
