# SPDX-License-Identifier: GPL-2.0-only
"""A kernel from a tree: configured, checked, built by tuxmake in a sandbox, kept in the cache.

Source and build folder stand at fixed paths inside the sandbox (/src, /build). So kbuild's
dependency files and ccache's entries hold for any tree, and a patched kernel is built in a copy
of the base's build folder, where only what the series touches is compiled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import buildlog, cache, config, elf, modules, sandbox, symbols, toolchain
from harness.kernel.apply import PatchedTree
from harness.kernel.buildlog import BuildProgress
from harness.kernel.machine import MachineConfig, merged
from harness.kernel.source import Source

# Part of every key: raise it when the way of building changes what is built.
RECIPE = "1"
NEED = 3 * cache.GIB // 2  # one build folder beside the kernel's files
NEED_MACHINE = 6 * cache.GIB  # the same with a distribution's drivers
LOG_LIMIT = 64 << 20  # bytes; a patch decides what its build prints
FILE_LIMIT = 2 * cache.GIB
RECORD = "kernel.json"  # of a cache entry, written when all else is there
FILES = {"Image": toolchain.ARM64.path, "vmlinux": "vmlinux", "System.map": "System.map"}

OnLine = Callable[[bytes], None]


class Bench(Protocol):
    """Where one kernel is made: a source, a build folder, and make."""

    @property
    def folder(self) -> str:
        """The path of the build folder, as make has it."""

    def make(self, target: str, variables: Mapping[str, str]) -> int:
        """Make one target of the configuration; returns the exit status."""

    def compile(self) -> int:
        """Make Image, and modules if there are any, and leave them in the `work` of the order."""

    def put(self, name: str, text: str) -> None:
        """Write a file of the build folder."""

    def read(self, name: str) -> str:
        """The text of a file of the build folder."""


@dataclass(frozen=True)
class Order:
    """What a bench is for."""

    tree: Path
    digest: str
    localversion: str
    stage: Path
    """A folder of the controller for what lies between."""
    work: Path
    """The build folder, or the one that gets what is needed of it."""
    on_line: OnLine
    """Gets each line that make says."""
    deadline: Deadline


class Builder(Protocol):
    """Another machine that makes kernels, in the same steps."""

    @property
    def name(self) -> str:
        """In the inventory."""

    def tools(self, deadline: Deadline) -> toolchain.Toolchain:
        """Its compiler and linker."""

    def bench(self, order: Order) -> AbstractContextManager[Bench]:
        """A bench there, of which nothing is left after the block."""


_FRAGMENTS = Path("/fragments.config")
_CCACHE = Path("/ccache")
_OUTPUT = ".tuxmake"
MODULES = ".modules"
LSMOD = "lsmod"
# What is made of a machine's kernel, in this order; of others the image alone.
TARGETS = (toolchain.ARM64.image, "modules", "modules_install")
# Steps of a build before the cache has seen one of its kind.
_DEFAULT_STEPS = {
    "full": 1560,
    "incremental": 60,
    "full-machine": 6000,
    "incremental-machine": 500,
    "full-x86_64": 1000,
    "incremental-x86_64": 60,
}


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


class Kernel(BaseModel):
    """A built kernel, its files in the cache.

    `tree` is the digest of the tree that it was built from.
    `build_id` is the GNU build id in hex, to be compared with /sys/kernel/notes; `release` what
    uname -r shows; `seconds` what the build took when it was made, `steps` how many commands
    kbuild ran. `build_dir` is kept for a base kernel, and for a patched one where it was asked for.
    `compiler` is what compiler and linker say of themselves; `builder` the machine that it was
    made on, "" for this one.
    Of one for a machine with a configuration of its own, `modules` is the archive of its modules,
    and `localversion` the end of its release, which no other kernel has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    image: Path
    vmlinux: Path
    system_map: Path
    config: Path
    log: Path
    build_dir: Path | None
    build_id: str
    config_sha256: str
    image_sha256: str
    release: str
    tree: str
    incremental: bool
    seconds: float
    steps: int
    modules: Path | None = None
    modules_sha256: str = ""
    localversion: str = ""
    builder: str = ""
    cached: bool = True
    # Not in the cache's file: the key has it, and a cache may serve other versions of this.
    compiler: str = Field(default="", exclude=True)


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
        kernel = _load(entry.path)
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


