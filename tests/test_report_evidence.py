# SPDX-License-Identifier: GPL-2.0-only
"""Evidence in a report: the lines that tell most, bounded, and from the run folder alone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.report import evidence
from harness.report.evidence import EDGE, MAX_LINES, Excerpt
from harness.results import Cell, Check, Splat

SPLAT = Splat(kind="warn", title="WARNING: at a.c:1 f+0x1/0x2", key="warn: f")
CELL = Cell(
    id="n1-vhe-base",
    host="n1",
    kernel="base",
    kvm_mode="vhe",
    af_mode="hardware",
    outcome="fail",
    splats=(SPLAT,),
    splat_file="cells/n1-vhe-base/splats.txt",
)


def check(*files: str, splats: tuple[Splat, ...] = ()) -> Check:
    return Check(
        cell=CELL.id,
        name="test_a",
        outcome="fail",
        expected="",
        observed="",
        evidence=files,
        splats=splats,
    )


def test_a_small_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.txt").write_bytes(b"one\n\xff two\n")
    assert evidence.reader(tmp_path)("cells/a.txt") == "one\n\ufffd two\n"


def test_of_a_huge_file_only_the_ends_are_read(tmp_path: Path) -> None:
    with (tmp_path / "console.log").open("wb") as out:
        out.write(b"first\n")
        out.seek(100 << 20)
        out.write(b"\nlast\n")
    text = evidence.reader(tmp_path)("console.log")
    assert text is not None
    assert text.startswith("first\n")
    assert text.endswith("\nlast\n")
    assert f"[{(100 << 20) + 6 - 2 * EDGE} bytes are left out here]" in text
    assert len(text) < 2 * EDGE + 100


@pytest.mark.parametrize(
    "path", ["../secret", "cells/../../secret", "/etc/passwd", "", ".", "cells", "absent", "a\0b",
             "cells//x", "\ud800"]
)  # fmt: skip
def test_no_path_leads_out_of_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "secret").write_text("secret")
    run = tmp_path / "run"
    (run / "cells").mkdir(parents=True)
    (run / "cells" / "x").write_text("x")
    assert evidence.reader(run)("cells/x") == "x"
    assert evidence.reader(run)(path) is None


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    run = tmp_path / "run"
    run.mkdir()
    (run / "file").symlink_to(tmp_path / "secret")
    (run / "folder").symlink_to(tmp_path)
    (run / "own").write_text("own")
    (run / "inside").symlink_to("own")
    read = evidence.reader(run)
    assert [read(path) for path in ("file", "folder/secret", "inside")] == [None] * 3


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert evidence.reader(tmp_path)("pipe") is None


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    read = evidence.reader(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("a", "b", "a/b", "../a"):
        read(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_the_kernel_reported_comes_first() -> None:
    texts = {
        CELL.splat_file: f"1 report\n\n[ 3.1] {SPLAT.title}\n[ 3.2] pc : f\n",
        "error.txt": "Traceback",
    }
    found = evidence.of_check(check("x/error.txt", splats=(SPLAT,)), CELL, texts.get)
    assert found == Excerpt(CELL.splat_file, (f"[ 3.1] {SPLAT.title}", "[ 3.2] pc : f"))
    assert evidence.of_cell(CELL, texts.get) == found


def test_the_end_of_a_traceback() -> None:
    text = "\n".join(f"line {number}" for number in range(40)) + "\nValueError: x\n"
    found = evidence.of_check(check("a/before.txt", "a/error.txt"), CELL, {"a/error.txt": text}.get)
    assert found is not None
    assert found.lines[-1] == "ValueError: x"
    assert len(found.lines) == MAX_LINES


@pytest.mark.parametrize(
    "line", ["mm/x.c:1:2: error: expected ';'", "not ok 3 ucall", "ld: undefined reference to `f'"]
)
def test_the_line_of_a_log_that_says_what_went_wrong(line: str) -> None:
    text = f"  CC mm/x.o\n  LD vmlinux\n{line}\nmore\n"
    found = evidence.of_check(check("series/b/build.log"), None, {"series/b/build.log": text}.get)
    assert found == Excerpt("series/b/build.log", (line, "more"))


def test_dumps_and_traces_do_not_tell_in_words() -> None:
    texts = {"a/stage2.txt": "0x80000000 error", "a/trace.txt": "failed", "a/dmesg.txt": "error"}
    assert evidence.of_check(check(*texts), CELL, texts.get) is None


def test_a_cell_that_died_without_a_report_has_its_last_words() -> None:
    died = CELL.model_copy(update={"splats": (), "death": "hang"})
    console = {"cells/n1-vhe-base/console.log": "boot\r\nlast words\r\n\r\n"}
    assert evidence.of_cell(died, console.get) == Excerpt(
        "cells/n1-vhe-base/console.log", ("boot", "last words")
    )
    assert evidence.of_cell(died.model_copy(update={"death": None}), console.get) is None


def test_files_of_every_check_come_after_its_own() -> None:
    one = check("c/after.txt", "c/before.txt", "c/guest.txt", "c/trace.txt")
    assert evidence.files(one) == ["c/guest.txt", "c/trace.txt", "c/after.txt", "c/before.txt"]
