# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers for a kernel that was built without any, made when they are asked for.

Debugging information in every kernel would triple the build folders, and hardly a run asks for it.
So the few objects that hold the functions in question are taken out of a copy of the build folder
and made again by kbuild, with a compiler in PATH that adds -g1 (line tables alone): it is
no part of kbuild's command lines, so nothing else is made again. gcc makes the same code with -g1
as without; that the two kernels are the same in every byte that is loaded is checked, not believed.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.kernel import build, build_folder, cache, elf, local_bench, sandbox, toolchain
from harness.kernel.apply import PatchedTree
from harness.kernel.built import Kernel
from harness.kernel.source import Source

# Objects that are made again for one kernel: one or two seconds each on a quiet machine.
MAX_OBJECTS = 24
_NOTE_LIMIT = 1 << 20
# The functions of EL2 have this before their names in vmlinux (arch/arm64/kvm/hyp/nvhe/Makefile).
_NVHE = "__kvm_nvhe_"
# Programs of the build itself, and what is linked into other things than the kernel.
_NOT_KERNEL = re.compile(r"(?:scripts|tools|usr|certs)/|.*/vdso(?:32)?/")
_GCC = f"{toolchain.PREFIX}gcc"
# The compiler that follows in PATH.
_WRAPPER = f'#!/bin/sh\nPATH=${{PATH#*:}} exec {_GCC} "$@" -g1\n'
_BIN = Path("/lines")
_CCACHE = Path("/ccache")


def with_lines(
    kernel: Kernel,
    tree: Source | PatchedTree,
    base: Kernel,
    functions: Iterable[str],
    deadline: Deadline,
) -> Path:
    """A vmlinux that is `kernel`'s in all that is loaded, with line numbers for these functions.

    `kernel` was built from `tree`, upon the build folder of `base` if it has none of its own. Names
    as in System.map; those of assembly, and those after too many others, get no numbers. Raises
    InfraError if what is made is another kernel, or cannot be made; DeadlineExceeded when
    time runs out.
    """
    start = kernel.build_dir or base.build_dir
    if kernel.tree != tree.digest:
        raise ValueError(f"{kernel.key} is not of {tree.digest}")
    if start is None:
        raise InfraError(f"it was built on {kernel.builder}, and no build folder is kept there")
    if elf.has_lines(kernel.vmlinux):
        return kernel.vmlinux
    chosen = objects_of(functions, _symbols(start, objects(start), deadline))
    name = hashlib.sha256("\n".join(sorted(chosen)).encode()).hexdigest()[:16]
    entry = cache.get_or_make(
        "lines", f"{kernel.key}-{name}",
        lambda stage: _fill(stage, start, kernel, tree, chosen, deadline),
        deadline=deadline, what=f"line numbers for {tree.description}", need=build.NEED,
    )  # fmt: skip
    return entry.path / "vmlinux"


def objects(build_dir: Path) -> tuple[str, ...]:
    """The kernel's objects that a compiler made of one source, as kbuild noted beside each."""
    found = []
    for parent, _, names in os.walk(build_dir):
        for name in names:
            if not (name.startswith(".") and name.endswith(".o.cmd")):
                continue
            note = Path(parent) / name
            target = note.with_name(name[1:-4])
            relative = str(target.relative_to(build_dir))
            if _NOT_KERNEL.match(relative) or note.is_symlink() or not target.is_file():
                continue
            if is_compiled(relative, note.read_text(errors="replace")[:_NOTE_LIMIT]):
                found.append(relative)
    return tuple(sorted(found))


def is_compiled(target: str, note: str) -> bool:
    """Whether kbuild noted a source for an object (scripts/basic/fixdep.c); others are linked.

    virt/kvm/kvm_main.o is noted as arch/arm64/kvm/../../../virt/kvm/kvm_main.o.
    """
    noted = re.findall(r"^source_(\S+) := \S+\.c$", note, re.MULTILINE)
    return target in map(os.path.normpath, noted)


def objects_of(functions: Iterable[str], symbols: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The objects that hold these functions, those of the first before those of the next.

    A static function of one name may be in several: then all of them, since nothing tells which.
    """
    found: dict[str, None] = {}
    for function in functions:
        hyp = function.startswith(_NVHE)
        for one in symbols.get(function.removeprefix(_NVHE), ()):
            if PurePosixPath(one).name.endswith(".nvhe.o") is hyp:
                found[one] = None
    return tuple(found)[:MAX_OBJECTS]


def parse_symbols(text: str) -> dict[str, list[str]]:
    """Function -> objects, from the output of `nm -A --defined-only`."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        where, _, rest = line.partition(":")
        match rest.split():
            case [_, "t" | "T" | "W" | "w", name]:
                found.setdefault(name, []).append(where)
    return found


def _symbols(build_dir: Path, names: Sequence[str], deadline: Deadline) -> dict[str, list[str]]:
    box = sandbox.Sandbox({build_dir: sandbox.BUILD}, directory=sandbox.BUILD)
    argv = ["xargs", "-0", f"{toolchain.PREFIX}nm", "-A", "--defined-only"]
    given = "\0".join(names).encode()
    what = "nm to list the kernel's functions"
    # It complains of objects that are empty, and lists the others.
    return parse_symbols(sandbox.run(box, argv, deadline=deadline, what=what, stdin=given).stdout)


def _fill(
    stage: Path,
    start: Path,
    kernel: Kernel,
    tree: Source | PatchedTree,
    chosen: Sequence[str],
    deadline: Deadline,
) -> None:
    work = stage / "build"
    argv = ("cp", "--archive", "--reflink=auto", str(start), str(work))
    proc.run(argv, deadline=deadline, what="copying the build folder")
    if start != kernel.build_dir and isinstance(tree, PatchedTree):
        build_folder.make_newer(tree, start)
    shutil.copyfile(kernel.config, work / ".config")
    for one in chosen:
        (work / one).unlink()
    wrapper = stage / "bin" / _GCC
    wrapper.parent.mkdir()
    wrapper.write_text(_WRAPPER)
    wrapper.chmod(0o755)
    what = f"making {len(chosen)} objects again with line numbers"
    box = _sandbox(work, wrapper.parent, tree)
    make = local_bench.tuxmake_argv(tree.digest, kernel.localversion)
    done = sandbox.run(box, make, deadline=deadline, what=what)
    if done.returncode != 0:
        raise InfraError(f"{what} failed (exit {done.returncode}): {done.tail(5)}")
    made = build_folder.genuine(work, "vmlinux")
    if elf.loaded(made) != elf.loaded(kernel.vmlinux):
        raise InfraError(f"{what} gave another kernel than the one that ran")
    made.rename(stage / "vmlinux")
    cache.remove(work)


def _sandbox(work: Path, wrapper: Path, tree: Source | PatchedTree) -> sandbox.Sandbox:
    """As for a build of a series: these objects must not get into the compiler cache."""
    return sandbox.Sandbox(
        {
            tree.dir: sandbox.SOURCE,
            cache.folder("ccache"): _CCACHE,
            wrapper: _BIN,
            **sandbox.python_prefixes(),
        },
        {work: sandbox.BUILD},
        {
            "PATH": f"{_BIN}:{sandbox.PATH}",
            "CCACHE_DIR": str(_CCACHE),
            "CCACHE_READONLY": "1",
            "CCACHE_TEMPDIR": "/tmp",
        },
        sandbox.SOURCE,
    )
