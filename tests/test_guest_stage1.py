# SPDX-License-Identifier: GPL-2.0-only
"""The guest's own translation, filled in by kvm-guest built with the controller's compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable

import pytest

from harness.paths import PROJECT

GIB = 1 << 30
BLOCK = 1
PAGE = TABLE = 3
READ_ONLY = 1 << 7
AF = 1 << 10
DBM = 1 << 51
PXN = 1 << 53
OUTPUT = (1 << 40) - GIB

# Address, IPA, size, for code -> GiB of the address: GiB of the IPA and whether it may execute.
Map = Callable[[int, int, int, bool], dict[int, tuple[int, bool]]]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    target = tmp_path_factory.mktemp("guests") / "stage1.so"
    source = PROJECT / "guests" / "kvm-guest" / "stage1.c"
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
    subprocess.run([compiler, *options, "-o", str(target), str(source)], check=True, timeout=60)
    return ctypes.CDLL(str(target))


@pytest.fixture
def mapped(library: ctypes.CDLL) -> Map:
    def call(address: int, ipa: int, size: int, code: bool) -> dict[int, tuple[int, bool]]:
        table = (ctypes.c_uint64 * 512)()
        numbers = (ctypes.c_uint64(number) for number in (address, ipa, size))
        library.stage1_map(table, *numbers, ctypes.c_bool(code))
        assert all(entry & 3 == BLOCK for entry in table if entry)
        return {
            index: ((entry & OUTPUT) // GIB, not entry & PXN)
            for index, entry in enumerate(table)
            if entry
        }

    return call


@pytest.mark.parametrize(
    ("address", "ipa", "size", "expected"),
    [
        (2 * GIB, 2 * GIB, 4096, {2: 2}),
        (2 * GIB, 2 * GIB, GIB, {2: 2}),
        (2 * GIB, 2 * GIB, GIB + 4096, {2: 2, 3: 3}),
        (2 * GIB + 4096, 2 * GIB + 4096, GIB, {2: 2, 3: 3}),
        # Half below 512 GiB, half above: the address goes on where the IPA does.
        (3 * GIB - 8192, 512 * GIB - 8192, 16384, {2: 511, 3: 512}),
        (16 * GIB, 768 * GIB, 4096, {16: 768}),
    ],
)
@pytest.mark.parametrize("code", [False, True])
def test_each_gib_of_a_part_is_mapped_and_no_other(
    address: int, ipa: int, size: int, expected: dict[int, int], code: bool, mapped: Map
) -> None:
    found = mapped(address, ipa, size, code)
    assert found == {index: (output, code) for index, output in expected.items()}


def test_a_planted_entry_is_a_block_that_nobody_can_execute(library: ctypes.CDLL) -> None:
    library.stage1_block.restype = ctypes.c_uint64
    entry = library.stage1_block(ctypes.c_uint64(16 * GIB))
    assert entry & 3 == BLOCK
    assert entry & ((1 << 48) - (1 << 21)) == 16 * GIB
    assert entry & PXN
    assert entry & AF


def test_an_unused_entry_is_a_page_without_af_that_a_store_may_make_writable(
    library: ctypes.CDLL,
) -> None:
    library.stage1_unused_page.restype = ctypes.c_uint64
    entry = library.stage1_unused_page(ctypes.c_uint64(16 * GIB + 4096))
    assert entry & 3 == PAGE
    assert entry & ((1 << 48) - (1 << 12)) == 16 * GIB + 4096
    assert entry & PXN
    assert not entry & AF
    assert entry & READ_ONLY
    assert entry & DBM


def test_a_gib_can_have_a_table(library: ctypes.CDLL) -> None:
    table = (ctypes.c_uint64 * 512)()
    address, ipa = ctypes.c_uint64(480 * GIB), ctypes.c_uint64(16 * GIB + 4096)
    library.stage1_set_table(table, address, ipa)
    assert {index: entry for index, entry in enumerate(table) if entry} == {
        480: (16 * GIB + 4096) | TABLE
    }


def test_where_reports_go_is_mapped_to_itself(library: ctypes.CDLL) -> None:
    table = (ctypes.c_uint64 * 512)()
    library.stage1_map_report(table)
    assert [index for index, entry in enumerate(table) if entry] == [0]
    assert table[0] & OUTPUT == 0
    assert table[0] & PXN
