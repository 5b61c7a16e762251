# SPDX-License-Identifier: GPL-2.0-only
"""What the harness costs, as ratios of things that were measured in one invocation.

Machines are noisy and differ, so seconds alone say little: each figure is shown with what it is
compared with.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import qemu
from harness.progress import Progress
from harness.replay import CMDLINE, initramfs, read_journal
from harness.results import Cell, Summary
from harness.run import Options, Run
from harness.verdict import EXIT_CODES

BARE_SECONDS = 300.0
GOAL = 2.0


def bench(console: Console) -> int:
    """Run the matrix warm, then each of its cells in bare QEMU, and print the ratios.

    Returns the exit code of the matrix if it did not pass: its cost means nothing then.
    """
    progress = Progress(console)
    options = Options()
    if (warming := _matrix(options, progress)[0].verdict) != "pass":
        return EXIT_CODES[warming]
    summary, seconds, run = _matrix(options, progress)
    if summary.verdict != "pass":
        return EXIT_CODES[summary.verdict]
    bare: dict[str, float] = {}
    with progress.stage(f"{len(summary.cells)} bare QEMU runs, one at a time"):
        for cell in summary.cells:
            progress.now(f"bare QEMU: {cell.id}")
            bare[cell.id] = bare_run(run, cell)
    for line in describe(summary, seconds, run.stages, bare):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _matrix(options: Options, progress: Progress) -> tuple[Summary, float, Run]:
    start = time.monotonic()
    run = Run(options, progress)
    summary = run.execute()
    return summary, time.monotonic() - start, run


def bare_run(run: Run, cell: Cell) -> float:
    """Seconds that QEMU takes to boot a cell's kernel, do what the cell did, and switch off."""
    spec = next(spec for spec in run.specs if spec.cell.id == cell.id)
    with tempfile.TemporaryDirectory(prefix="kvm-harness-bench-") as name:
        folder = Path(name)
        log, image = folder / "console.log", folder / "initramfs.cpio"
        initramfs(spec.image, spec.programs, read_journal(spec.folder / "commands.jsonl"), image)
        machine = qemu.Machine(spec.cell.host, spec.host.cpu, spec.host.cpus, spec.host.memory_mib)
        cmdline = [*qemu.first_cmdline(machine), *spec.cell.cmdline, CMDLINE]
        argv = qemu.arguments(machine, spec.kernel.image, image, cmdline, log)
        start = time.monotonic()
        proc.run(argv, deadline=Deadline(BARE_SECONDS), what=f"bare QEMU for {cell.id}")
        seconds = time.monotonic() - start
        if "kvm-harness: replay is over" not in log.read_text(errors="replace"):
            raise InfraError(f"the bare QEMU run of {cell.id} did not come to its end")
    return seconds


def describe(
    summary: Summary, seconds: float, stages: Mapping[str, float], bare: Mapping[str, float]
) -> list[str]:
    """The figures in words."""
    total = sum(bare.values())
    ratio = seconds / total
    verdict = "reached" if ratio <= GOAL else "MISSED"
    cells = summary.cells
    busy = sum(cell.seconds for cell in cells)
    boots = sum(cell.boot_seconds for cell in cells)
    checks = sum(check.seconds for check in summary.checks)
    slowest = max(summary.checks, key=lambda check: check.seconds)
    lines = [
        "",
        f"warm matrix: {seconds:.1f} s for {len(cells)} cells; the same cells in bare QEMU, one "
        f"after another: {total:.1f} s",
        f"ratio: {ratio:.2f} (goal: at most {GOAL:.0f}, {verdict})",
        f"bare run of a cell: median {statistics.median(bare.values()):.1f} s",
        "share of the matrix's stages:",
    ]
    lines += [f"  {100 * took / seconds:5.1f} %  {name}" for name, took in stages.items()]
    lines += [
        "share of the cells' own time (several run at once):",
        f"  {100 * boots / busy:5.1f} %  boot to SSH login",
        f"  {100 * checks / busy:5.1f} %  checks (slowest: {slowest.name} in {slowest.cell}, "
        f"{slowest.seconds:.1f} s)",
        f"  {100 * (busy - boots - checks) / busy:5.1f} %  Python's start, proof, end",
    ]
    return lines
