# SPDX-License-Identifier: GPL-2.0-only
"""`kvm-harness reproduce`: a folder for each failed check that shows it without the harness.

Each folder is tried before it is handed out: on the kernel that failed, and on the one without the
series. By what differs whenever it was tried the failure is known again (sign.py). A failure on a
machine of a lab is not tried, since only QEMU can be started here.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from harness import prepare, proc, records
from harness.cell import CellSpec, KernelFiles
from harness.checks.plugin import check_folder
from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError, UsageError
from harness.guests import PROGRAM
from harness.hosts import bootargs, cpio, qemu
from harness.hosts.image import HostImage, host_image
from harness.inventory import QemuHost
from harness.kernel import cache
from harness.observe import cpu_list
from harness.progress import Progress
from harness.replay import CMDLINE, read_journal
from harness.report import facts
from harness.report.load import load
from harness.reproduce import cost as costs
from harness.reproduce import folder as files
from harness.reproduce import sign as signs
from harness.reproduce import steps
from harness.reproduce.script import Boot, parse, plain, script, without_numbers
from harness.reproduce.steps import Record
from harness.results import SERIES, Cell, Check, Summary
from harness.runfolder import find_run, refuse_imported

FOLDER = "reproducers"
BOOT = "boot"
"""Stands for a check where a kernel failed before, or between, its checks."""
JOURNAL = "commands.jsonl"
# Seconds for a boot, beyond three times what the check took in the run. A host that hangs takes all
# of them, so they are few; a busy machine may boot it ten times as slowly as an idle one.
LIMIT = 120.0
# Of a console's log; a kernel may print without end.
LIMIT_BYTES = 64 << 20


@dataclass(frozen=True)
class Failure:
    """One failed check, or a cell that failed as a whole."""

    cell: Cell
    name: str
    expected: str
    observed: str
    reason: str
    titles: tuple[str, ...]
    """Of the kernel's reports that it failed by."""
    seconds: float


@dataclass(frozen=True)
class Request:
    """What the user asked for; `run` is None for the newest."""

    run: str | None = None
    checks: tuple[str, ...] = ()
    cells: tuple[str, ...] = ()
    output: Path | None = None
    tries: int = 2


def reproduce(request: Request, progress: Progress) -> tuple[Path, ...]:
    """Make the folders and their tarballs; UsageError if the run has no such failure.

    A failure that none can be made of keeps no other from its own. At the end it is told which have
    none and why; the first such error is raised if there is no folder at all.
    """
    run = find_run(request.run)
    refuse_imported(run, "what it says is not booted here")
    summary = load(run)
    parent = request.output or run / FOLDER
    made: list[Path] = []
    without: dict[str, HarnessError] = {}
    works = _works(run, summary, request, parent)
    for number, (name, make) in enumerate(works.items(), 1):
        where = f"{number}/{len(works)} {name}"
        try:
            with progress.stage(where):
                target, told = make()
        except HarnessError as exc:
            without[where] = exc
        except OSError as exc:
            # A full disk, say, on which there may be room for a smaller one.
            without[where] = InfraError(f"it cannot be made: {exc}")
        else:
            progress.say(f"{where}: {told}")
            made.append(target)
    for where, why in without.items():
        progress.say(f"{where} has no folder: {why}")
    if not made:
        raise next(iter(without.values()))
    return tuple(made)


def _works(
    run: Path, summary: Summary, request: Request, parent: Path
) -> Mapping[str, Callable[[], tuple[Path, str]]]:
    """What makes each folder, by the failure: a cost that was promised is of no cell."""
    broken = () if request.cells else costs.broken(summary, request.checks)
    failures = select(summary, request.checks, request.cells, needed=not broken)
    return {
        f"{one.cell.id} {one.name}": partial(_make, run, summary, one, parent, request.tries)
        for one in failures
    } | {one.check.name: partial(costs.make, run, summary, one, parent) for one in broken}