def key_of(
    tree_digest: str,
    fragments: str,
    tools: toolchain.Toolchain,
    machine: MachineConfig | None = None,
) -> str:
    """The name of a kernel in the cache: equal only for what must give equal kernels.

    One for a machine may be built there as well as here, so its name says which compiler that is,
    and not where it runs.
    """
    parts = [RECIPE, tree_digest, fragments]
    if machine is None:
        parts += [tools.identity, tools.tuxmake]
    else:
        parts += [*tools.target, *machine.key]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _load(entry: Path) -> Kernel | None:
    """The kernel of a cache entry, None if its files are not those that were put there."""
    try:
        kernel = Kernel.model_validate_json((entry / RECORD).read_text())
        intact = _sha256(kernel.image) == kernel.image_sha256 and kernel.vmlinux.is_file()
        intact = intact and (kernel.build_dir is None or kernel.build_dir.is_dir())
        if kernel.modules is not None:
            intact = intact and _sha256(kernel.modules) == kernel.modules_sha256
    except (OSError, ValidationError):
        return None
    return kernel if intact else None


def _fill(stage: Path, key: str, job: _Job) -> None:
    """Build into the staging folder of a cache entry."""
    started = time.monotonic()
    work = stage / "build"
    log = stage / "build.log"
    if job.base_dir is not None and isinstance(job.tree, PatchedTree):
        argv = ("cp", "--archive", "--reflink=auto", str(job.base_dir), str(work))
        proc.run(argv, deadline=job.deadline, what="copying the base's build folder")
        make_newer(job.tree, job.base_dir)
    else:
        work.mkdir()
    (stage / "fragments.config").write_text(job.fragments.text)
    counter = _Counter(job)
    with _Log(log) as writer:

        def on_line(line: bytes) -> None:
            writer.add(line)
            counter.add(line)

        with _bench(stage, work, job, on_line) as bench:
            wanted = _configure(bench, job, log)
            if (status := bench.compile()) != 0:
                raise _failure(log, job, f"the build exited {status}")
    for name, where in {**FILES, "Image": job.arch.path}.items():
        _take(work, where, stage / name)
    _require_same_config(work, stage / "vmlinux", wanted)
    release = _read(work, "include/config/kernel.release").strip()
    (stage / "config").write_text(wanted)
    final = cache.folder(job.store) / key
    has_modules = job.machine is not None
    if has_modules:
        modules.archive(
            work, MODULES, release, job.localversion, stage / "config", stage / modules.ARCHIVE
        )
        cache.remove(work / MODULES)
    keep = job.builder is None and (job.trusted or job.keep)
    cache.remove(work / _OUTPUT) if keep else cache.remove(work)
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
        image_sha256=_sha256(stage / "Image"),
        release=release,
        tree=job.tree.digest,
        incremental=job.base_dir is not None,
        seconds=time.monotonic() - started,
        steps=counter.done,
        modules=final / modules.ARCHIVE if has_modules else None,
        modules_sha256=_sha256(stage / modules.ARCHIVE) if has_modules else "",
        localversion=job.localversion,
        builder=job.builder.name if job.builder is not None else "",
    )
    # Without what only a machine's kernel has, as other versions of this write and read it.
    text = kernel.model_dump_json(indent=2, exclude_defaults=True)
    (stage / RECORD).write_text(text + "\n")
    (cache.folder("steps") / job.kind).write_text(f"{counter.done}\n")


@contextlib.contextmanager
def _bench(stage: Path, work: Path, job: _Job, on_line: OnLine) -> Iterator[Bench]:
    if job.builder is None:
        yield _Here(stage, work, job, on_line)
        return
    order = Order(
        job.tree.dir, job.tree.digest, job.localversion, stage, work, on_line, job.deadline
    )
    with job.builder.bench(order) as bench:
        yield bench


@dataclass(frozen=True)
class _Here:
    """A Bench on this machine, in the sandbox."""

    stage: Path
    work: Path
    job: _Job
    on_line: OnLine

    @property
    def folder(self) -> str:
        return str(sandbox.BUILD)

    def make(self, target: str, variables: Mapping[str, str]) -> int:
        arch = self.job.arch
        argv = [
            "make", f"--directory={sandbox.SOURCE}", f"O={sandbox.BUILD}", f"ARCH={arch.name}",
            f"CROSS_COMPILE={arch.prefix}", "CROSS_COMPILE_COMPAT=",
            f"CC=ccache {arch.prefix}gcc", "HOSTCC=ccache gcc", target,
        ]  # fmt: skip
        return self._stream(argv, dict(variables))

    def compile(self) -> int:
        job = self.job
        modules = job.machine is not None
        argv = tuxmake_argv(job.tree.digest, job.localversion, modules=modules, arch=job.arch)
        return self._stream(argv, {})

    def put(self, name: str, text: str) -> None:
        """By rename: what a series left there may be a link."""
        (self.stage / "new").write_text(text)
        (self.stage / "new").replace(self.work / name)

    def read(self, name: str) -> str:
        return _read(self.work, name)

    def _stream(self, argv: Sequence[str], variables: dict[str, str]) -> int:
        box = _sandbox(self.stage, self.work, self.job, variables)
        job = self.job
        return sandbox.stream(box, argv, self.on_line, deadline=job.deadline, what=job.what)


