# SPDX-License-Identifier: GPL-2.0-only
"""The parts of kvm-guest that need no KVM, built with the controller's own compiler."""

from __future__ import annotations

import ctypes
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.paths import PROJECT
from harness.ranges import format_ranges, parse_ranges

PAGES = 4096

Parse = Callable[[str], tuple[list[int] | None, str]]
Print = Callable[[set[int]], str]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    target = tmp_path_factory.mktemp("guests") / "ranges.so"
    source = PROJECT / "guests" / "kvm-guest" / "ranges.c"
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(target), str(source)], check=True, timeout=60)
    return ctypes.CDLL(str(target))


@pytest.fixture
def parse(library: ctypes.CDLL) -> Parse:
    function = library.ranges_parse
    function.restype = ctypes.c_int64

    def call(text: str) -> tuple[list[int] | None, str]:
        guard = 0xDEADBEEF
        pages = (ctypes.c_uint32 * (PAGES + 1))()
        pages[PAGES] = guard
        why = ctypes.c_char_p()
        count = function(text.encode(), ctypes.c_uint32(PAGES), pages, ctypes.byref(why))
        assert pages[PAGES] == guard
        return (None, (why.value or b"").decode()) if count < 0 else (list(pages[:count]), "")

    return call


@pytest.fixture
def print_set(library: ctypes.CDLL, tmp_path: Path) -> Print:
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p

    def call(pages: set[int]) -> str:
        member = (ctypes.c_bool * PAGES)(*(page in pages for page in range(PAGES)))
        path = tmp_path / "out"
        stream = ctypes.c_void_p(libc.fopen(str(path).encode(), b"w"))
        library.ranges_print(stream, member, ctypes.c_uint32(PAGES))
        libc.fclose(stream)
        return path.read_text()

    return call


def sample(seed: int) -> set[int]:
    chooser = random.Random(seed)
    return set(chooser.sample(range(PAGES), chooser.choice([1, 2, 100, PAGES // 2, PAGES - 1])))


@pytest.mark.parametrize("seed", range(10))
def test_both_sides_speak_the_same_ranges(seed: int, parse: Parse, print_set: Print) -> None:
    pages = sample(seed)
    text = format_ranges(pages)
    assert parse(text) == (sorted(pages), "")
    assert print_set(pages) == text
    assert parse_ranges(print_set(pages)) == pages


def test_empty_and_full(parse: Parse, print_set: Print) -> None:
    assert print_set(set()) == "-"
    assert parse("-") == ([], "")
    assert print_set(set(range(PAGES))) == f"0-{PAGES - 1}"
    assert parse(f"0-{PAGES - 1}") == (list(range(PAGES)), "")


def test_the_order_of_the_text_is_kept(parse: Parse) -> None:
    assert parse("9,3-5,0") == ([9, 3, 4, 5, 0], "")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "malformed"),
        (",", "malformed"),
        ("1,", "malformed"),
        ("1-", "malformed"),
        ("-1", "malformed"),
        ("1--2", "malformed"),
        ("1 ", "malformed"),
        ("0x1", "malformed"),
        ("1;2", "malformed"),
        ("--", "malformed"),
        ("4096", "beyond"),
        ("0-4096", "beyond"),
        ("18446744073709551616", "beyond"),
        ("5-4", "ends before"),
        ("1,1", "twice"),
        ("0-4095,0-4095", "twice"),
    ],
)
def test_what_is_refused(text: str, why: str, parse: Parse) -> None:
    pages, reason = parse(text)
    assert pages is None
    assert why in reason