def select(
    summary: Summary, checks: Sequence[str], cells: Sequence[str], *, needed: bool = True
) -> tuple[Failure, ...]:
    """The failures of cells to make folders of: those of the patched kernel unless cells are named.

    UsageError if there are none and one is `needed`. In a run of the base kernel alone they are the
    base kernel's.
    """
    patched = any(cell.kernel == "patched" for cell in summary.cells)
    wanted = [
        cell
        for cell in summary.cells
        if (cell.id in cells if cells else cell.kernel == "patched" or not patched)
    ]
    found = [
        failure
        for cell in wanted
        for failure in _failures(cell, summary.checks)
        if not checks or failure.name in checks
    ]
    if not found and needed:
        words = ", ".join((*cells, *checks))
        of_series = any(c.cell == SERIES and c.outcome == "fail" for c in summary.checks)
        raise UsageError(
            f"nothing in that run failed{' in ' + words if words else ''}"
            + (
                ": a check of the series itself has its own evidence, and no cell to boot again"
                if of_series
                else ""
            )
        )
    return tuple(found)


def _failures(cell: Cell, checks: Sequence[Check]) -> Iterator[Failure]:
    failed = [check for check in checks if (check.cell, check.outcome) == (cell.id, "fail")]
    of_cell = tuple(splat.title for splat in cell.splats if not splat.on_base)
    for check in failed:
        own = tuple(splat.title for splat in check.splats if not splat.on_base)
        # A race that looks at the kernel's log itself says in words what it found.
        own = own or tuple(title for title in of_cell if title in check.reason)
        yield Failure(
            cell,
            check.name,
            check.expected,
            check.observed,
            check.reason,
            own or (of_cell if check.death else ()),
            check.seconds,
        )
    if cell.outcome == "fail" and not failed:
        yield Failure(
            cell, BOOT, "a kernel that boots and has KVM", cell.reason, cell.reason, of_cell, 0.0
        )


def _make(
    run: Path, summary: Summary, failure: Failure, parent: Path, tries: int
) -> tuple[Path, str]:
    """One folder and its tarball, and how it did when it was tried."""
    spec = _spec(run, failure.cell.id)
    machine = _emulated(spec)
    # A run without an emulated host needed no user space for one.
    user_space = spec.image or host_image(Deadline(prepare.IMAGE_SECONDS))
    base = _base(run, failure.cell)
    name = _check_of(spec, failure)
    before, work, why = _work(spec, failure, name)
    try:
        text = script(before, work)
    except UsageError as exc:
        before, work, why = [], [], f"its steps cannot be done again: {exc}"
        text = script(before, work)
    cmdline = _cmdline(spec, failure.cell, machine)
    limit = int((LIMIT + 3 * failure.seconds) * spec.slowdown)
    with cache.staging("reproduce", "folder") as stage:
        target = stage / files.folder_name(failure.cell.id, failure.name)
        target.mkdir()
        shutil.copyfile(_image(spec.kernel), target / "Image")
        shutil.copyfile(_config(spec.kernel), target / "config")
        shutil.copyfile(spec.programs[PROGRAM.lstrip("/")], target / "kvm-guest")
        (target / "kvm-guest").chmod(0o755)
        (target / "initramfs.cpio.gz").write_bytes(_initramfs(spec, user_space, work, text))
        (target / "steps.sh").write_text(text)
        (target / "cmdline").write_text(" ".join(cmdline) + "\n")
        (target / "seed").write_text(f"{spec.seed}\n")

        # One of which nothing is left would be on any console.
        titles = [known for one in failure.titles if (known := without_numbers(one)).strip()]

        def boots(machine: qemu.Machine, image: Path) -> list[Boot]:
            argv = qemu.alone(
                machine, image, target / "initramfs.cpio.gz", cmdline, stage / "console.log"
            )
            return [parse(_console(argv, stage, limit), titles) for _ in range(tries)]

        if machine is None:
            bad, good = [], _recorded(base, name)
        else:
            bad = boots(machine, target / "Image")
            good = boots(machine, _image(base.kernel)) if base is not None else []
        sign = signs.choose(
            bad,
            good,
            alike=_alike(base, name, work),
            titles=titles,
            errors=steps.errors(work),
            recorded=steps.shown(work, plain),
        )
        told = _tried(sign, bad, good, why) if machine else _untried(sign, spec.machine, why)
        (target / "observed.txt").write_text("".join(f"{line}\n" for line in sign.seen))
        (target / "expected.txt").write_text("".join(f"{line}\n" for line in sign.absent))
        run_sh = files.run_sh(sign, machine, cmdline, limit) if machine else files.lab_sh(sign)
        (target / "run.sh").write_text(run_sh)
        (target / "run.sh").chmod(0o755)
        words = files.Told(
            failure.name,
            failure.cell.id,
            _kernel_words(summary, failure.cell),
            _relative(failure.expected, run),
            _relative(failure.observed, run),
            _relative(failure.reason, run),
            spec.seed,
            told,
            lab="" if machine else spec.machine,
        )
        (target / "README").write_text(files.readme(words, sign))
        return files.publish(target, parent), told


