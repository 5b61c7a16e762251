# SPDX-License-Identifier: GPL-2.0-only
"""Records are on disk before the next step, and a kill costs no more than the last line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from harness import records
from harness.errors import Death, InfraError
from harness.plan import PlannedCell
from harness.records import append, number, of_cell
from harness.results import Cell, Check

CELL = Cell(
    id="n1-vhe-base",
    host="n1",
    kernel="base",
    kvm_mode="vhe",
    af_mode="hardware",
    outcome="error",
    reason="a panic:\n\x1b[2J \u2028 \N{SNOWMAN}",
    death="panic",
)
CHECK = Check(
    cell="n1-vhe-base",
    name="test_a",
    outcome="fail",
    expected="4096 young",
    observed="0 young\nand a line separator \x85 more",
    evidence=("cells/n1/a.txt", "cells/n1/b.txt"),
)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert records.read(path) == ()
    for record in (CHECK, CELL, CHECK):
        records.append(path, record)
    assert records.read(path) == (CHECK, CELL, CHECK)
    assert len(path.read_bytes().split(b"\n")) == 4
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_the_number_of_records_so_far(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert number(path) == 0
    path.write_text('{"check": {}}\n{"check": {}}\n{"che')
    assert number(path) == 2


def test_every_cut_leaves_the_records_before_it(tmp_path: Path) -> None:
    """The harness may be killed after any byte of the last line."""
    path = tmp_path / "records.jsonl"
    records.append(path, CELL)
    first = path.stat().st_size
    records.append(path, CHECK)
    whole = path.read_bytes()
    for cut in range(first, len(whole)):
        path.write_bytes(whole[:cut])
        assert records.read(path) == (CELL,)


def test_a_record_after_a_cut_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    records.append(path, CHECK)
    with path.open("ab") as out:
        out.write(b'{"cell": {"id": "n1-vh')
    records.append(path, CELL)
    assert records.read(path) == (CHECK, CELL)


def test_only_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(b'{"cell"')
    assert records.read(path) == ()
    records.append(path, CELL)
    assert records.read(path) == (CELL,)


@pytest.mark.parametrize(
    "line", ["garbage", "[]", "{}", "3", '{"cell": {}}', '{"other": {}}', '{"cell": 1, "check": 2}']
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "records.jsonl"
    records.append(path, CELL)
    with path.open("a") as out:
        out.write(f"{line}\n")
    with pytest.raises(InfraError, match=r"records\.jsonl:2: not a record"):
        records.read(path)


def test_append_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "records.jsonl"
    on_disk: list[bytes] = []

    def fsync(fd: int) -> None:
        on_disk.append(Path(f"/proc/self/fd/{fd}").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    records.append(path, CELL)
    assert on_disk == [path.read_bytes()]
    assert on_disk[0].endswith(b"\n")


class Note(BaseModel):
    text: str


def test_atomic_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    records.write_atomically(path, Note(text="old"))
    synced: list[bytes] = []

    def fsync(fd: int) -> None:
        # What a reader meets while the new content is not wholly there yet.
        assert json.loads(path.read_text()) == {"text": "old"}
        synced.append(Path(f"/proc/self/fd/{fd}").read_bytes())

    monkeypatch.setattr(os, "fsync", fsync)
    records.write_atomically(path, Note(text="new \N{SNOWMAN}"))
    assert synced == [path.read_bytes()]
    assert json.loads(path.read_bytes()) == {"text": "new \N{SNOWMAN}"}
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.json"
    records.write_atomically(path, Note(text="old"))

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        records.write_atomically(path, Note(text="new"))
    assert json.loads(path.read_text()) == {"text": "old"}


DIED: dict[str, Death] = {"a": "panic", "b": "hang"}


def test_a_cell_that_lost_its_machine_and_then_found_none(tmp_path: Path) -> None:
    """What was silent on the first is no record of the second time."""
    path = tmp_path / "records.jsonl"
    planned = PlannedCell("altra", "base", "vhe", "hardware")
    panic, hang = (
        Check(cell=planned.id, name=name, outcome="error", expected="", observed="", death=death)
        for name, death in DIED.items()
    )
    down, none = (
        planned.record(reason=kind).model_copy(update={"lost": kind, "machine": machine})
        for kind, machine in (("down", "altra1"), ("unavailable", ""))
    )
    for record in (panic, hang, down):
        append(path, record)
    found = of_cell(path)
    assert found.cell == down
    assert [(one.name, one.death) for one in found.checks] == [("a", "panic"), ("b", None)]
    assert of_cell(path, goes_on=True).checks == (panic,)
    append(path, none)
    found = of_cell(path)
    assert found.cell == none.model_copy(update={"earlier": ("altra1: down",)})
    assert found.checks == (panic,)
