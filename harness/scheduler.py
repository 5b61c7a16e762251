# SPDX-License-Identifier: GPL-2.0-only
"""Run the processes of several cells at once, each with a deadline, none left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc, splatlog
from harness.cell import CellSpec
from harness.deadline import Deadline
from harness.records import append, read, write_atomically
from harness.results import Cell, Check

POLL = 0.05


@dataclass
class _Running:
    spec: CellSpec
    process: subprocess.Popen[bytes]
    deadline: Deadline
    log: Path


def run_cells(
    specs: Sequence[CellSpec],
    *,
    jobs: int,
    finished: Callable[[CellSpec, Cell, tuple[Check, ...]], None],
    tick: Callable[[Sequence[str]], None],
    say: Callable[[str], None],
    seen_boot_ids: frozenset[str] = frozenset(),
    pass_fds: tuple[int, ...] = (),
) -> None:
    """Run every cell, `jobs` at a time and in order; a cell gets as long as its spec says.

    `finished` gets each cell's record as it ends, `tick` the ids of those that run. Leaving early,
    by Ctrl-C say, ends every process that is still there; for a machine of the lab that takes until
    it is home, which `say` is told. `seen_boot_ids` are of boots before.
    Each cell holds the descriptors `pass_fds` for as long as it lives.
    """
    waiting = list(specs)
    boot_ids = set(seen_boot_ids)
    running: list[_Running] = []
    try:
        while waiting or running:
            while len(running) < jobs and (spec := _next(waiting, running)) is not None:
                waiting.remove(spec)
                seen = {"seen_boot_ids": frozenset(boot_ids)}
                running.append(_start(spec.model_copy(update=seen), pass_fds))
            for cell in [c for c in running if _over(c)]:
                # Until it has ended it is among those that are told to.
                record, checks = _result(cell)
                running.remove(cell)
                boot_ids.add(record.boot_id)
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
                say(f"bringing {cell.spec.cell.host} home, up to {seconds:.0f} s")
        for cell in running:
            _end(cell, say)


def _end(cell: _Running, say: Callable[[str], None]) -> None:
    """End a cell's process. Another Ctrl-C leaves no machine of the lab behind, a third one may."""
    if cell.spec.host.kind == "ssh":
        try:
            return proc.end(cell.process, grace=cell.spec.end_seconds)
        except KeyboardInterrupt:
            host = cell.spec.cell.host
            say(f"{host} is not home yet; Ctrl-C once more leaves it with whatever it runs")
    return proc.end(cell.process, grace=cell.spec.end_seconds)


def _next(waiting: Sequence[CellSpec], running: Sequence[_Running]) -> CellSpec | None:
    """The first cell that can run beside the others: a machine of the lab has one at a time."""
    taken = {cell.spec.cell.host for cell in running if cell.spec.host.kind == "ssh"}
    return next((spec for spec in waiting if spec.cell.host not in taken), None)


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
    return _Running(spec, process, Deadline(spec.cell_seconds), log)


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
    path = cell.spec.folder / "records.jsonl"
    records = read(path)
    checks = tuple(record for record in records if isinstance(record, Check))
    for record in records:
        if isinstance(record, Cell):
            return record, checks
    if exited is None:
        why = f"the cell did not end within {cell.deadline.budget:.0f} s"
    else:
        why = f"the cell's process ended with {exited} and without a verdict"
    lost = cell.spec.cell.record(reason=f"{why}; see {cell.log}")
    # What the kernel said may be why.
    splats = splatlog.records(splatlog.findings(cell.spec.folder))
    update = {"seconds": round(cell.deadline.elapsed(), 3), "splats": splats}
    lost = lost.model_copy(update=update)
    append(path, lost)
    return lost, checks