def _emulated(spec: CellSpec) -> qemu.Machine | None:
    """The host as QEMU emulates it; None for a machine of a lab."""
    host = spec.host
    if not isinstance(host, QemuHost):
        return None
    return qemu.Machine(
        spec.cell.host, host.cpu, host.cpus, host.memory_mib, tickless=spec.tickless
    )


def _cmdline(spec: CellSpec, cell: Cell, machine: qemu.Machine | None) -> list[str]:
    """The boot arguments; of a machine of a lab without its own, as console= and root= are."""
    asked = (*spec.cell.cmdline, CMDLINE)
    if machine is not None:
        return [*qemu.first_cmdline(machine), *asked]
    cpus = [cpu for one in cell.af_cpus for cpu in cpu_list.parse(one.cpus, spec.machine)]
    isolated = bootargs.tickless(max(cpus)) if cpus and spec.tickless else ()
    return bootargs.of_machine("", (*isolated, *asked)).split()


def _relative(text: str, run: Path) -> str:
    """A text without the path of this machine's run folder."""
    return text.replace(f"{run}/", "")


def _spec(run: Path, cell: str) -> CellSpec:
    path = run / "cells" / cell / "spec.json"
    try:
        return CellSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError) as exc:
        raise UsageError(f"{path}: not there, or from another version of the harness") from exc


def _base(run: Path, cell: Cell) -> CellSpec | None:
    """The cell of the base kernel on the same host in the same mode, if the run had one.

    In a walk along a series it is in the run beside this one.
    """
    name = f"{cell.host}-{cell.kvm_mode}-base"
    walk = run.parent / "each-patch.json"
    others = sorted(run.parent.glob(f"*/cells/{name}/spec.json")) if walk.is_file() else []
    for path in (run / "cells" / name / "spec.json", *others):
        if cell.kernel == "patched" and path.is_file():
            return _spec(path.parents[2], name)
    return None


def _journals(spec: CellSpec) -> list[list[dict[str, object]]]:
    """The records of all boots of a cell, also of those that a kill cut off."""
    paths = (spec.folder / JOURNAL, *sorted(spec.folder.glob(f"cut-*/{JOURNAL}")))
    return [read_journal(path) for path in paths if path.is_file()]


def _find(spec: CellSpec, name: str) -> tuple[list[Record], list[Record]] | None:
    for journal in _journals(spec):
        found = steps.of_check(journal, name)
        if found is not None:
            return steps.preparation(journal), found
    return None


def _check_of(spec: CellSpec, failure: Failure) -> str:
    """The check whose steps show the failure: that in whose time the kernel reported it."""
    culprit = _culprit(spec, failure.titles) if failure.titles and failure.name != BOOT else None
    return culprit or failure.name


def _work(spec: CellSpec, failure: Failure, name: str) -> tuple[list[Record], list[Record], str]:
    """What was done before the checks, what the check of that name did, and a word on that."""
    if name == BOOT:
        return [], [], ""
    found = _find(spec, name)
    if found is None:
        return [], [], "The run did not write down what this check did."
    why = "" if name == failure.name else f"The kernel reported it during {name}."
    return (*found, why)


def _culprit(spec: CellSpec, titles: Sequence[str]) -> str | None:
    """The check in whose time the kernel reported one of these; that of the log looks later."""
    for check in records.read(spec.folder / "records.jsonl"):
        if isinstance(check, Check):
            path = spec.folder / check_folder(check.name) / "dmesg.txt"
            text = path.read_text(errors="replace") if path.is_file() else ""
            if any(title in text for title in titles):
                return check.name
    return None


