# SPDX-License-Identifier: GPL-2.0-only
"""A folder that shows a broken promise on a cost: both kernels, a host that counts, and a script.

A boot that counts says the same each time, so the kernels are booted once each, in the first layout
of the run, and what they are known by is the number alone.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness import prepare
from harness.cost import measure
from harness.cost.judge import FLOOR, MARGIN
from harness.cost.layouts import LAYOUTS
from harness.cost.metrics import METRICS
from harness.cost.metrics import costs as numbers
from harness.cost.promises import WORDS
from harness.cost.readings import parse
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.hosts import counting, proof
from harness.hosts.counting import Counting
from harness.kernel import cache
from harness.programs import cost_program
from harness.report import facts
from harness.reproduce import folder as files
from harness.results import SERIES, Check, Figure, Kernel, KernelLabel, Summary

TEMPLATE = Path(__file__).with_name("cost.sh")
INITRAMFS = "initramfs.cpio"
LABELS: tuple[KernelLabel, ...] = ("base", "patched")
SUFFIXES: Mapping[KernelLabel, str] = {"patched": "", "base": ".base"}
"""Of the names of a kernel's files in the folder."""
# Its own words, in their order (harness/hosts/counting.py); what is between may have spaces.
_QEMU = re.compile(
    r" -cpu (?P<cpu>\S+) -smp 1 -m (?P<memory>[0-9]+)M -kernel (?P<kernel>.+) -initrd .+ "
    r"-append console=ttyAMA0 earlycon panic=-1 (?P<cmdline>.+) -chardev "
)


@dataclass(frozen=True)
class Broken:
    """A promise of the series' contract that a run found broken, and the figure that shows it."""

    check: Check
    figure: Figure
    promise: str
    """A key of promises.WORDS."""

    @property
    def least(self) -> float:
        """The failure is seen if the patched kernel costs more than this above the base kernel.

        As the run judged (harness/cost/judge.py), in the unit of the figure.
        """
        one = self.figure
        usual, floor = abs(median(one.base)), float(METRICS[one.metric].floor)
        shown = max(one.spread or 0.0, float(FLOOR) * usual, floor)
        if self.promise == "better":
            return -shown
        within = abs(median(one.patched) - median(one.base)) <= shown
        return max(float(MARGIN) * usual, floor) if within else shown


def broken(summary: Summary, names: Sequence[str]) -> tuple[Broken, ...]:
    """The broken promises of a run, of these checks or of all."""
    figures = {_check_name(one): one for one in summary.figures}
    promises = {words: promise for promise, words in WORDS.items()}
    return tuple(
        Broken(check, figures[check.name], promises[words])
        for check in summary.checks
        if (check.cell, check.outcome) == (SERIES, "fail") and check.name in figures
        if not names or check.name in names
        if (words := check.expected.rpartition(": ")[2]) in promises
    )


def _check_name(figure: Figure) -> str:
    """That of the check by which a promise on this figure is judged (harness/cost/promises.py)."""
    return f"cost[{'-'.join(filter(None, (_place(figure), figure.variant, figure.metric)))}]"


def _place(figure: Figure) -> str:
    return f"{figure.host}-{figure.kvm_mode}"


def make(run: Path, summary: Summary, of: Broken, parent: Path) -> tuple[Path, str]:
    """One folder and its tarball, and what was counted when it was tried."""
    if of.figure.metric not in METRICS:
        raise UsageError(f"{of.figure.metric} is a metric of another version of the harness")
    program = cost_program(Deadline(prepare.IMAGE_SECONDS))
    machines = {label: _machine(run, of.figure, label, program) for label in LABELS}
    kernels = {label: _built(summary, of.figure, label) for label in LABELS}
    with cache.staging("reproduce", "cost") as stage:
        found = _counted(machines, kernels, of.figure, stage)
        told = _told(of, found)
        target = stage / files.folder_name(SERIES, of.check.name)
        target.mkdir()
        patched = machines["patched"]
        for label, end in SUFFIXES.items():
            config = _config(machines[label], kernels[label])
            shutil.copyfile(machines[label].kernel, target / f"Image{end}")
            shutil.copyfile(config, target / f"config{end}")
            (target / f"cmdline{end}").write_text(f"{cmdline(machines[label])}\n")
        shutil.copyfile(program, target / "cost-init")
        (target / "cost-init").chmod(0o755)
        (target / INITRAMFS).write_bytes(counting.initramfs(patched))
        (target / "expected.txt").write_text(f"{of.check.expected}\n")
        (target / "observed.txt").write_text(
            "".join(f"{label}: {value:.4f}\n" for label, value in found.items())
        )
        (target / "run.sh").write_text(run_sh(of, patched))
        (target / "run.sh").chmod(0o755)
        (target / "README").write_text(readme(of, summary, kernels["patched"], told))
        return files.publish(target, parent), told


