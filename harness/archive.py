# SPDX-License-Identifier: GPL-2.0-only
"""A run and all its evidence in one file, and back (docs/archive.md).

A gzipped tar of regular files alone, the manifest first. It is read header by header and not by
tarfile, which would follow extensions into memory that a stranger chooses the size of.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Protocol, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from harness import named
from harness.errors import UsageError
from harness.paths import state_home
from harness.report.load import load
from harness.results import Summary
from harness.runfolder import imported_home, runs_home

SCHEMA = 1
MANIFEST = "manifest.json"
SUFFIX = ".tar.gz"

MAX_FILES = 100_000
MAX_FILE = 1 << 30
MAX_TOTAL = 4 << 30
MAX_MANIFEST = 32 << 20
MAX_PADDING = 1 << 20
_CHUNK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.DIRTYPE: "a folder",
}


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes: ...


def wrong_path(path: str) -> str:
    """Why a path may not be in an archive, "" if it may."""
    if path.startswith("/"):
        return "an absolute path"
    parts = path.split("/")
    if ".." in parts:
        return "a path that leads out of the run"
    if "" in parts or "." in parts or _CONTROL.search(path) or len(path.encode()) > 255:
        return "not a plain path"
    return ""


def _within(path: str) -> str:
    if wrong := wrong_path(path):
        raise ValueError(f"{path!r}: {wrong}")
    return path


_Path = Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_within)]


class Entry(BaseModel):
    """One file of the run folder; `path` is relative to it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: _Path
    size: Annotated[int, Field(ge=0, le=MAX_FILE)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(BaseModel):
    """manifest.json: every file of the archive but itself, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    run: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")]
    """The name of the run's folder, and of the folder in the archive."""
    harness: str
    summary_schema: int
    files: Annotated[tuple[Entry, ...], Field(max_length=MAX_FILES)]
    missing: Annotated[tuple[_Path, ...], Field(max_length=MAX_FILES)] = ()
    """What summary.json names and the run folder did not have."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.schema_version != SCHEMA:
            raise ValueError(f"schema {self.schema_version}; this harness reads {SCHEMA}")
        paths = {entry.path for entry in self.files}
        if len(paths) < len(self.files) or MANIFEST in paths:
            raise ValueError("a file is named twice")
        parents = {parent for path in paths for parent in _parents(path)}
        if clash := sorted(parents & paths):
            raise ValueError(f"{clash[0]!r} is a file and a folder")
        if (total := sum(entry.size for entry in self.files)) > MAX_TOTAL:
            raise ValueError(f"{total} bytes; at most {MAX_TOTAL} are taken")
        return self


def _parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    for count in range(1, len(parts)):
        yield "/".join(parts[:count])


# ---- out ------------------------------------------------------------------------------------


def export(folder: Path, target: Path) -> Manifest:
    """Write a run folder to an archive, the same bytes for the same files.

    Links and what else is no regular file are left out; of what the summary names then is missing,
    the manifest has the paths. UsageError if the run has no summary, or is larger than an import
    takes.
    """
    manifest = manifest_of(folder)
    temporary = target.with_name(f".{target.name}.new")
    try:
        with temporary.open("wb") as raw:
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed,
                tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                _pack(tar, folder, manifest)
            raw.flush()
            os.fsync(raw.fileno())
        temporary.replace(target)
    except OSError as exc:
        raise UsageError(f"{target}: {exc.strerror or exc}") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return manifest


def missing(folder: Path) -> Mapping[str, str]:
    """What the summary of a run folder names and the folder does not have, and what names it."""
    return named.missing(load(folder), _paths(folder))


def manifest_of(folder: Path) -> Manifest:
    """What is in a run folder."""
    run = load(folder)
    paths = _paths(folder)
    try:
        return Manifest(
            schema=SCHEMA,
            run=folder.name,
            harness=run.harness,
            summary_schema=run.schema_version,
            files=tuple(_entry(folder, path) for path in paths),
            missing=tuple(sorted(named.missing(run, paths))),
        )
    except ValidationError as exc:
        raise UsageError(f"{folder} cannot be exported: {_first(exc)}") from exc


def _paths(folder: Path) -> list[str]:
    """The regular files of a folder, relative to it."""
    return sorted(
        str((Path(where) / name).relative_to(folder))
        for where, _, names in os.walk(folder)
        for name in names
        if (Path(where) / name).is_file() and not (Path(where) / name).is_symlink()
    )


def _entry(folder: Path, path: str) -> Entry:
    with (folder / path).open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
        return Entry(path=path, size=handle.tell(), sha256=digest)


def _pack(tar: tarfile.TarFile, folder: Path, manifest: Manifest) -> None:
    # Without it where it says nothing: a harness from before there was this takes whole runs.
    without = None if manifest.missing else {"missing"}
    text = (manifest.model_dump_json(indent=1, by_alias=True, exclude=without) + "\n").encode()
    with tempfile.TemporaryFile() as handle:
        handle.write(text)
        handle.seek(0)
        _add(tar, f"{manifest.run}/{MANIFEST}", len(text), handle)
    for entry in manifest.files:
        with (folder / entry.path).open("rb") as handle:
            _add(tar, f"{manifest.run}/{entry.path}", entry.size, handle)


def _add(tar: tarfile.TarFile, name: str, size: int, handle: IO[bytes]) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    try:
        tar.addfile(info, handle)
    except ValueError as exc:
        raise UsageError(f"{name} cannot be exported: {exc}") from exc


# ---- in -------------------------------------------------------------------------------------


def import_(file: Path) -> tuple[Path, bool]:
    """Unpack an archive among the imported runs; its folder, and whether it is new there.

    UsageError names the member that is not as it must be, and nothing is left then.
    """
    staging = state_home() / "incoming"
    staging.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=staging))
    try:
        manifest = _unpack(file, work)
        return _publish(work / manifest.run, manifest)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(unpacked: Path, manifest: Manifest) -> tuple[Path, bool]:
    target = imported_home() / manifest.run
    # A name among this user's own runs stands for that run, so no other may have it.
    for there in (runs_home() / manifest.run, target):
        if os.path.lexists(there):
            return _same(there, manifest), False
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        unpacked.rename(target)
    except OSError as exc:
        raise UsageError(f"{target}: {exc.strerror}") from exc
    return target, True


def _same(there: Path, manifest: Manifest) -> Path:
    """A folder that has the run's name; UsageError if it is not the same run."""
    if not there.is_dir() or there.is_symlink() or manifest_of(there).files != manifest.files:
        raise UsageError(f"{manifest.run}: another run of this name is there already: {there}")
    return there


def _unpack(file: Path, work: Path) -> Manifest:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    try:
        with gzip.open(file, "rb") as stream:
            manifest = _members(file, stream, work)
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise UsageError(f"{file}: not a whole archive of a run: {exc}") from exc
    try:
        summary = load(work / manifest.run)
    except UsageError as exc:
        raise UsageError(f"{file}: {str(exc).replace(f'{work}/', '')}") from exc
    if (summary.harness, summary.schema_version) != (manifest.harness, manifest.summary_schema):
        raise UsageError(f"{file}: {MANIFEST} and summary.json are not of the same run")
    _hold_to(file, summary, manifest)
    return manifest


def _hold_to(file: Path, summary: Summary, manifest: Manifest) -> None:
    """What a summary names is in the archive, or its manifest says that it is not; else UsageError.

    Evidence that was lost on the way, or that there never was, is found before anybody trusts it.
    """
    for by, path in named.named(summary):
        if wrong := wrong_path(path):
            raise UsageError(f"{file}: summary.json: {by} names {path!r}: {wrong}")
    lacks = named.missing(summary, [entry.path for entry in manifest.files])
    declared = set(manifest.missing)
    for path, by in lacks.items():
        if path not in declared:
            raise UsageError(f"{file}: {path}: {by} names it, and it is not in the archive")
    if there := sorted(declared - lacks.keys()):
        raise UsageError(f"{file}: {MANIFEST}: {there[0]}: is said to be missing, and is not")


def _members(file: Path, stream: _Stream, work: Path) -> Manifest:
    info = _header(file, stream)
    if info is None or not info.name.endswith(f"/{MANIFEST}") or info.size > MAX_MANIFEST:
        raise UsageError(f"{file}: does not begin with the manifest of a run")
    try:
        manifest = Manifest.model_validate_json(_exactly(stream, info.size), strict=True)
    except ValidationError as exc:
        raise UsageError(f"{file}: {info.name}: {_first(exc)}") from exc
    if info.name != f"{manifest.run}/{MANIFEST}":
        raise UsageError(f"{file}: {info.name}: is the manifest of {manifest.run}")
    _skip_padding(stream, info.size)
    left = {f"{manifest.run}/{entry.path}": entry for entry in manifest.files}
    seen = {info.name}
    while info := _header(file, stream):
        entry = left.pop(info.name, None)
        if entry is None:
            why = "is there twice" if info.name in seen else "is not in the manifest"
            raise UsageError(f"{file}: {info.name}: {why}")
        if info.size != entry.size:
            raise UsageError(f"{file}: {info.name}: has not the size that the manifest says")
        if _write(stream, work / info.name, info.size) != entry.sha256:
            raise UsageError(f"{file}: {info.name}: is not what the manifest says (SHA-256)")
        _skip_padding(stream, info.size)
        seen.add(info.name)
    if left:
        raise UsageError(f"{file}: {next(iter(left))}: is in the manifest, but not in the archive")
    rest = stream.read(MAX_PADDING + 1)
    if rest.strip(b"\0") or len(rest) > MAX_PADDING:
        raise UsageError(f"{file}: goes on after its end")
    return manifest


def _header(file: Path, stream: _Stream) -> tarfile.TarInfo | None:
    """The next member, None at the end; UsageError if it is no regular file at a plain path."""
    try:
        info = tarfile.TarInfo.frombuf(_exactly(stream, tarfile.BLOCKSIZE), "utf-8", "strict")
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    except (tarfile.HeaderError, ValueError) as exc:
        raise UsageError(f"{file}: not a tar of a run: {exc}") from exc
    if wrong := wrong_path(info.name):
        raise UsageError(f"{file}: {info.name}: {wrong}")
    if info.type != tarfile.REGTYPE:
        kind = _KINDS.get(info.type, f"of type {info.type!r}")
        raise UsageError(f"{file}: {info.name}: {kind}, and only files are taken")
    if not 0 <= info.size <= MAX_FILE:
        raise UsageError(f"{file}: {info.name}: {info.size} bytes; at most {MAX_FILE} are taken")
    return info


def _write(stream: _Stream, target: Path, size: int) -> str:
    """Write so many bytes to a new file; their SHA-256."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("xb") as out:
        while size:
            data = _exactly(stream, min(size, _CHUNK))
            digest.update(data)
            out.write(data)
            size -= len(data)
    return digest.hexdigest()


def _skip_padding(stream: _Stream, size: int) -> None:
    _exactly(stream, -size % tarfile.BLOCKSIZE)


def _exactly(stream: _Stream, size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError("it ends too early")
    return data


def _first(exc: ValidationError) -> str:
    first = exc.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where + ': ' if where else ''}{first['msg']}"
