# SPDX-License-Identifier: GPL-2.0-only
"""What cells need before the first of them boots: user space, guest program, source, kernels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import linux_guest as linux_guest_module
from harness.cell import CellSpec, KernelFiles
from harness.checks.plugin import check_paths
from harness.contract_load import base_for
from harness.deadline import Deadline
from harness.guests import PROGRAM
from harness.hosts.deploy import DEPLOY_SECONDS
from harness.hosts.image import HostImage, host_image
from harness.inventory import QemuHost, SshHost
from harness.kernel import source as source_module
from harness.kernel.apply import PatchedTree, apply
from harness.kernel.bench import Builder
from harness.kernel.build import build
from harness.kernel.buildlog import BuildProgress
from harness.kernel.built import Kernel
from harness.kernel.flavor import DEBUG, PLAIN, Flavor
from harness.kernel.machine import MachineConfig
from harness.kernel.series import Series
from harness.kernel.source import Source
from harness.linux_guest.files import linux_guest_files
from harness.observe import vmstat
from harness.plan import PlannedCell
from harness.programs import guest_program
from harness.progress import Progress
from harness.results import KernelLabel
from harness.selftests import build as selftests_build
from harness.selftests.build import Selftests
from harness.selftests.table import ALTOGETHER, LONGEST
from harness.timing import tracking

SOURCE_SECONDS = 1800.0
BUILD_SECONDS = 4 * 3600.0
# A distribution's configuration has ten times the files of the harness's own.
MACHINE_BUILD_SECONDS = 12 * 3600.0
IMAGE_SECONDS = 900.0
LINES_SECONDS = 1800.0
BOOT_SECONDS = 120.0
CHECK_SECONDS = 120.0
CELL_SECONDS = 1800.0
# For a cell to switch its emulated host off and remove what it made.
END_SECONDS = 5.0

# For pytest: what runs unless somebody selects checks.
EVERYDAY = ("-m", "not stress")


@dataclass(frozen=True)
class Ground:
    """What all kernels of a run share: their hosts' user space, and the source without a series."""

    image: HostImage | None
    """None if no host is emulated on this machine."""
    programs: dict[str, Path]
    source: Source


@dataclass(frozen=True)
class Checks:
    """Which checks run in a cell, and with which random choices."""

    paths: tuple[Path, ...] = ()
    pytest_args: tuple[str, ...] = ()
    seed: int = 1
    selftests: tuple[Selftests, ...] | None = None
    """Those that are on the host, None where they were not asked for."""
    linux_guest: dict[str, Path] | None = None
    """What the checks with a Linux guest need on the host, None where they were not asked for."""
    timed: bool = False
    """Selftests are there to be timed by the checks, and are no checks themselves."""


def ground(spec: str, progress: Progress, *, vmm: bool = False, emulated: bool = True) -> Ground:
    """The host image, the guest program and the source that `spec` names, made unless cached.

    `vmm` asks for hosts that have one, for Linux guests; `emulated` says whether any is emulated
    on this machine.
    """
    image = None
    if emulated:
        with progress.stage("host image"):
            image = host_image(Deadline(IMAGE_SECONDS), vmm=vmm)
    with progress.stage("guest program"):
        programs = {PROGRAM.lstrip("/"): guest_program(Deadline(IMAGE_SECONDS))}
    with progress.stage("kernel source"):
        source = source_module.resolve(spec, Deadline(SOURCE_SECONDS))
    progress.say(f"source: {source.description} ({source.version})")
    return Ground(image, programs, source)


def patched_tree(series: Series, source: Source, progress: Progress) -> PatchedTree:
    """The source with the series applied."""
    with progress.stage(f"applying {series.name} ({len(series.patches)} patches)"):
        return apply(series, source, Deadline(SOURCE_SECONDS))


def kernel(
    label: str,
    tree: Source | PatchedTree,
    base: Kernel | None,
    progress: Progress,
    flavor: Flavor = PLAIN,
    keep: bool = False,
    machine: MachineConfig | None = None,
    builder: Builder | None = None,
) -> Kernel:
    """The kernel of a tree; `base` is that of the tree without its series, None for itself.

    `keep` is for a patched tree that others are built upon, `machine` what it starts from in the
    place of allnoconfig, and `builder` the machine that builds it, None for this one.
    """
    with progress.stage(f"{label} kernel"):
        built = build(
            tree,
            fragments=flavor.fragments,
            base=base,
            keep=keep,
            machine=machine,
            builder=builder,
            deadline=Deadline(BUILD_SECONDS if machine is None else MACHINE_BUILD_SECONDS),
            progress=lambda at: progress.now(describe(f"{label} kernel", at)),
        )
    where = f" on {built.builder}" if built.builder else ""
    how = f"from the cache{where and f', built{where}'}"
    if not built.cached:
        how = f"built{where} in {built.seconds:.0f} s"
    progress.say(f"{label}: {built.release}, build id {built.build_id[:12]}, {how}")
    return built


