# SPDX-License-Identifier: GPL-2.0-only
"""The stage-2 dump: real dumps of Linux 6.12, and what a damaged or lying one must raise."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from harness.observe import stage2
from harness.observe.errors import Impossible, ObserveError
from harness.observe.stage2 import Range

DATA = Path(__file__).parent / "data" / "observe" / "stage2"
SLOT = 0x80000000
CODE = 0x200000000


def dump(name: str) -> str:
    path = DATA / name
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode("ascii")
    return path.read_text()


def line(start: int, end: int, level: int, attributes: str = "") -> str:
    size, unit = (end - start & (1 << 64) - 1) >> 10, 0
    while not size & 1023 and unit < 5:
        size, unit = size >> 10, unit + 1
    return f"0x{start:016x}-0x{end:016x}   {size:9d}{'KMGTPE'[unit]} {level}{attributes}\n"


HEADER = "---[ Guest IPA ]---\n"
VALID = "   R W X AF    "


def test_short_dump_with_header() -> None:
    ranges = stage2.parse(dump("small.txt"))
    assert ranges[0].start == 0
    assert ranges[0].end == SLOT
    assert not ranges[0].valid
    assert ranges[1] == Range(SLOT, SLOT + 4096, 3, True, True, False, False, True, False)
    assert stage2.young(ranges, SLOT, 64) == frozenset(range(0, 32, 2))
    assert stage2.mapped(ranges, SLOT, 64) == frozenset(range(64))
    assert stage2.blocks(ranges, SLOT, 64) == frozenset()


def test_one_run_of_old_pages() -> None:
    ranges = stage2.parse(dump("old.txt"))
    assert stage2.young(ranges, SLOT, 4096) == frozenset()
    assert stage2.mapped(ranges, SLOT, 4096) == frozenset(range(4096))


def test_x_is_execute_never() -> None:
    """The page with the guest's code, which it ran, has no X; its data, never executed, has."""
    ranges = stage2.parse(dump("old.txt"))
    (code,) = stage2.slot_leaves(ranges, CODE, 1)
    (data,) = stage2.slot_leaves(ranges, SLOT, 1)
    assert code.executable and code.writable
    assert not data.executable


def test_long_dump_has_no_header_and_a_stale_first_line() -> None:
    text = dump("alternate.txt.gz")
    assert len(text) > 270_000
    assert text.startswith("0x0000000240000000-0x0000000080000000   17179869177G 1\n")
    ranges = stage2.parse(text)
    assert ranges[0] == Range(0, SLOT, 1, *[False] * 6)
    assert stage2.young(ranges, SLOT, 4096) == frozenset(range(0, 4096, 2))
    assert stage2.mapped(ranges, SLOT, 4096) == frozenset(range(4096))


def test_long_dump_whose_first_line_says_nothing_of_it() -> None:
    text = dump("ipa0.txt.gz")
    assert text.startswith("0x0000000240000000-0x0000000000000000   17179869175G 1\n")
    ranges = stage2.parse(text)
    assert ranges[0].start == 0
    assert ranges[0].valid
    assert stage2.young(ranges, 0, 4096) == frozenset(range(0, 4096, 2))


def test_stale_start_that_looks_right_is_not_believed() -> None:
    """Without a header the first line's start is another attempt's, however plausible."""
    text = line(0x40000000, SLOT, 1) + line(SLOT, SLOT + 4096, 3, VALID)
    assert stage2.parse(text)[0].start == 0


def test_blocks() -> None:
    ranges = stage2.parse(dump("thp.txt"))
    assert stage2.blocks(ranges, SLOT, 2048) == frozenset(range(2048))
    assert stage2.by_level(ranges, SLOT, 2048) == {2: 2048}
    assert stage2.young(ranges, SLOT, 2048) == frozenset(range(512, 1024))
    assert stage2.by_leaf(ranges, SLOT, 2048, {700}) == frozenset(range(512, 1024))
    assert stage2.by_leaf(ranges, SLOT, 2048, ()) == frozenset()
    assert ranges[1].leaf(SLOT + 5 * 4096) == (SLOT, SLOT + 0x200000)