def cmdline(machine: Counting) -> str:
    """The boot arguments of a kernel; those of a boot variant are the patched one's alone."""
    argv = _arguments(machine)
    return argv[argv.index("-append") + 1]


def _arguments(machine: Counting) -> list[str]:
    return counting.arguments(machine, Path(INITRAMFS), files.STDOUT)


def run_sh(of: Broken, machine: Counting) -> str:
    """The script that boots both kernels, each with its own boot arguments, and judges."""
    argv = _arguments(machine)
    for option, stands in (("-kernel", files.KERNEL), ("-append", files.CMDLINE)):
        argv[argv.index(option) + 1] = stands
    sandbox, arguments = files.shell_words(argv)
    settings = [
        f"metric={of.figure.metric} unit={shlex.quote(of.figure.unit)}",
        f"least={of.least!r} limit={measure.BOOT_SECONDS:.0f}",
        sandbox,
    ]
    return files.filled(TEMPLATE, settings, arguments)


def readme(of: Broken, summary: Summary, kernel: Kernel, told: str) -> str:
    """Five lines: what is broken, expected, observed, how to run, how to read."""
    lines = (
        f"Broken: {of.check.name} fails (Linux {kernel.version} with {summary.series}, build id "
        f"{kernel.build_id}), a promise of the contract of this series.",
        f"Expected: {of.check.expected}",
        f"Observed: {of.check.observed}",
        "Run: `sh run.sh` boots Image.base and Image in QEMU 7.2 or newer, without a network, and "
        "ends with 0 if the failure is seen, 1 if not, 2 if that cannot be told; "
        "`sh run.sh KERNEL` tries another Image in the place of Image.",
        "Read: cost-init is all that runs inside; lines `cost: ...` of a console are its counts of "
        f"instructions under TCG, of which run.sh makes a slope. {told}",
    )
    return "".join(f"{files.one_line(line)}\n" for line in lines)


def _machine(run: Path, figure: Figure, label: KernelLabel, program: Path) -> Counting:
    """The host on which a kernel was counted in the first layout, from what QEMU was told."""
    layout = LAYOUTS[0]
    variant = figure.variant if label == "patched" else ""
    boot = "-".join(filter(None, (label, variant, layout.name)))
    path = run / measure.FOLDER / _place(figure) / boot / "qemu.txt"
    try:
        said = _QEMU.search(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: {exc}") from exc
    if said is None:
        raise UsageError(f"{path}: from another version of the harness")
    kernel = Path(said["kernel"])
    if not kernel.is_file():
        raise InfraError(f"{kernel} is in the cache no more: run the same again first")
    words = tuple(said["cmdline"].split(" "))
    return Counting(said["cpu"], kernel, program, words, int(said["memory"]), layout.padding)


def _built(summary: Summary, figure: Figure, label: KernelLabel) -> Kernel:
    kernel = facts.kernel_of(summary, label, figure.host)
    if kernel is None:
        raise UsageError(f"the run does not say which {label} kernel {figure.host} booted")
    return kernel


def _config(machine: Counting, kernel: Kernel) -> Path:
    path = machine.kernel.with_name("config")
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != kernel.config_sha256:
        raise InfraError(f"{path} is not the configuration that the kernel was built from")
    return path


def _counted(
    machines: Mapping[KernelLabel, Counting],
    kernels: Mapping[KernelLabel, Kernel],
    figure: Figure,
    stage: Path,
) -> dict[KernelLabel, float]:
    """The metric on either kernel, which is proven to be that of the run."""
    ends: dict[int, str | InfraError] = {}
    boots = [(machines[label], stage / label) for label in LABELS]
    counting.boot_all(boots, at_once=1, seconds=measure.BOOT_SECONDS, finished=ends.__setitem__)
    found: dict[KernelLabel, float] = {}
    for number, label in enumerate(LABELS):
        end = ends[number]
        if isinstance(end, InfraError):
            raise end
        readings = parse(end)
        kernel = kernels[label]
        expected = proof.Expected(kernel.build_id, kernel.config_sha256)
        proof.agree(readings.notes, readings.config, readings.release, expected)
        values = numbers(readings).values
        if figure.metric not in values:
            raise InfraError(f"the {label} kernel does not show {figure.metric} any more")
        found[label] = float(values[figure.metric])
    return found


def _told(of: Broken, found: Mapping[KernelLabel, float]) -> str:
    without, with_ = (found[label] for label in LABELS)
    seen = "seen" if with_ - without > of.least else "not seen: the run judged by more layouts"
    return (
        f"When this was made it was {without:.2f} without the series and {with_:.2f} with it "
        f"({of.figure.unit}): the failure is {seen}."
    )