def selftests(
    source: Source, patched: PatchedTree | None, progress: Progress, *, timed: bool
) -> dict[KernelLabel, tuple[Selftests, ...]]:
    """Which selftests run on which kernel: the base tree's on each, the series' own on its own.

    To be timed, those of the series are there on both: it is one program whose times are compared.
    """
    deadline = Deadline(BUILD_SECONDS)
    with progress.stage("KVM selftests"):
        base = selftests_build.build(source, deadline)
    built: dict[KernelLabel, tuple[Selftests, ...]] = {"base": (base,), "patched": (base,)}
    if patched is not None and selftests_build.differ(patched.touched):
        with progress.stage("KVM selftests of the series"):
            built["patched"] = (base, selftests_build.build(patched, deadline))
        if timed:
            built["base"] = built["patched"]
    return built


def linux_guest(kernel: Kernel, progress: Progress) -> dict[str, Path]:
    """The files of a Linux guest by the path that each has on a host, made unless cached.

    `kernel` is without a series, whatever the host runs: a series that breaks the kernel breaks
    the host alone then, and a guest that dies tells of its host.
    """
    with progress.stage("Linux guest"):
        return linux_guest_files(kernel.image, Deadline(IMAGE_SECONDS))


def cell_spec(
    cell: PlannedCell,
    host: QemuHost | SshHost,
    kernel: Kernel,
    ground: Ground,
    *,
    run_folder: Path,
    contract: Path | None,
    checks: Checks,
    flavor: Flavor = PLAIN,
    becomes: Path | None = None,
    wait: int = 0,
    machine: str = "",
) -> CellSpec:
    """What the process of a cell is told; its folder is cells/ID in the run's.

    `machine` is the name of `host`, "" for that of the cell's.
    """
    slowdown = flavor.slowdown
    # Each has a deadline of its own on the host; these are beyond all of them.
    builds = len(checks.selftests or ())
    guests = checks.linux_guest is not None
    longest = builds * LONGEST + guests * linux_guest_module.LONGEST
    altogether = builds * ALTOGETHER + guests * linux_guest_module.ALTOGETHER
    if checks.timed and builds:
        longest, altogether = tracking.LONGEST, tracking.ALTOGETHER
    boot_seconds, travel_seconds = BOOT_SECONDS * slowdown, 0.0
    if isinstance(host, SshHost):
        boot_seconds = host.boot_seconds * slowdown
        by_grub = host.boot == "grub"
        if by_grub:
            # Through the firmware, as on the way back.
            boot_seconds += host.back_seconds
        # The rehearsal (GRUB has one more), and the way home: by reboot, then by reset.
        travel_seconds = boot_seconds + (3.0 + 2 * by_grub) * host.back_seconds + wait
        travel_seconds += DEPLOY_SECONDS if kernel.modules is not None else 0.0
    return CellSpec(
        run_folder=run_folder,
        folder=run_folder / "cells" / cell.id,
        cell=cell,
        machine=machine or cell.host,
        host=host,
        kernel=KernelFiles(
            image=kernel.image,
            vmlinux=kernel.vmlinux,
            build_id=kernel.build_id,
            config_sha256=kernel.config_sha256,
            modules=kernel.modules,
            release=kernel.release,
        ),
        image=ground.image,
        programs=ground.programs | (checks.linux_guest or {}),
        contract=contract,
        becomes=becomes,
        base_contract=base_for(ground.source.version),
        selftests=checks.selftests or (),
        linux_guest=checks.linux_guest is not None,
        seed=checks.seed,
        pytest_args=(
            *checks.pytest_args,
            *check_paths(
                checks.paths,
                selftests=checks.selftests is not None and not checks.timed,
                linux_guest=checks.linux_guest is not None,
            ),
        ),
        debug=flavor.name == DEBUG.name,
        tickless=flavor.tickless,
        slowdown=slowdown,
        wait_seconds=wait,
        boot_seconds=boot_seconds,
        check_seconds=(CHECK_SECONDS + longest) * slowdown,
        cell_seconds=(CELL_SECONDS + altogether) * slowdown + travel_seconds,
        end_seconds=END_SECONDS + travel_seconds,
    )


def cells_at_once(hosts: Sequence[QemuHost | SshHost]) -> int:
    """As many cells at once as there are CPUs, and memory for those hosts that are emulated.

    A further one would fill the time in which a cell waits, but races then have less of the CPUs
    that they keep busy: on two CPUs there was a cell done each 80 s by three, each 82 s by two.
    """
    memory_mib = max((host.memory_mib for host in hosts if isinstance(host, QemuHost)), default=1)
    available = vmstat.parse_meminfo(Path("/proc/meminfo").read_text())["MemAvailable"] >> 20
    return max(1, min(len(os.sched_getaffinity(0)), available // memory_mib))


def describe(what: str, at: BuildProgress) -> str:
    """How far a build is, for a live line."""
    left = at.seconds / at.done * (at.expected - at.done) if at.done else 0.0
    estimate = f", about {left / 60:.0f} min left" if at.done > 20 and left > 30 else ""
    return f"{what}: {at.done} of about {at.expected} steps{estimate} ({at.current})"