def test_by_leaf_of_pages_is_the_set_itself() -> None:
    ranges = stage2.parse(dump("small.txt"))
    assert stage2.by_leaf(ranges, SLOT, 64, {0, 3, 63}) == {0, 3, 63}


OLD_PAGES = HEADER + line(0, SLOT, 1) + line(SLOT, SLOT + 0x4000, 3, "   R W X       ")
SHAPES = {
    "   R W X AF    ": (False, True),
    "   R   X       ": (True, True),
    "   R W         ": (True, True),
    "     W X       ": (True, True),
    "": (True, True),
}


@pytest.mark.parametrize("attributes", SHAPES)
def test_leaves_differ_in_any_attribute_and_in_af_if_asked(attributes: str) -> None:
    before = stage2.parse(OLD_PAGES)
    after = stage2.parse(
        HEADER
        + line(0, SLOT, 1)
        + line(SLOT, SLOT + 0x1000, 3, "   R W X       ")
        + line(SLOT + 0x1000, SLOT + 0x2000, 3, attributes)
        + line(SLOT + 0x2000, SLOT + 0x4000, 3, "   R W X       ")
    )
    without, having = SHAPES[attributes]
    for af, seen in ((False, without), (True, having)):
        found = stage2.differing(before, after, SLOT, 4, af=af)
        assert found == ({1} if seen else set())


def test_levels_differ_but_not_of_what_is_unmapped() -> None:
    end = SLOT + 0x200000
    pages = stage2.parse(HEADER + line(0, SLOT, 1) + line(SLOT, end, 3, VALID))
    block = stage2.parse(HEADER + line(0, SLOT, 1) + line(SLOT, end, 2, "   R W X AF BLK"))
    assert len(stage2.differing(pages, block, SLOT, 512, af=False)) == 512
    empty = [stage2.parse(HEADER + line(0, SLOT, 1) + line(SLOT, end, n)) for n in (2, 3)]
    assert not stage2.differing(empty[0], empty[1], SLOT, 512, af=True)


def test_writable_is_not_mapped() -> None:
    """Pages that were only read after dirty logging lack S2AP_W."""
    ranges = stage2.parse(dump("small.txt"))
    assert stage2.writable(ranges, SLOT, 64) == frozenset()
    assert stage2.writable(ranges, CODE, 1) == {0}


def test_unmapped_slot_below_something_mapped() -> None:
    ranges = stage2.parse(dump("dropped.txt"))
    assert stage2.mapped(ranges, SLOT, 4096) == frozenset()


def test_empty_stage_2_covers_nothing() -> None:
    ranges = stage2.parse(dump("empty.txt"))
    assert ranges == ()
    with pytest.raises(ObserveError, match=r"page 0 of the slot at 0x80000000 is not covered"):
        stage2.young(ranges, SLOT, 1)


def test_never_printed_last_run_is_unknown_not_old() -> None:
    ranges = stage2.parse(dump("old.txt"))
    assert stage2.covered_to(ranges) == 0x240000000
    assert stage2.young(ranges, 0x240000000 - 4096, 1) == frozenset()
    for reader in (stage2.young, stage2.mapped, stage2.blocks, stage2.slot_leaves):
        with pytest.raises(ObserveError, match=r"page 1 .* not covered"):
            reader(ranges, 0x240000000 - 4096, 2)


