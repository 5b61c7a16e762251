# SPDX-License-Identifier: GPL-2.0-only
"""The KVM selftests of a tree, built static for arm64 in the sandbox, kept in the cache.

The tree's own Makefile says which it has for arm64. Each is made by itself, so that one which does
not compile takes no other along.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.kernel import buildlog, cache, sandbox, toolchain
from harness.kernel.apply import PatchedTree
from harness.kernel.build_folder import genuine
from harness.kernel.source import Source
from harness.selftests import getopt
from harness.selftests.table import FOLDER, SELFTESTS

# Part of every key: raise it when the way of building changes what is built.
RECIPE = "2"
NEED = cache.GIB // 4
LOG_LIMIT = 4 << 20  # bytes of a log; a patch decides what its build prints
_OUTPUT = sandbox.BUILD / "kvm"
# What selftests are built from: their own folder, headers of the tools, and the user API.
_SOURCES = re.compile(r"tools/|(?:include|arch/arm64/include)/uapi/|usr/")


class Selftests(BaseModel):
    """The selftests of one tree, by their names in the table (or their older ones).

    `programs` are those that were built, `broken` says of others why they do not compile. What is
    in neither the tree does not have for arm64.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tree: str
    """The tree in words."""
    programs: dict[str, Path]
    broken: dict[str, str]
    options: dict[str, frozenset[str]] = {}
    """Of each, built or broken, those that its source is known to take (getopt.py)."""


def differ(touched: Sequence[str]) -> bool:
    """Whether a series that touches these paths may have selftests other than the base's."""
    return any(_SOURCES.match(path) for path in touched)


def build(tree: Source | PatchedTree, deadline: Deadline) -> Selftests:
    """The selftests of a tree, built unless the cache has them.

    That one does not compile is a fact about the tree, told in the result. InfraError for a full
    disk or too little memory, DeadlineExceeded when time runs out.
    """
    tools = toolchain.find(deadline)
    wanted = [name for test in SELFTESTS for name in test.names]
    parts = [RECIPE, tree.digest, tools.identity, wanted]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    what = f"building the KVM selftests of {tree.description}"
    entry = cache.get_or_make(
        "selftests",
        key,
        lambda stage: _fill(stage, cache.folder("selftests") / key, tree, wanted, deadline, what),
        deadline=deadline,
        what=what,
        need=NEED,
    )
    made = Selftests.model_validate_json((entry.path / "selftests.json").read_text())
    # Not in the cache's file: they are read in no time, and an entry of before has none.
    options = {name: getopt.of_tree(tree.dir, name) for name in (*made.programs, *made.broken)}
    return made.model_copy(update={"options": options})


def _fill(
    stage: Path,
    final: Path,
    tree: Source | PatchedTree,
    wanted: Sequence[str],
    deadline: Deadline,
    what: str,
) -> None:
    work = stage / "build"
    # Makefile.include of the tools wants it to be there.
    (work / "tools").mkdir(parents=True)
    (stage / "programs").mkdir()
    box = sandbox.Sandbox(
        read_only={tree.dir: sandbox.SOURCE},
        writable={work: sandbox.BUILD},
        # In the environment: on the command line it would keep the Makefile's own flags out.
        environment={"LDFLAGS": "-static"},
        directory=sandbox.SOURCE,
    )

    def make(log: str, *arguments: str) -> str | None:
        """None, or why it failed."""
        return _make(box, stage / log, arguments, deadline, what)

    programs: dict[str, Path] = {}
    broken: dict[str, str] = {}
    if (tree.dir / FOLDER / "Makefile").is_file():
        jobs = f"--jobs={len(os.sched_getaffinity(0))}"
        failed = make("headers.log", f"O={sandbox.BUILD}", jobs, "headers")
        if failed is None:
            failed = make("list.log", *_kvm(), _LIST, "--silent", "harness-list")
        targets = {} if failed else _targets((stage / "list.log").read_text(errors="replace"))
        for name in [] if failed else [name for name in wanted if name in targets]:
            why = make(f"{name}.log", *_kvm(), jobs, targets[name])
            if why is not None:
                broken[name] = why
                continue
            built = genuine(work, str(Path(targets[name]).relative_to(sandbox.BUILD)))
            shutil.copyfile(built, stage / "programs" / name)
            programs[name] = final / "programs" / name
        if failed:
            broken = dict.fromkeys(wanted, failed)
    cache.remove(work)
    made = Selftests(tree=tree.description, programs=programs, broken=broken)
    (stage / "selftests.json").write_text(made.model_dump_json(indent=2) + "\n")


# Asks make itself: which programs there are, and in which folder, differs from tree to tree.
_LIST = r'--eval=harness-list: ; @printf "%s\n" $(TEST_GEN_PROGS)'


def _kvm() -> tuple[str, ...]:
    """The arguments that every make in the folder of the KVM selftests gets."""
    return (
        f"--directory={sandbox.SOURCE / FOLDER}",
        f"OUTPUT={_OUTPUT}",
        # Where the headers go that the tools generate; the tree cannot be written to.
        f"abs_objdir={sandbox.BUILD}",
        # They then name what they do: page_fault_test each of its parts.
        "EXTRA_CFLAGS=-DDEBUG",
        f"KHDR_INCLUDES=-isystem {sandbox.BUILD}/usr/include",
    )


def _targets(listed: str) -> dict[str, str]:
    """The targets of a tree by the names of their programs."""
    paths = [line.strip() for line in listed.splitlines() if line.startswith(f"{_OUTPUT}/")]
    return {path.rpartition("/")[2]: path for path in paths}


def _make(
    box: sandbox.Sandbox, log: Path, arguments: Sequence[str], deadline: Deadline, what: str
) -> str | None:
    argv = ["make", "ARCH=arm64", f"CROSS_COMPILE={toolchain.PREFIX}", *arguments]
    with log.open("wb") as out:

        def on_line(line: bytes) -> None:
            if out.tell() < LOG_LIMIT:
                out.write(line[:LOG_LIMIT])

        status = sandbox.stream(box, argv, on_line, deadline=deadline, what=what)
    if status == 0:
        return None
    lines = log.read_text(errors="replace").splitlines()
    lacking = buildlog.ran_out(lines)
    if lacking == "disk":
        raise cache.disk_full(what, NEED)
    if lacking == "memory":
        raise InfraError(f"out of memory during {what}; give it more, or fewer CPUs")
    return buildlog.first_error(lines) or f"make exited {status}"