def _configure(bench: Bench, job: _Job, log: Path) -> str:
    """Make .config with the fragments, and return it when it has all that they ask for."""

    def make(target: str, variables: Mapping[str, str]) -> None:
        if (status := bench.make(target, variables)) != 0:
            raise _failure(log, job, f"make {target} exited {status}")

    if job.machine is None:
        make("allnoconfig", {"KCONFIG_ALLCONFIG": str(_FRAGMENTS)})
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


def compile_variables(digest: str, localversion: str, modules_to: str | None) -> dict[str, str]:
    """What a build has in its environment, so that the same tree gives the same kernel.

    User, host, time and version are fixed: a rebuild is bit-identical, and the host names the
    tree, so two trees never share a build id. `modules_to` is where modules are put, None without
    any; what depmod(8) makes of them is the machine's own to make.
    """
    found = {
        "KBUILD_BUILD_USER": "kvm-harness",
        "KBUILD_BUILD_HOST": hashlib.sha256(digest.encode()).hexdigest()[:12],
        "KBUILD_BUILD_TIMESTAMP": "1970-01-01 00:00:00 UTC",
        "KBUILD_BUILD_VERSION": "1",
    }
    if localversion:
        found["LOCALVERSION"] = localversion
    if modules_to is not None:
        found |= {
            "INSTALL_MOD_PATH": modules_to,
            "INSTALL_MOD_STRIP": "1",
            "DEPMOD": "true",
        }
    return found


def tuxmake_argv(
    digest: str,
    localversion: str = "",
    *,
    modules: bool = False,
    arch: toolchain.Arch = toolchain.ARM64,
) -> list[str]:
    """The tuxmake command that builds the image from the .config that is in /build.

    The target "config" is named since without a target tuxmake builds all of them; with a .config
    in the build folder it makes none itself. With `modules` these are built and put into the build
    folder as well.
    """
    modules_to = str(sandbox.BUILD / MODULES) if modules else None
    environment = compile_variables(digest, localversion, modules_to)
    targets = TARGETS if modules else (arch.image,)
    return [
        sys.executable, "-I", "-u", "-m", "tuxmake",
        f"--directory={sandbox.SOURCE}",
        f"--build-dir={sandbox.BUILD}",
        f"--output-dir={sandbox.BUILD / _OUTPUT}",
        f"--kconfig={sandbox.BUILD}/.config",
        f"--target-arch={arch.name}",
        "--toolchain=gcc", "--wrapper=ccache", "--compression-type=none",
        "--fail-fast", "--verbose", f"--jobs={len(os.sched_getaffinity(0))}",
        *(f"--environment={name}={value}" for name, value in environment.items()),
        *(f"--make-target={target}" for target in targets),
        "config", f"CROSS_COMPILE={arch.prefix}", "CROSS_COMPILE_COMPAT=",
    ]  # fmt: skip


def _sandbox(stage: Path, work: Path, job: _Job, extra: dict[str, str]) -> sandbox.Sandbox:
    """What a build sees. A series writes /build alone; a source fills the compiler cache too."""
    store = cache.folder("ccache")
    read_only = {
        job.tree.dir: sandbox.SOURCE,
        stage / "fragments.config": _FRAGMENTS,
        **sandbox.python_prefixes(),
    }
    writable = {work: sandbox.BUILD}
    environment = {"CCACHE_DIR": str(_CCACHE), "CCACHE_MAXSIZE": "2G", **extra}
    if job.trusted:
        writable[store] = _CCACHE
    else:
        read_only[store] = _CCACHE
        environment |= {"CCACHE_READONLY": "1", "CCACHE_TEMPDIR": "/tmp"}
    return sandbox.Sandbox(read_only, writable, environment, sandbox.SOURCE)


