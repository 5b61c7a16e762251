# SPDX-License-Identifier: GPL-2.0-only
"""A series applied to a source: a tree of its own in the cache, whole or absent."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.kernel import cache, sandbox, unpack
from harness.kernel.series import Patch, Series
from harness.kernel.source import Source

NEED = cache.GIB // 4  # hard links: folders, and the files that change
_FAILED = re.compile(r"^error: patch failed: (?P<file>.+):(?P<line>\d+)$", re.MULTILINE)
_ERROR = re.compile(r"^(?:error|fatal): (?P<text>.+)$", re.MULTILINE)


class PatchedTree(BaseModel):
    """A source with a series applied. `touched` are the paths that the series names.

    `digest` is of the source's content and the series' diffs in their order: never of a name,
    a subject or an author.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dir: Path
    digest: str
    source_digest: str
    version: str
    description: str
    touched: tuple[str, ...]


def apply(series: Series, source: Source | PatchedTree, deadline: Deadline) -> PatchedTree:
    """The source with every patch of the series applied by `git apply`, strictly, in order.

    The source may be one with another series applied; what it was made from is no matter then.

    UsageError names patch, file and hunk if one does not apply; then nothing is left.
    """
    digest = hashlib.sha256(f"{source.digest}\n{series.digest}\n".encode()).hexdigest()
    what = f"applying {series.name} to {source.description}"

    def fill(stage: Path) -> None:
        tree = stage / "tree"
        _link_copy(source.dir, tree, deadline)
        for number, patch in enumerate(series.patches, 1):
            _apply_one(number, len(series.patches), patch, tree, deadline)

    entry = cache.get_or_make("trees", digest, fill, deadline=deadline, what=what, need=NEED)
    return PatchedTree(
        dir=entry.path / "tree",
        digest=digest,
        source_digest=source.digest,
        version=source.version,
        description=f"{source.description} with {series.name}",
        touched=series.touched,
    )


def explain(errors: str, patch: Patch) -> str:
    """What `git apply` complains of: the file and the hunk by number, or its first error."""
    if failed := _FAILED.search(errors):
        file, line = failed["file"], int(failed["line"])
        starts = next((f.hunks for f in patch.files if file in f.paths), ())
        if line in starts:
            return f"{file}: hunk {starts.index(line) + 1} of {len(starts)} (line {line})"
        return f"{file}: line {line}"
    if error := _ERROR.search(errors):
        return error["text"]
    return errors.strip().splitlines()[-1] if errors.strip() else "no reason given"


def _link_copy(origin: Path, target: Path, deadline: Deadline) -> None:
    """Copy a tree by hard links, or by content where they cannot be made.

    git apply unlinks a file before it writes, so the origin keeps its own.
    """
    for how in ("--link", "--reflink=auto"):
        argv = ("cp", "--archive", how, str(origin), str(target))
        done = proc.run(argv, deadline=deadline, what=f"copying {origin}", check=False)
        if done.returncode == 0:
            return
        if "No space left on device" in done.stderr:
            raise OSError(28, "No space left on device")
        cache.remove(target)
    raise InfraError(f"copying {origin} to {target} failed: {done.tail(3)}")


def _apply_one(number: int, total: int, patch: Patch, tree: Path, deadline: Deadline) -> None:
    """Apply one patch inside a sandbox that can write nothing but the tree."""
    where = f"patch {number}/{total} ({patch.subject}) of {patch.origin}"
    box = sandbox.Sandbox(
        writable={tree: sandbox.SOURCE},
        environment={
            "GIT_CEILING_DIRECTORIES": "/",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        },
        directory=sandbox.SOURCE,
    )
    argv = ("git", "apply", "--verbose", "--whitespace=nowarn", "-p1", "-")
    done = sandbox.run(box, argv, deadline=deadline, what=where, stdin=patch.diff)
    if "No space left on device" in done.stderr:
        raise OSError(28, "No space left on device")
    if done.returncode != 0:
        raise UsageError(f"{where} does not apply: {explain(done.stderr, patch)}")
    for path in patch.touched:
        changed = tree / path
        if changed.is_symlink() and not unpack.leads_inside(changed, tree.resolve()):
            raise UsageError(f"{where}: {path} is a link out of the tree: {changed.readlink()}")
