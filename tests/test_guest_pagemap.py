# SPDX-License-Identifier: GPL-2.0-only
"""Flags of pages as kvm-guest keeps them, built with the controller's compiler."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from harness.paths import PROJECT

# include/uapi/linux/kernel-page-flags.h
HEAD, TAIL, LRU = 1 << 15, 1 << 16, 1 << 5
HUGE = 512
# What a block has, and how many are kept (pagemap.c): pages so far apart have one place.
ALIKE = 64 * 32
# What pagemap.c wants of the rest of the program.
REST = """
#include <stdio.h>
FILE *reply;
void die(const char *format, ...) { __builtin_trap(); }
void die_errno(const char *what) { __builtin_trap(); }
void reply_ok(const char *format, ...) { }
int reply_error(const char *type, const char *format, ...) { return -1; }
void ranges_print(FILE *file, const _Bool *members, unsigned int count) { }
"""


class Flags:
    """pagemap.c, and the file that it takes for /proc/kpageflags."""

    def __init__(self, library: ctypes.CDLL, file: Path) -> None:
        self.file = file
        self.library = library
        for function in (library.page_flags, library.page_head):
            function.argtypes = [ctypes.c_uint64]
            function.restype = ctypes.c_uint64

    def write(self, flags: Mapping[int, int], pages: int) -> None:
        with self.file.open("r+b") as file:
            file.write(struct.pack(f"{pages}Q", *(flags.get(pfn, 0) for pfn in range(pages))))


@pytest.fixture
def flags(tmp_path: Path) -> Flags:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    file, rest, target = tmp_path / "flags", tmp_path / "rest.c", tmp_path / "pagemap.so"
    file.touch()
    rest.write_text(REST)
    source = PROJECT / "guests" / "kvm-guest" / "pagemap.c"
    options = ["-std=gnu11", "-D_GNU_SOURCE", f'-DPAGE_FLAGS="{file}"', "-shared", "-fPIC", "-w"]
    subprocess.run(
        [compiler, *options, "-o", str(target), str(source), str(rest)], check=True, timeout=60
    )
    return Flags(ctypes.CDLL(str(target), mode=os.RTLD_NOW), file)


def huge(head: int) -> dict[int, int]:
    return {head: HEAD} | {head + at: TAIL for at in range(1, HUGE)}


def test_pages_whose_flags_have_one_place_are_told_apart(flags: Flags) -> None:
    flags.write({7: LRU, 7 + ALIKE: HEAD, 7 + 2 * ALIKE: TAIL}, 3 * ALIKE)
    for _ in range(2):
        for pfn, expected in ((7, LRU), (7 + ALIKE, HEAD), (7 + 2 * ALIKE, TAIL), (8, 0)):
            assert flags.library.page_flags(pfn) == expected


def test_what_is_kept_is_forgotten_at_a_refresh(flags: Flags) -> None:
    flags.write({7: LRU}, 64)
    assert flags.library.page_flags(7) == LRU
    flags.write({7: HEAD}, 64)
    assert flags.library.page_flags(7) == LRU
    flags.library.page_flags_refresh()
    assert flags.library.page_flags(7) == HEAD


@pytest.mark.parametrize("step", [1, -1, 5])
def test_the_head_of_each_tail_is_that_of_its_own_page(flags: Flags, step: int) -> None:
    first, second, single = HUGE, 2 * HUGE, 3 * HUGE
    flags.write(huge(first) | huge(second), 4 * HUGE)
    for pfn in range(4 * HUGE)[::step]:
        expected = second if second <= pfn < single else first if first <= pfn < second else pfn
        assert flags.library.page_head(pfn) == expected


def test_no_head_outlasts_a_refresh(flags: Flags) -> None:
    flags.write(huge(HUGE), 2 * HUGE)
    assert flags.library.page_head(HUGE + 9) == HUGE
    # Split meanwhile, and a smaller one was made of its second half.
    flags.write({HUGE + 8: HEAD} | {HUGE + at: TAIL for at in range(9, 16)}, 2 * HUGE)
    flags.library.page_flags_refresh()
    assert flags.library.page_head(HUGE + 10) == HUGE + 8
    assert flags.library.page_head(HUGE + 7) == HUGE + 7
