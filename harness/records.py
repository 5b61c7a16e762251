# SPDX-License-Identifier: GPL-2.0-only
"""records.jsonl: append-only, one JSON object a line, on disk before the next step starts."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from harness.errors import InfraError
from harness.results import Cell, Check

# Deaths that no console tells of.
SILENCE = ("hang", "gone")
KINDS: dict[str, type[Cell] | type[Check]] = {"cell": Cell, "check": Check}


def append(path: Path, record: Cell | Check) -> None:
    """Append a record and wait until it is on disk.

    A last line that was cut off by a kill goes: the new one would be lost with it.
    """
    kind = next(name for name, model in KINDS.items() if isinstance(record, model))
    line = json.dumps({kind: record.model_dump(mode="json")}) + "\n"
    with path.open("a+b") as out:
        out.seek(0)
        out.truncate(out.read().rfind(b"\n") + 1)
        out.write(line.encode())
        out.flush()
        os.fsync(out.fileno())


def read(path: Path) -> tuple[Cell | Check, ...]:
    """The records in a file, none if it is absent.

    A last line that was cut off by a kill is left out: its step had not ended. InfraError names
    any other line that is no record.
    """
    records: list[Cell | Check] = []
    data = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(data.split(b"\n")[:-1], 1):
        try:
            records.append(_parse(line))
        except (ValueError, AttributeError, KeyError) as exc:
            raise InfraError(f"{path}:{number}: not a record: {exc}") from exc
    return tuple(records)


def number(path: Path) -> int:
    """How many records a file has so far, 0 if it is absent; none of them is looked at."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@dataclass(frozen=True)
class OfCell:
    """What the records of a cell say together."""

    cell: Cell | None
    """How it ended, None if it has not."""
    checks: tuple[Check, ...]
    earlier: tuple[Cell, ...]
    """How it ended before, each time because the run lost its machine."""


def of_cell(path: Path, *, goes_on: bool = False) -> OfCell:
    """The records of a cell; with `goes_on`, one that lost its machine last has not ended by that.

    That a kernel fell silent proves nothing against it where its machine did not come back either:
    such a check is an error of the lab's, and is made again where the cell goes on.
    """
    checks: list[Check] = []
    silent: dict[str, Check] = {}
    ended: list[Cell] = []
    cell: Cell | None = None
    for record in read(path):
        if isinstance(record, Check):
            checks.append(record)
            silent.pop(record.name, None)
            cell = None
            continue
        cell = record
        ended.append(record)
        if record.lost:
            silent = {check.name: check for check in checks if check.death in SILENCE}
            checks = [check for check in checks if check.death not in SILENCE]
    if cell is None or (cell.lost and goes_on):
        return OfCell(None, tuple(checks), tuple(ended))
    *earlier, _ = ended
    words = tuple(f"{one.machine}: {one.reason}" for one in earlier if one.machine)
    errors = [check.model_copy(update={"death": None}) for check in silent.values()]
    return OfCell(cell.model_copy(update={"earlier": words}), (*checks, *errors), tuple(earlier))


def _parse(line: bytes) -> Cell | Check:
    ((kind, value),) = json.loads(line).items()
    return KINDS[kind].model_validate(value)


def write_atomically(path: Path, model: BaseModel) -> None:
    """Replace a JSON file so that a reader or a crash never meets half of it."""
    write_text_atomically(path, model.model_dump_json(indent=2, by_alias=True) + "\n")


def write_text_atomically(path: Path, text: str) -> None:
    """The same for any text, in UTF-8."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    temporary.rename(path)
