# SPDX-License-Identifier: GPL-2.0-only
"""records.jsonl: append-only, one JSON object a line, on disk before the next step starts."""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel

from harness.errors import InfraError
from harness.results import Cell, Check

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