def _alike(base: CellSpec | None, name: str, work: Sequence[Record]) -> int:
    """How many steps of the check the base kernel's cell was asked for as well."""
    there = _find(base, name) if base is not None else None
    mine = steps.announced(work)
    return len(mine) if there is None else steps.common(mine, steps.announced(there[1]))


def _recorded(base: CellSpec | None, name: str) -> list[Boot]:
    """The base kernel's cell in the place of a boot of it: what each step of the check showed."""
    there = _find(base, name) if base is not None else None
    return [] if there is None else [Boot(0, True, steps.shown(there[1], plain))]


def _image(kernel: KernelFiles) -> Path:
    """The kernel of the run; InfraError if the cache has it no more."""
    if not kernel.image.is_file():
        raise InfraError(
            f"the kernel {kernel.build_id[:12]} is in the cache no more: run the same again first"
        )
    return kernel.image


def _config(kernel: KernelFiles) -> Path:
    """What it was configured by, as was proven when it ran."""
    path = kernel.image.with_name("config")
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != kernel.config_sha256:
        raise InfraError(f"{path} is not the configuration that the kernel was built from")
    return path


def _initramfs(spec: CellSpec, user_space: HostImage, work: Sequence[Record], text: str) -> bytes:
    programs = {**user_space.vmm, **spec.programs}
    inside = {path: source.read_bytes() for path, source in programs.items()}
    put = " ".join(str(record.get("run", "")) for record in work)
    for tests in spec.selftests:
        for name, source in tests.programs.items():
            if files.put_path(name) in put:
                inside[files.put_path(name)] = source.read_bytes()
    try:
        image = gzip.decompress(user_space.initramfs.read_bytes())
        busybox = cpio.contents(image, "bin/busybox")
    except (OSError, KeyError) as exc:
        raise InfraError(f"the host image is in the cache no more ({exc}): run again") from exc
    return files.initramfs(busybox, inside, text)


def _console(argv: Sequence[str], stage: Path, limit: int) -> str:
    """Boot until it switches itself off or its time is up; what the console said."""
    log = stage / "console.log"
    log.unlink(missing_ok=True)
    with (stage / "qemu.err").open("wb") as errors:
        process = proc.spawn(argv, stdout=errors, stderr=errors)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            # A host that hangs: how far it came is what it has to show.
            status = 0
        finally:
            proc.end(process)
    if status != 0:
        words = (stage / "qemu.err").read_text(errors="replace").strip()[-500:]
        raise InfraError(f"QEMU ended with {status}: {words}")
    with log.open("rb") as data:
        return data.read(LIMIT_BYTES).decode(errors="replace")


def _kernel_words(summary: Summary, cell: Cell) -> str:
    kernel = facts.kernel_of(summary, cell.kernel, cell.machine)
    version = f"Linux {kernel.version}" if kernel else "a kernel"
    series = f" with {summary.series}" if cell.kernel == "patched" else ""
    return f"{version}{series}, build id {cell.build_id or (kernel.build_id if kernel else '?')}"


def _tried(sign: signs.Sign, bad: Sequence[Boot], good: Sequence[Boot], why: str) -> str:
    """How often the failure was seen when the folder was made."""
    seen = sum(signs.shows(boot, sign) for boot in bad)
    wrong = sum(signs.shows(boot, sign) for boot in good)
    what = "it" if sign.sure else "that difference"
    words = f"When this was made {what} was seen in {seen} of {len(bad)} boots of this kernel"
    words += f" and {wrong} of {len(good)} of the one without the series." if good else "."
    if not sign.sure:
        words = f"{files.UNSURE.capitalize()}. {words}"
    if sign.rare:
        words += f" So run.sh boots up to {files.LOOPS} times for it."
    if sign.kind == "none" or not seen:
        words += " It may need more luck (a race), or what went before it in the run."
    return f"{why} {words}".strip()


def _untried(sign: signs.Sign, machine: str, why: str) -> str:
    """The same of a failure on a machine of a lab, known by what the run saw or by nothing."""
    words = f"It was not tried when this was made: {machine} is a machine of a lab."
    if sign.kind != "none":
        words += " observed.txt is what the run saw."
    return f"{why} {words}".strip()
