# SPDX-License-Identifier: GPL-2.0-only
"""A kernel from a tree: configured, checked, built where a bench is, kept in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import build_folder, buildlog, cache, config, elf, modules, symbols, toolchain
from harness.kernel.apply import PatchedTree
from harness.kernel.bench import FILES, MODULES, Bench, Builder, OnLine, Order
from harness.kernel.build_output import Counter, Log, keep_steps, lines_of
from harness.kernel.buildlog import BuildProgress
from harness.kernel.built import RECORD, Kernel, key_of, load, sha256
from harness.kernel.local_bench import FRAGMENTS, FRAGMENTS_INSIDE, OUTPUT, LocalBench
from harness.kernel.machine import MachineConfig, merged
from harness.kernel.source import Source

NEED = 3 * cache.GIB // 2  # one build folder beside the kernel's files
NEED_MACHINE = 6 * cache.GIB  # the same with a distribution's drivers
LSMOD = "lsmod"


class KernelBuildError(UsageError):
    """A series does not compile: `first_error` as the compiler words it, `log` the whole log."""

    def __init__(self, message: str, first_error: str, log: Path) -> None:
        super().__init__(message)
        self.first_error = first_error
        self.log = log


class BaseBuildError(InfraError):
    """The base kernel does not compile here; nothing can be said of a series then."""

    def __init__(self, message: str, first_error: str, log: Path) -> None:
        super().__init__(message)
        self.first_error = first_error
        self.log = log


@dataclass(frozen=True)
class _Job:
    """Everything that one build needs to know."""

    tree: Source | PatchedTree
    fragments: config.Fragments
    machine: MachineConfig | None
    localversion: str
    arch: toolchain.Arch
    tools: toolchain.Toolchain
    base_dir: Path | None
    keep: bool
    deadline: Deadline
    progress: Callable[[BuildProgress], None]
    builder: Builder | None

    @property
    def trusted(self) -> bool:
        """A series may read the compiler cache, but what it compiles must not enter it."""
        return isinstance(self.tree, Source)

    @property
    def kind(self) -> str:
        kind = "full" if self.base_dir is None else "incremental"
        if self.arch is not toolchain.ARM64:
            return f"{kind}-{self.arch.name}"
        return kind if self.machine is None else f"{kind}-machine"

    @property
    def store(self) -> str:
        """The kind of entry in the cache."""
        return "builds" if self.machine is None else "machines"

    @property
    def need(self) -> int:
        """Bytes of disk."""
        return NEED if self.machine is None else NEED_MACHINE

    @property
    def what(self) -> str:
        return f"building {self.tree.description}"


def build(
    tree: Source | PatchedTree,
    *,
    fragments: Sequence[Path],
    base: Kernel | None,
    deadline: Deadline,
    progress: Callable[[BuildProgress], None] = lambda _: None,
    keep: bool = False,
    machine: MachineConfig | None = None,
    builder: Builder | None = None,
    arch: toolchain.Arch = toolchain.ARM64,
) -> Kernel:
    """The kernel of a tree with these fragments on allnoconfig, built unless the cache has it.

    With `machine` they are laid over that configuration instead, and the kernel has modules; a
    `builder` is for such kernels alone, and begins each of them anew.
    With `base`, the kernel of the tree without its series, its build folder is built upon. With
    `keep` that of a patched tree stays as well, for series on top of it.
    Raises ConfigError if the configuration is not what the fragments ask for, KernelBuildError if
    a series does not compile, BaseBuildError if a source without one does not, InfraError for
    a full disk, too little memory, no compiler or no sandbox, DeadlineExceeded when time runs out.
    """
    asked = config.read_fragments(fragments, config.Tree(tree.version, symbols.of(tree)))
    tools = toolchain.find(deadline, arch) if builder is None else builder.tools(deadline)
    base_dir = _base_folder(tree, base) if builder is None else None
    key = key_of(tree.digest, asked.text, tools, machine)
    localversion = "" if machine is None else f"{modules.LOCALVERSION}{key[:12]}"
    job = _Job(
        tree, asked, machine, localversion, arch, tools, base_dir, keep, deadline, progress, builder
    )
    key += "-kept" if keep and not job.trusted else ""
    for _ in range(2):
        entry = cache.get_or_make(
            job.store, key, lambda stage: _fill(stage, key, job), deadline=deadline,
            what=job.what, need=job.need,
        )  # fmt: skip
        kernel = load(entry.path)
        if kernel is not None and base is not None and kernel.build_id == base.build_id:
            raise InfraError(f"{job.what} gave a kernel with the base's build id {base.build_id}")
        if kernel is not None:
            return kernel.model_copy(update={"cached": not entry.fresh, "compiler": tools.compiler})
        cache.discard(job.store, key)
    raise InfraError(f"the cache entry {entry.path} is damaged again right after it was made")


def _base_folder(tree: Source | PatchedTree, base: Kernel | None) -> Path | None:
    """The build folder to build upon. make knows only file times, so it must be the right one."""
    if base is None or not isinstance(tree, PatchedTree):
        return None
    if base.tree != tree.source_digest:
        raise ValueError(f"{base.key} was not built from the source that the series is applied to")
    return base.build_dir


def _fill(stage: Path, key: str, job: _Job) -> None:
    """Build into the staging folder of a cache entry."""
    started = time.monotonic()
    work = stage / "build"
    log = stage / "build.log"
    if job.base_dir is not None and isinstance(job.tree, PatchedTree):
        argv = ("cp", "--archive", "--reflink=auto", str(job.base_dir), str(work))
        proc.run(argv, deadline=job.deadline, what="copying the base's build folder")
        build_folder.make_newer(job.tree, job.base_dir)
    else:
        work.mkdir()
    (stage / FRAGMENTS).write_text(job.fragments.text)
    counter = Counter(job.kind, job.progress)
    with Log(log) as writer:

        def on_line(line: bytes) -> None:
            writer.add(line)
            counter.add(line)

        with _bench(stage, work, job, on_line) as bench:
            wanted = _configure(bench, job, log)
            if (status := bench.compile()) != 0:
                raise _failure(log, job, f"the build exited {status}")
    for name, where in {**FILES, "Image": job.arch.path}.items():
        build_folder.take(work, where, stage / name)
    build_folder.require_same_config(work, stage / "vmlinux", wanted)
    release = build_folder.read(work, "include/config/kernel.release").strip()
    (stage / "config").write_text(wanted)
    final = cache.folder(job.store) / key
    has_modules = job.machine is not None
    if has_modules:
        modules.archive(
            work, MODULES, release, job.localversion, stage / "config", stage / modules.ARCHIVE
        )
        cache.remove(work / MODULES)
    keep = job.builder is None and (job.trusted or job.keep)
    cache.remove(work / OUTPUT) if keep else cache.remove(work)
    kernel = Kernel(
        key=key,
        image=final / "Image",
        vmlinux=final / "vmlinux",
        system_map=final / "System.map",
        config=final / "config",
        log=final / "build.log",
        build_dir=final / "build" if keep else None,
        build_id=elf.build_id(stage / "vmlinux"),
        config_sha256=hashlib.sha256(wanted.encode()).hexdigest(),
        image_sha256=sha256(stage / "Image"),
        release=release,
        tree=job.tree.digest,
        incremental=job.base_dir is not None,
        seconds=time.monotonic() - started,
        steps=counter.done,
        modules=final / modules.ARCHIVE if has_modules else None,
        modules_sha256=sha256(stage / modules.ARCHIVE) if has_modules else "",
        localversion=job.localversion,
        builder=job.builder.name if job.builder is not None else "",
    )
    # Without what only a machine's kernel has, as other versions of this write and read it.
    text = kernel.model_dump_json(indent=2, exclude_defaults=True)
    (stage / RECORD).write_text(text + "\n")
    keep_steps(job.kind, counter.done)


@contextlib.contextmanager
def _bench(stage: Path, work: Path, job: _Job, on_line: OnLine) -> Iterator[Bench]:
    order = Order(
        job.tree.dir, job.tree.digest, job.localversion, stage, work, on_line, job.deadline
    )
    if job.builder is None:
        yield LocalBench(order, job.arch, job.machine is not None, job.trusted, job.what)
        return
    with job.builder.bench(order) as bench:
        yield bench


def _configure(bench: Bench, job: _Job, log: Path) -> str:
    """Make .config with the fragments, and return it when it has all that they ask for."""

    def make(target: str, variables: Mapping[str, str]) -> None:
        if (status := bench.make(target, variables)) != 0:
            raise _failure(log, job, f"make {target} exited {status}")

    if job.machine is None:
        make("allnoconfig", {"KCONFIG_ALLCONFIG": str(FRAGMENTS_INSIDE)})
    else:
        bench.put(".config", job.machine.text)
        if job.machine.loaded is not None:
            bench.put(LSMOD, job.machine.lsmod)
            # localmodconfig asks for what is new in this source, and nobody is there to answer.
            make("olddefconfig", {})
            make("localmodconfig", {"LSMOD": f"{bench.folder}/{LSMOD}"})
        under = bench.read(".config")
        bench.put(".config", merged(under, job.fragments.text, job.fragments.wishes))
        make("olddefconfig", {})
    text = bench.read(".config")
    config.require(job.fragments.wishes, text, symbols.kconfigs(job.tree.dir))
    config.require_page_size(text)
    return text


def _failure(log: Path, job: _Job, ended: str) -> InfraError | UsageError:
    """What a failed build is: a full disk, too little memory, or a tree that does not compile.

    The log of a tree that does not compile is kept.
    """
    lacking = buildlog.ran_out(lines_of(log))
    if lacking is not None and job.builder is not None:
        return InfraError(f"{job.builder.name} has no {lacking} left for {job.what}")
    if lacking == "disk":
        return cache.disk_full(job.what, job.need)
    if lacking == "memory":
        return InfraError(f"out of memory during {job.what}; give it more, or fewer CPUs")
    first = buildlog.first_error(lines_of(log))
    kept = cache.folder("logs") / f"{job.tree.digest[:40]}.log"
    shutil.copyfile(log, kept)
    if first is None:
        return InfraError(f"{job.what}: {ended} without an error of its own; see {kept}")
    message = f"{job.tree.description} does not compile: {first}\nthe whole log: {kept}"
    return (BaseBuildError if job.trusted else KernelBuildError)(message, first, kept)
