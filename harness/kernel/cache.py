# SPDX-License-Identifier: GPL-2.0-only
"""Entries on disk that are either whole or absent, safe against kills and against each other.

An entry is filled in a staging folder and published by rename(2) within one file system. Whoever
fills holds flock(2) on the entry's lock file, and on the staging folder's own: the kernel drops
both when their holder dies, however it dies, so what nobody holds may be swept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.paths import cache_home

POLL_SECONDS = 0.1
GIB = 1 << 30

# How many entries of a kind are kept; an unpacked source is 1.7 GB, a base kernel 0.3 GB. All
# mutants must find room, or each run of them would make anew what the last one made: a patched
# kernel is 25 MB (56 MB with debugging), a patched tree its folders alone, 20 MB. A vmlinux
# with line numbers is 14 MB (40 MB with debugging). Kernels of a machine's own configuration, with
# modules, are far larger, as are their build folders.
KEEP = {
    "sources": 4,
    "trees": 400,
    "builds": 400,
    "machines": 8,
    "lines": 16,
    "selftests": 16,
}
# Shared locks on the entries that this process uses; they last as long as it does.
_in_use: dict[Path, IO[str]] = {}


@dataclass(frozen=True)
class Entry:
    """A published folder of the cache; `fresh` if this call made it."""

    path: Path
    fresh: bool


def kernel_cache() -> Path:
    """The folder of everything that this package keeps: sources, trees, builds, ccache, logs."""
    path = cache_home() / "kernel"
    path.mkdir(parents=True, exist_ok=True)
    return path


def folder(kind: str) -> Path:
    """The folder of one kind of entry, made if absent."""
    path = kernel_cache() / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


def lookup(kind: str, key: str) -> Path | None:
    """The published entry of that name, if there is one."""
    path = folder(kind) / key
    return path if path.is_dir() else None


def get_or_make(
    kind: str, key: str, fill: Callable[[Path], None], *, deadline: Deadline, what: str, need: int
) -> Entry:
    """The entry `kind`/`key`; absent, `fill` makes it in the empty folder that it is given.

    Of several processes that want one entry, one fills it and the others wait for it, each no
    longer than its own deadline. `need` is the bytes that must be free before `fill` begins.
    InfraError when the disk is full, DeadlineExceeded when another process holds the entry for
    too long; nothing is left of an entry whose `fill` raised.
    """
    if not re.fullmatch(r"[A-Za-z0-9._+~-]+", key) or key.startswith("."):
        raise ValueError(f"not a name for a cache entry: {key!r}")
    final = folder(kind) / key
    _use(kind, key)
    if final.is_dir():
        os.utime(final)
        return Entry(final, fresh=False)
    with locked(folder("locks") / f"{kind}-{key}", deadline, what), naming_full_disk(what, need):
        if (found := lookup(kind, key)) is not None:
            return Entry(found, fresh=False)
        sweep()
        require_space(need, what)
        with staging(kind, key) as stage:
            fill(stage)
            stage.rename(final)
    prune(kind)
    return Entry(final, fresh=True)


def prune(kind: str) -> list[str]:
    """Remove the entries of a kind that were not used for the longest time, beyond KEEP of them.

    Those that a running process uses stay. Returns the names of what was removed.
    """
    if kind not in KEEP:
        return []
    entries = sorted(folder(kind).iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
    pruned = []
    for entry in entries[KEEP[kind] :]:
        with _use_lock(kind, entry.name).open("w") as handle:
            if _try_lock(handle.fileno()):
                discard(kind, entry.name)
                pruned.append(entry.name)
    return pruned


def discard(kind: str, key: str) -> None:
    """Take an entry that proved unusable out of the cache: at once by rename, then remove it."""
    with staging(kind, key) as stage, contextlib.suppress(FileNotFoundError):
        (folder(kind) / key).rename(stage / "discarded")


@contextlib.contextmanager
def locked(path: Path, deadline: Deadline, what: str) -> Iterator[None]:
    """Hold an exclusive flock(2) on `path`; DeadlineExceeded if another holds it for too long."""
    with path.open("w") as handle:
        while not _try_lock(handle.fileno()):
            deadline.check(f"another kvm-harness that works on {what} (it holds {path})")
            time.sleep(POLL_SECONDS)
        yield


@contextlib.contextmanager
def staging(kind: str, key: str) -> Iterator[Path]:
    """An empty folder on the cache's file system, gone at the end unless it was renamed away."""
    root = folder("staging")
    name = f"{kind}-{key[:40]}-{os.getpid()}-{time.monotonic_ns()}"
    path, lock = root / name, root / f"{name}.lock"
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        path.mkdir()
        try:
            yield path
        finally:
            remove(path)
            lock.unlink(missing_ok=True)


def sweep() -> list[str]:
    """Remove the staging folders whose owner is gone, and return their names."""
    root = folder("staging")
    swept = []
    for lock in sorted(root.glob("*.lock")):
        with contextlib.suppress(FileNotFoundError), lock.open("r+") as handle:
            if _try_lock(handle.fileno()):
                remove(lock.with_suffix(""))
                lock.unlink(missing_ok=True)
                swept.append(lock.stem)
    return swept


def remove(path: Path) -> None:
    """Remove a folder tree if it exists, whatever permissions its folders have."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
        return
    path.chmod(0o700)
    for parent, subfolders, _ in os.walk(path):
        for name in subfolders:
            where = os.path.join(parent, name)  # noqa: PTH118 -- thousands of them
            if not os.path.islink(where):  # noqa: PTH114
                os.chmod(where, 0o700)  # noqa: PTH101
    shutil.rmtree(path)


def require_space(need: int, what: str) -> None:
    """InfraError unless `need` bytes are free where the cache is."""
    free = shutil.disk_usage(kernel_cache()).free
    if free < need:
        raise InfraError(
            f"{what} needs {need / GIB:.1f} GiB free at {kernel_cache()}, "
            f"where {free / GIB:.1f} GiB are; free some, or set XDG_CACHE_HOME to a larger disk"
        )


@contextlib.contextmanager
def naming_full_disk(what: str, need: int) -> Iterator[None]:
    """Turn ENOSPC and EDQUOT into an InfraError that says where and how much is needed."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise disk_full(what, need) from exc


def disk_full(what: str, need: int) -> InfraError:
    """The error for a disk that ran full while `what` was made."""
    return InfraError(
        f"disk full at {kernel_cache()} during {what}, which needs about {need / GIB:.1f} GiB; "
        "free some, or set XDG_CACHE_HOME to a larger disk"
    )


def _use_lock(kind: str, key: str) -> Path:
    return folder("locks") / f"use-{kind}-{key}"


def _use(kind: str, key: str) -> None:
    """Keep an entry from being pruned while this process lives."""
    path = _use_lock(kind, key)
    if path not in _in_use:
        handle = path.open("w")
        fcntl.flock(handle, fcntl.LOCK_SH)
        _in_use[path] = handle


def _try_lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