@pytest.mark.parametrize("name", ["old.txt", "small.txt", "alternate.txt.gz", "thp.txt"])
def test_cut_anywhere_is_an_error_or_not_covered(name: str) -> None:
    """No cut of a dump makes a page of the slot look old or unmapped."""
    text = dump(name)
    pages = {"small.txt": 64, "thp.txt": 2048}.get(name, 4096)
    whole = stage2.slot_leaves(stage2.parse(text), SLOT, pages)
    for cut in [*range(0, min(len(text), 400)), len(text) // 2, len(text) - 1]:
        try:
            leaves = stage2.slot_leaves(stage2.parse(text[:cut]), SLOT, pages)
        except ObserveError:
            continue
        assert leaves == whole


def test_truncated_line_names_file_and_line() -> None:
    with pytest.raises(ObserveError, match=r"^dump:3: truncated line"):
        stage2.parse(dump("small.txt")[:120], "dump")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("\n", "not a range"),
        (HEADER + "oops\n", "not a range"),
        (HEADER + HEADER, "not a range"),
        (HEADER + line(0x1000, 0x2000, 3), "starts at 0x1000, the range before it ended at 0x0"),
        (HEADER + line(0, 0x1000, 3) + line(0x2000, 0x3000, 3), "ended at 0x1000"),
        (HEADER + line(0, 0x2000, 3) + line(0x1000, 0x3000, 3), "ended at 0x2000"),
        (HEADER + line(0, 0x1000, 2), "not made of level-2 entries"),
        (HEADER + line(0, 0x1800, 3), "not made of level-3 entries"),
        (HEADER + line(0, 0x1000, 3).replace("4K", "5K"), "size 5K, its addresses say 4K"),
        (HEADER + line(0, 0x200000, 2, VALID), "a leaf of level 2 with BLK False"),
        (HEADER + line(0, 0x1000, 3, "   R W X AF BLK"), "a leaf of level 3 with BLK True"),
        (HEADER + line(0, 0x1000, 3, " F R   X       "), "attributes of an invalid entry"),
        (HEADER + line(0, 0x1000, 3, "   R W X AF"), "not a range"),
        (HEADER + line(0, 0x1000, 4), "not a range"),
        (HEADER + line(0, 1 << 49, 1), "not a range of IPAs"),
        (HEADER + line(0x1000, 0, 3), "not a range of IPAs"),
        (line(0x240000000, 0, 1), "neither a header nor a range"),
        (HEADER + "\0" + line(0, 0x1000, 3), "a NUL"),
    ],
)
def test_malformed(text: str, problem: str) -> None:
    with pytest.raises(ObserveError, match=problem):
        stage2.parse(text)


@pytest.mark.parametrize(
    ("level", "attributes", "impossible"),
    [(3, "   R W X AF BLK", True), (2, VALID, True), (3, " F R   X       ", True), (4, "", False)],
)
def test_a_table_that_cannot_be_is_the_kernels_fault(
    level: int, attributes: str, impossible: bool
) -> None:
    with pytest.raises(ObserveError) as caught:
        stage2.parse(HEADER + line(0, 0x200000, level, attributes))
    assert isinstance(caught.value, Impossible) is impossible


def test_an_annotated_invalid_entry_is_not_mapped() -> None:
    ranges = stage2.parse(HEADER + line(0, 0x1000, 3, " F     X       "))
    assert stage2.mapped(ranges, 0, 1) == frozenset()


def test_a_text_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage2, "LIMIT", 100)
    with pytest.raises(ObserveError, match="longer than 100 characters"):
        stage2.parse(HEADER + line(0, 0x1000, 3) * 2)


def test_a_slot_must_be_made_of_pages() -> None:
    with pytest.raises(ValueError, match="not a slot"):
        stage2.young(stage2.parse(dump("small.txt")), SLOT + 1, 1)


@pytest.mark.parametrize(
    ("xn", "executable"),
    [("px ux ", True), ("PXNUXN", False), ("PXNux ", False), ("px UXN", False)],
)
def test_execute_never_of_7_3_has_two_parts(xn: str, executable: bool) -> None:
    text = HEADER + line(0, 4096, 3, f"   R W {xn} AF    ") + line(4096, 1 << 21, 3)
    (found,) = stage2.slot_leaves(stage2.parse(text), 0, 1)
    assert found.executable is executable
    assert found.readable and found.writable and found.af and found.valid


@pytest.mark.parametrize("xn", ["px", "px  ux", "PXN   ", "UXNPXN"])
def test_half_of_execute_never_is_no_range(xn: str) -> None:
    with pytest.raises(ObserveError, match="not a range"):
        stage2.parse(HEADER + line(0, 4096, 3, f"   R W {xn} AF    "))
