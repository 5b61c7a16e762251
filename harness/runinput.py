# SPDX-License-Identifier: GPL-2.0-only
"""run.json: what a run was asked for and what it was made from, so that it can go on after a kill.

A run goes on only from what it began with: other kernels, checks or promises would make one table
of two experiments. So each input is written down by its name as soon as it is known, and compared
by name when the run is resumed.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from harness import __version__, programs
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.paths import PROJECT
from harness.records import write_atomically
from harness.runfolder import places, refuse_imported, runs_home

SCHEMA = 1
NAME = "run.json"
# The cells of a run that was killed get SIGKILL when it is gone: they may be there for a moment.
ENDING_SECONDS = 5.0


class InputChanged(UsageError):
    """A run cannot go on: something that it is made from is not what it was."""


class RunInput(BaseModel):
    """The file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = Field(default=SCHEMA, alias="schema", serialization_alias="schema")
    started: str
    """UTC, ISO 8601."""
    resumed: tuple[str, ...] = ()
    """When the run went on, each time; as well."""
    cwd: Path
    """Where it was started: paths among the options may be relative to it."""
    options: dict[str, JsonValue]
    inputs: dict[str, str]
    """What it is made from, by name: digests, build ids, versions."""

    def agreed(self, now: Mapping[str, str]) -> RunInput:
        """This with inputs added; InputChanged names those that are recorded as something else."""
        changed = [
            f"{name}: {self.inputs[name]} then, {value} now"
            for name, value in now.items()
            if self.inputs.get(name, value) != value
        ]
        if changed:
            raise InputChanged(f"the run cannot go on, start a new one: {'; '.join(changed)}")
        return self.model_copy(update={"inputs": {**self.inputs, **now}})


def now() -> str:
    """The time as it stands in records: UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def begin(options: dict[str, JsonValue]) -> RunInput:
    """The input of a run that begins here and now."""
    return RunInput(
        schema=SCHEMA, started=now(), cwd=Path.cwd(), options=options, inputs={"harness": harness()}
    )


def load(name: str) -> tuple[Path, RunInput]:
    """A run's folder and input, by its path or its name among this user's; UsageError if none."""
    for folder in places(name):
        if not (folder / NAME).is_file():
            continue
        refuse_imported(folder, "it is not resumed")
        try:
            found = RunInput.model_validate_json((folder / NAME).read_text())
        except (ValidationError, UnicodeDecodeError) as exc:
            raise UsageError(f"{folder / NAME} is not from this version of the harness") from exc
        return folder.resolve(), found
    raise UsageError(f"no run {name!r}: no {NAME} there or in {runs_home() / name}")


def save(folder: Path, value: RunInput) -> None:
    """Write the file so that a kill leaves the old one or the new one."""
    write_atomically(folder / NAME, value)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[int]:
    """Keep a run's folder to one process and those that it gives the lock's descriptor to.

    UsageError if others still work in it after ENDING_SECONDS.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        deadline = Deadline(ENDING_SECONDS)
        while not _locked(handle):
            if deadline.expired():
                raise UsageError(f"the run in {folder} has not ended: it is still at work")
            time.sleep(0.05)
        yield handle
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def harness(project: Path = PROJECT) -> str:
    """This harness: its version and a digest of its program and what it says of base kernels.

    Its program are also the sources of what runs on hosts, since that is what counts and times.
    """
    files = [path for suffix in ("py", "sh") for path in (project / "harness").rglob(f"*.{suffix}")]
    files += [*programs.sources(project / "guests"), *(project / "series").glob("base*.yaml")]
    return f"{__version__}, {digest(files)}"


def digest(paths: Iterable[Path]) -> str:
    """SHA-256, shortened, over files and their names, whatever their order."""
    total = hashlib.sha256()
    for path in sorted(paths):
        body = path.read_bytes()
        total.update(f"{path.name}\0{len(body)}\0".encode() + body)
    return total.hexdigest()[:16]
