# SPDX-License-Identifier: GPL-2.0-only
"""The guest program is built once for each state of its source and of the compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import programs
from harness.deadline import Deadline
from harness.errors import InfraError

MAKEFILE = "all:\n\t@cat main.c > $(O)/kvm-guest\n\t@echo built with $(CC) >> $(O)/kvm-guest\n"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    compiler(tmp_path, monkeypatch, "12.2.0")
    # A folder above that is called like the one that is left out.
    folder = tmp_path / "build" / "guests"
    folder.mkdir(parents=True)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "main.c").write_text("one\n")
    return folder


def compiler(folder: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    path = folder / "fake-gcc"
    path.write_text(f"#!/bin/sh\necho gcc {version}\n")
    path.chmod(0o755)
    monkeypatch.setattr(programs, "compiler", lambda: str(path))


def made(source: Path) -> Path:
    return programs.guest_program(Deadline(20), source)


def test_is_built_once(source: Path, tmp_path: Path) -> None:
    first = made(source)
    assert first.read_text() == f"one\nbuilt with {tmp_path}/fake-gcc\n"
    stamp = first.stat().st_mtime_ns
    assert made(source) == first
    assert first.stat().st_mtime_ns == stamp


def test_another_source_is_another_program(source: Path) -> None:
    first = made(source)
    (source / "main.c").write_text("two\n")
    second = made(source)
    assert second != first
    assert second.read_text().startswith("two\n")
    (source / "main.h").write_text("")
    assert made(source) != second


def test_another_compiler_is_another_program(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(source)
    compiler(tmp_path, monkeypatch, "13.0.0")
    assert made(source) != first


def test_what_was_built_by_hand_does_not_count(source: Path) -> None:
    first = made(source)
    (source / "build").mkdir()
    (source / "build" / "main.o").write_text("x")
    assert made(source) == first


@pytest.mark.parametrize("name", [".checkpatch-camelcase.date.1", ".main.c.swp", ".cache/x"])
def test_what_a_tool_left_does_not_count(source: Path, name: str) -> None:
    first = made(source)
    (source / name).parent.mkdir(exist_ok=True)
    (source / name).write_text("x")
    assert made(source) == first


def test_an_error_of_the_compiler_is_shown_and_not_kept(source: Path) -> None:
    (source / "Makefile").write_text(
        "all:\n\t@echo main.c:1: error: no >&2; touch $(O)/x; exit 1\n"
    )
    for _ in range(2):
        with pytest.raises(InfraError, match=r"building the programs(.|\n)*main\.c:1: error"):
            made(source)
