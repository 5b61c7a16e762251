# SPDX-License-Identifier: GPL-2.0-only
"""What reports show of evidence is bounded, printable, and from inside the run folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.report.excerpts import EACH, Evidence


def run_folder(tmp_path: Path, **files: str | bytes) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return folder


def test_a_small_file_is_shown_whole(tmp_path: Path) -> None:
    seen = Evidence(run_folder(tmp_path, log="one\ntwo")).excerpt("log")
    assert (seen.head, seen.tail, seen.left_out) == ("one\ntwo", "", 0)
    assert (seen.href, seen.size, seen.note) == ("./log", 7, "")


def test_head_and_tail_of_a_large_file_in_whole_lines(tmp_path: Path) -> None:
    lines = [f"line {number}\n" for number in range(10_000)]
    seen = Evidence(run_folder(tmp_path, log="".join(lines))).excerpt("log")
    assert seen.head.startswith("line 0\n") and seen.tail.endswith("line 9999\n")
    assert set((seen.head + seen.tail).splitlines(keepends=True)) <= set(lines)
    shown = len(seen.head + seen.tail)
    assert EACH - 20 < shown <= EACH
    assert seen.left_out == seen.size - shown  # type: ignore[operator]


def test_a_file_without_lines_is_cut_anywhere(tmp_path: Path) -> None:
    seen = Evidence(run_folder(tmp_path, log="x" * 50_000)).excerpt("log")
    assert len(seen.head) == len(seen.tail) == EACH // 2


def test_a_hundred_megabytes_are_not_read(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, log="first\n" * 2000)
    with (folder / "log").open("r+b") as file:
        file.seek(100 << 20)
        file.write(b"last\n" * 2000)
    seen = Evidence(folder).excerpt("log")
    assert seen.size == (100 << 20) + 10_000
    assert seen.head.startswith("first") and seen.tail.endswith("last\n")
    assert len(seen.head) + len(seen.tail) <= EACH


def test_control_characters_are_spelt_out(tmp_path: Path) -> None:
    seen = Evidence(run_folder(tmp_path, log=b"\x1b[2J\xff\n\xe2\x80\xaeok, no binary")).excerpt(
        "log"
    )
    assert seen.head == "\\x1b[2J\\xff\n\\u202eok, no binary"


def test_binary_is_linked_and_not_shown(tmp_path: Path) -> None:
    seen = Evidence(run_folder(tmp_path, log=bytes(range(256)) * 10)).excerpt("log")
    assert (seen.head, seen.href, seen.note) == ("", "./log", "not shown: binary")


@pytest.mark.parametrize(
    "path",
    [
        "../secret",
        "sub/../../secret",
        "/etc/passwd",
        "out",
        "outside/secret",
        "loop",
        "absent",
        ("x" * 5000),
        "a\0b",
        "a\ud800b",
        "sub",
        "",
        "fifo",
    ],
)
def test_nothing_else_is_read_or_linked(tmp_path: Path, path: str) -> None:
    folder = run_folder(tmp_path)
    (tmp_path / "secret").write_text("secret")
    (folder / "sub").mkdir()
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "outside").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    evidence, why = Evidence(folder), "no file of the run folder"
    for seen in (evidence.excerpt(path), evidence.link(path)):
        assert (seen.path, seen.href, seen.size, seen.head, seen.note) == (path, "", None, "", why)
    with pytest.raises(ValueError, match=why):
        evidence.text(path, 100)


def test_links_are_relative_whatever_the_name(tmp_path: Path) -> None:
    name = "javascript:alert(1)%2f\"'<&?#.txt"
    seen = Evidence(run_folder(tmp_path, **{name: "text"})).excerpt(name)
    assert seen.href == "./javascript%3Aalert%281%29%252f%22%27%3C%26%3F%23.txt"


@pytest.mark.parametrize("name", ["a.html", "a.SVG", "a.xml", "a.pdf", "a.desktop"])
def test_what_a_browser_may_run_is_not_linked(tmp_path: Path, name: str) -> None:
    seen = Evidence(run_folder(tmp_path, **{name: "<script>"})).excerpt(name)
    assert (seen.href, seen.head) == ("", "<script>")


def test_all_excerpts_together_are_bounded_as_the_page_has_them(tmp_path: Path) -> None:
    # Each of these takes five bytes in HTML.
    evidence = Evidence(run_folder(tmp_path, one="&" * 100, two="&" * 100, small="x"), total=900)
    assert evidence.excerpt("one").head == "&" * 100
    seen = evidence.excerpt("two")
    assert (seen.head, seen.href, seen.note) == (
        "",
        "./two",
        "not shown: this report is long enough",
    )
    assert evidence.excerpt("small").head == "x"


def test_a_whole_text_has_a_limit(tmp_path: Path) -> None:
    evidence = Evidence(run_folder(tmp_path, log="x" * 100))
    assert evidence.text("log", 100) == "x" * 100
    with pytest.raises(ValueError, match="has 100 bytes, more than 99"):
        evidence.text("log", 99)