def _failure(log: Path, job: _Job, ended: str) -> InfraError | UsageError:
    """What a failed build is: a full disk, too little memory, or a tree that does not compile.

    The log of a tree that does not compile is kept.
    """
    lacking = buildlog.ran_out(_lines(log))
    if lacking is not None and job.builder is not None:
        return InfraError(f"{job.builder.name} has no {lacking} left for {job.what}")
    if lacking == "disk":
        return cache.disk_full(job.what, job.need)
    if lacking == "memory":
        return InfraError(f"out of memory during {job.what}; give it more, or fewer CPUs")
    first = buildlog.first_error(_lines(log))
    kept = cache.folder("logs") / f"{job.tree.digest[:40]}.log"
    shutil.copyfile(log, kept)
    if first is None:
        return InfraError(f"{job.what}: {ended} without an error of its own; see {kept}")
    message = f"{job.tree.description} does not compile: {first}\nthe whole log: {kept}"
    return (BaseBuildError if job.trusted else KernelBuildError)(message, first, kept)


class _Log:
    """Appends a build's output to a file, up to a limit."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, line: bytes) -> None:
        if self._file.tell() < LOG_LIMIT:
            self._file.write(line[:LOG_LIMIT])


class _Counter:
    """Counts a build's steps and reports them."""

    def __init__(self, job: _Job) -> None:
        self.done = 0
        self._expected = _expected_steps(job.kind)
        self._started = time.monotonic()
        self._progress = job.progress

    def add(self, line: bytes) -> None:
        current = buildlog.step(line)
        if current is None:
            return
        self.done += 1
        seconds = time.monotonic() - self._started
        self._progress(BuildProgress(self.done, max(self._expected, self.done), seconds, current))


def _lines(log: Path) -> Iterator[str]:
    with log.open(errors="replace") as handle:
        yield from handle


def _expected_steps(kind: str) -> int:
    """How many steps the last build of this kind took here, or a usual number."""
    try:
        return int((cache.folder("steps") / kind).read_text())
    except (FileNotFoundError, ValueError):
        return _DEFAULT_STEPS[kind]


def make_newer(tree: PatchedTree, start: Path) -> None:
    """Date the files that the series changed after every object of the build folder `start`.

    The patched tree may have been made before the base was built, and make knows only times. What
    is newer than the base is left alone: a kernel of this tree in another flavor may have been
    built, whose objects would be older then, and all upon it would be compiled anew. A file may be
    a hard link of another tree's: of the source's, which has not changed then, or of a tree with a
    further series on top. Its link gives way to a copy, so that no other tree's file is dated.
    """
    built = newest(start)
    for path in tree.touched:
        file = tree.dir / path
        if not file.is_file() or file.is_symlink() or file.stat().st_mtime_ns > built:
            continue
        if file.stat().st_nlink > 1:
            copy = file.with_name(f".{file.name}.{os.getpid()}")
            shutil.copy2(file, copy)
            copy.replace(file)
        os.utime(file)
        if file.stat().st_mtime_ns <= built:
            raise InfraError(
                f"the clock went back since {start} was built: {file} cannot be dated after it, "
                "and make would take what the base has for what the series makes of it"
            )


def newest(start: Path) -> int:
    """The date of the newest file of a build folder, or of its record, in ns."""
    files = (Path(where) / name for where, _, names in os.walk(start) for name in names)
    return max(file.lstat().st_mtime_ns for file in (start.parent / RECORD, *files))


def genuine(work: Path, where: str) -> Path:
    """A file that the build left, no link: what a series builds decides what is there."""
    path = work / where
    if not path.is_file() or path.resolve() != work.resolve() / where:
        raise InfraError(f"the build passed, but left no regular file {where}")
    if path.stat().st_size > FILE_LIMIT:
        raise InfraError(f"the build left a {where} of {path.stat().st_size} bytes")
    return path


def _take(work: Path, where: str, target: Path) -> None:
    shutil.copyfile(genuine(work, where), target)


def _read(work: Path, where: str) -> str:
    return genuine(work, where).read_text(errors="replace")


def _require_same_config(work: Path, vmlinux: Path, wanted: str) -> None:
    """InfraError unless the kernel was built with the very configuration that was checked.

    tuxmake reports success also where it left a configuration aside, so the build folder is
    read again, and the copy inside the kernel where it has one (CONFIG_IKCONFIG).
    """
    expected = config.parse_config(wanted)
    found = {"the build folder": _read(work, ".config")}
    embedded = elf.embedded_config(vmlinux)
    if embedded is not None:
        found["vmlinux"] = embedded
    elif expected.get("IKCONFIG") == "y":
        raise InfraError("the kernel has CONFIG_IKCONFIG=y but carries no configuration")
    for where, text in found.items():
        if text != wanted:
            other = config.parse_config(text)
            symbols = sorted({k for k, _ in expected.items() ^ other.items()})
            raise InfraError(
                f"the configuration in {where} is not the one that was checked; different: "
                f"{', '.join('CONFIG_' + s for s in symbols[:5]) or 'comments only'}"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
