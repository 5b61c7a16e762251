# SPDX-License-Identifier: GPL-2.0-only
"""What the harness costs, as ratios of things that were measured in one invocation.

Machines are noisy and differ, so seconds alone say little: each figure is shown with what it is
compared with.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console

from harness import bench_build, bench_ssh, proc
from harness.deadline import Deadline
from harness.errors import EXIT_PASS, InfraError
from harness.hosts import qemu
from harness.inventory import QemuHost
from harness.kernel import cache
from harness.options import Options
from harness.progress import Progress
from harness.replay import (
    CMDLINE,
    Outcome,
    check_outcome,
    initramfs,
    outcome,
    read_journal,
)
from harness.results import Cell, Summary
from harness.run import Run
from harness.verdict import EXIT_CODES

BARE_SECONDS = 300.0
WARMING = ("-k", "test_af_file")
GOAL = 2.0


@dataclass(frozen=True)
class Bare:
    """A cell's work in bare QEMU: its time, from QEMU's start to its end, and what came of it."""

    seconds: float
    outcome: Outcome


def bench(console: Console, *, matrix: bool = True, build: bool = True, ssh: bool = True) -> int:
    """Measure the matrix against bare QEMU, kernel builds against plain make, SSH against OpenSSH.

    Returns the exit code of the matrix if it did not pass: its cost means nothing then. InfraError
    if a bare run did not do the work of its cell.
    """
    cache.sweep()
    code = bench_matrix(console) if matrix else EXIT_PASS
    if build:
        bench_build.bench(console)
    if ssh:
        bench_ssh.bench(console)
    return code


def bench_matrix(console: Console) -> int:
    """Run the matrix warm, then each of its cells in bare QEMU, and print the ratios."""
    progress = Progress(console)
    # Everything that a cache can hold, made by a run with the least of checks.
    if (warming := Run(Options(pytest_args=WARMING), progress).execute().verdict) != "pass":
        return EXIT_CODES[warming]
    start = time.monotonic()
    run = Run(Options(), progress)
    summary = run.execute()
    seconds, stages = time.monotonic() - start, dict(run.stages)
    if summary.verdict != "pass":
        return EXIT_CODES[summary.verdict]
    bare: dict[str, Bare] = {}
    with progress.stage(f"{len(summary.cells)} bare QEMU runs, one at a time"):
        for cell in summary.cells:
            progress.now(f"bare QEMU: {cell.id}")
            bare[cell.id] = bare_run(run, cell)
    for line in describe(summary, seconds, stages, tuple(bare.values())):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return EXIT_PASS


def bare_run(run: Run, cell: Cell) -> Bare:
    """Have QEMU boot a cell's kernel, do what the cell did, and switch off."""
    spec = next(spec for spec in run.specs if spec.cell.id == cell.id)
    assert isinstance(spec.host, QemuHost) and spec.image is not None, "what it measures"
    with cache.staging("bench", cell.id) as folder:
        log, image = folder / "console.log", folder / "initramfs.cpio"
        initramfs(spec.image, spec.programs, read_journal(spec.folder / "commands.jsonl"), image)
        machine = qemu.Machine(spec.cell.host, spec.host.cpu, spec.host.cpus, spec.host.memory_mib)
        cmdline = [*qemu.first_cmdline(machine), *spec.cell.cmdline, CMDLINE]
        argv = qemu.arguments(machine, spec.kernel.image, image, cmdline, log)
        start = time.monotonic()
        proc.run(argv, deadline=Deadline(BARE_SECONDS), what=f"bare QEMU for {cell.id}")
        seconds = time.monotonic() - start
        text = log.read_text(errors="replace")
    try:
        found = outcome(text)
        check_outcome(found, text)
    except InfraError as exc:
        raise InfraError(f"{cell.id}: {exc}") from exc
    return Bare(seconds, found)


def describe(
    summary: Summary, seconds: float, stages: Mapping[str, float], bare: Sequence[Bare]
) -> list[str]:
    """The figures in words."""
    total = sum(one.seconds for one in bare)
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
        f"bare run of a cell: median {statistics.median(one.seconds for one in bare):.1f} s",
        did([one.outcome for one in bare]),
        "share of the matrix's stages:",
    ]
    lines += [f"  {100 * took / seconds:5.1f} %  {name}" for name, took in stages.items()]
    lines += [
        "share of the cells' own time (several run at once):",
        f"  {100 * boots / busy:5.1f} %  boot to SSH login",
        f"  {100 * checks / busy:5.1f} %  checks (slowest: {slowest.name} in {slowest.cell}, "
        f"{slowest.seconds:.1f} s)",
        f"  {100 * (busy - boots - checks) / busy:5.1f} %  proof and end",
    ]
    return lines


def did(outcomes: Sequence[Outcome]) -> str:
    """That the bare runs did the work: how much of it ended as recorded."""
    same, replies = sum(o.same for o in outcomes), sum(o.replies for o in outcomes)
    failed, commands = sum(o.commands_failed for o in outcomes), sum(o.commands for o in outcomes)
    refused, files = sum(o.files_failed for o in outcomes), sum(o.files for o in outcomes)
    return (
        f"the bare runs did the same work: {same} of {replies} replies of guests as recorded; "
        f"failed: {failed} of {commands} commands, {refused} of {files} reads and writes"
    )
