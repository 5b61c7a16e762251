# SPDX-License-Identifier: GPL-2.0-only
"""The dump of a guest's stage-2 page tables, CONFIG_PTDUMP_STAGE2_DEBUGFS, in Linux since 6.12.

The file is /sys/kernel/debug/kvm/<pid>-<fd>/stage2_page_tables. Format and faults of 6.12, read
in arch/arm64/kvm/ptdump.c and note_page() of arch/arm64/mm/ptdump.c:

* A line is a run of entries of one level with equal attributes: start, end (exclusive), size,
  level, and after it six columns unless all attribute bits are zero. "X" is printed when the XN
  bit is *set*: the guest cannot execute there.
* The run that is open when the walk ends is never printed. What lies beyond the last line is
  therefore unknown, not unmapped. An empty stage 2 prints its header only.
* A dump longer than the buffer of seq_file (4 KiB, then doubled) is made again with the state that
  the earlier attempt left: no header, and a first line whose start is stale. If the address space
  starts with entries of another kind than the stale run, that line ends at 0 and says
  nothing; otherwise the start of the run that it describes is 0.
* Opening the file after the owner of the VM has exited oopses that kernel: dump only a VM of
  our own while its owner lives. The walk holds the MMU lock for writing: no dump while
  anything is measured.

Linux 7.3, in the same files: "px", "PXN", "ux" and "UXN" stand where "X" stood, so the guest can
execute there in both of its privilege levels where neither XN is shown; the last run is printed; a
second attempt begins anew; an exited owner is no trouble. But under pKVM the tables belong to EL2
there, and what the host walks is no table at all: see REFUSAL.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.observe.errors import Impossible, ObserveError, shown
from harness.observe.text import MIB, U64_MAX, whole_lines

PAGE = 4096
HEADER = "---[ Guest IPA ]---"
LIMIT = 32 * MIB
# Levels as VMSAv8-64 numbers them; bytes that one entry maps with a 4 KiB granule.
SIZE_OF_LEVEL = {0: 1 << 39, 1: 1 << 30, 2: 1 << 21, 3: 1 << 12}
# Widest IPA of a 4 KiB granule without FEAT_LPA2 (Arm ARM, D8.1).
IPA_LIMIT = 1 << 48
UNITS = "KMGTPE"

_LINE = re.compile(
    r"0x(?P<start>[0-9a-f]{16})-0x(?P<end>[0-9a-f]{16})   (?P<size> {0,8}[0-9]{1,20})"
    r"(?P<unit>[KMGTPE]) (?P<level>[0-3])"
    r"(?: (?P<f>[ F]) (?P<r>[ R]) (?P<w>[ W]) (?P<x>[ X]|(?:px |PXN)(?:ux |UXN))"
    r" (?P<af>AF|  ) (?P<blk>BLK|   ))?"
)

# How often the kernel names a function is written down once for each boot: to list its symbols
# takes a while under emulation.
EL2_TABLES = "/run/kvm-harness-el2-tables"
# Sets `why` to a key of REASONS if the dump of the VM in folder $1 is no evidence, else to nothing.
# It comes before each dump, so it starts no program if it need not.
# Where the host under pKVM only keeps a list of what guests map (there is a function
# pkvm_pgtable_stage2_init), opening the file would take that list for tables.
REFUSAL = f"""
why=
if [ ! -e "$1/stage2_page_tables" ]; then why=absent
else
  read -r words < /proc/cmdline
  case " $words " in *' kvm-arm.mode=protected '*|*' kvm_arm.mode=protected '*)
    if [ ! -e {EL2_TABLES} ]; then
      grep -c ' pkvm_pgtable_stage2_init$' /proc/kallsyms > {EL2_TABLES}.new || true
      mv {EL2_TABLES}.new {EL2_TABLES}
    fi
    times=
    read -r times < {EL2_TABLES} || true
    [ "$times" = 0 ] || why=el2
  esac
fi
"""
REASONS = {
    "absent": "this kernel has no dump of stage 2",
    "el2": "in this kernel stage 2 of guests belongs to EL2",
}


@dataclass(frozen=True)
class Range:
    """A run of stage-2 entries of one level with equal attributes.

    `start` and `end` are IPAs in bytes, the end exclusive. `block` says that a leaf above level 3
    maps a block. The attributes of a range that is not `valid` are all False.
    """

    start: int
    end: int
    level: int
    valid: bool
    readable: bool
    writable: bool
    executable: bool
    af: bool
    block: bool

    @property
    def leaf_size(self) -> int:
        """Bytes that each entry of the run covers."""
        return SIZE_OF_LEVEL[self.level]

    def leaf(self, ipa: int) -> tuple[int, int]:
        """Start and exclusive end of the entry that covers an IPA of this range."""
        start = ipa & -self.leaf_size
        return start, start + self.leaf_size


def parse(text: str, source: str = "stage2_page_tables") -> tuple[Range, ...]:
    """The ranges of a dump in rising order, without gaps, from IPA 0.

    ObserveError for a text that is truncated, malformed or contradicts itself; Impossible, which is
    one, for an entry that no table has, as a table shows that was freed. A text cut at the
    end of a line cannot be told from a whole one here: the pages that it lost raise
    ObserveError ("not covered") when they are asked for.
    """
    lines = whole_lines(text, source, LIMIT)
    if not lines:
        raise ObserveError(source, 0, "empty: not even a header or a range")
    stale = lines[0] != HEADER
    first = 1 if stale else 2
    body = lines[first - 1 :]
    ranges: list[Range] = []
    expected = 0
    for number, line in enumerate(body, first):
        found, start = _range(line, source, number, stale=stale and number == 1)
        if found is None:
            continue
        if start != expected:
            problem = f"starts at {start:#x}, the range before it ended at {expected:#x}"
            raise ObserveError(source, number, problem)
        expected = found.end
        ranges.append(found)
    if stale and not ranges:
        raise ObserveError(source, 1, "neither a header nor a range of this dump")
    return tuple(ranges)


def _range(line: str, source: str, number: int, *, stale: bool) -> tuple[Range | None, int]:
    """One line and where it starts; None for a first line that is the earlier attempt's."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ObserveError(source, number, f"not a range: {shown(line)}")
    start, end, level = int(match["start"], 16), int(match["end"], 16), int(match["level"])
    _check_size(match, start, end, source, number)
    if stale:
        if end == 0:
            return None, 0
        start = 0
    if not start < end <= IPA_LIMIT:
        raise ObserveError(source, number, f"not a range of IPAs: {start:#x} to {end:#x}")
    size = SIZE_OF_LEVEL[level]
    if start % size or end % size:
        problem = f"{start:#x} to {end:#x} is not made of level-{level} entries"
        raise ObserveError(source, number, problem)
    valid = match["f"] == " "
    block = match["blk"] == "BLK"
    if valid and block != (level < 3):
        raise Impossible(source, number, f"a leaf of level {level} with BLK {block}")
    flags = (match["r"] == "R", match["w"] == "W", match["af"] == "AF", block)
    if not valid and any(flags):
        raise Impossible(source, number, f"attributes of an invalid entry: {shown(line)}")
    readable, writable, af, _ = flags
    executable = valid and match["x"] in (" ", "px ux ")
    return Range(start, end, level, valid, readable, writable, executable, af, block), start


def _check_size(match: re.Match[str], start: int, end: int, source: str, number: int) -> None:
    """The size that a line prints follows from its addresses; a damaged line shows here."""
    size, unit = ((end - start) & U64_MAX) >> 10, 0
    while not size & 1023 and unit < len(UNITS) - 1:
        size, unit = size >> 10, unit + 1
    if match["size"] != f"{size:9d}" or match["unit"] != UNITS[unit]:
        problem = f"size {match['size'].strip()}{match['unit']}, its addresses say {size}"
        raise ObserveError(source, number, problem + UNITS[unit])


def covered_to(ranges: Sequence[Range]) -> int:
    """The first IPA of which the dump says nothing (see the never-printed last run)."""
    return ranges[-1].end if ranges else 0


def _overlapping(ranges: Sequence[Range], start: int, end: int) -> Iterator[Range]:
    """The ranges that hold a part of start to end; ObserveError if the dump does not reach it."""
    if start % PAGE or end <= start:
        raise ValueError(f"not a slot of 4 KiB pages: {start:#x} to {end:#x}")
    if end > covered_to(ranges):
        page = max(0, (covered_to(ranges) - start) // PAGE)
        problem = f"page {page} of the slot at {start:#x} is not covered"
        raise ObserveError("stage2_page_tables", 0, f"{problem} (dump ends at its IPA or before)")
    return (range_ for range_ in ranges if range_.start < end and range_.end > start)


def slot_leaves(ranges: Sequence[Range], ipa: int, pages: int) -> tuple[Range, ...]:
    """For each 4 KiB page of a memslot the range that covers it, in order of page index.

    `ipa` is the slot's base in bytes, `pages` its length in units of 4 KiB. ObserveError if the
    dump does not cover all of them: such a page is unknown, neither old nor unmapped.
    """
    leaves: list[Range] = []
    end = ipa + pages * PAGE
    for part in _overlapping(ranges, ipa, end):
        leaves += [part] * ((min(part.end, end) - max(part.start, ipa)) // PAGE)
    return tuple(leaves)


def by_level(ranges: Sequence[Range], ipa: int, pages: int) -> Counter[int]:
    """How many of the slot's pages valid leaves of each level map; as slot_leaves()."""
    return Counter(leaf.level for leaf in slot_leaves(ranges, ipa, pages) if leaf.valid)


def young(ranges: Sequence[Range], ipa: int, pages: int) -> frozenset[int]:
    """Indices of the slot's pages that a valid leaf with AF set maps."""
    leaves = slot_leaves(ranges, ipa, pages)
    return frozenset(page for page, leaf in enumerate(leaves) if leaf.valid and leaf.af)


def young_leaves(ranges: Sequence[Range]) -> int:
    """How many valid leaves, pages and blocks alike, have AF set, in all that the dump covers."""
    return sum((run.end - run.start) // run.leaf_size for run in ranges if run.valid and run.af)


def mapped(ranges: Sequence[Range], ipa: int, pages: int) -> frozenset[int]:
    """Indices of the slot's pages that a valid leaf maps, young or old."""
    leaves = slot_leaves(ranges, ipa, pages)
    return frozenset(page for page, leaf in enumerate(leaves) if leaf.valid)


def writable(ranges: Sequence[Range], ipa: int, pages: int) -> frozenset[int]:
    """Indices of the slot's pages that the guest may write without a permission fault."""
    leaves = slot_leaves(ranges, ipa, pages)
    return frozenset(page for page, leaf in enumerate(leaves) if leaf.writable)


def blocks(ranges: Sequence[Range], ipa: int, pages: int) -> frozenset[int]:
    """Indices of the slot's pages that a block (a leaf above level 3) maps."""
    leaves = slot_leaves(ranges, ipa, pages)
    return frozenset(page for page, leaf in enumerate(leaves) if leaf.block)


def differing(
    before: Sequence[Range], after: Sequence[Range], ipa: int, pages: int, *, af: bool
) -> frozenset[int]:
    """Indices of the slot's pages whose leaf differs in level or an attribute.

    AF counts only if `af` is set. Two entries that are both invalid do not differ.
    """

    def shape(leaf: Range) -> tuple[bool | int, ...]:
        if not leaf.valid:
            return ()
        rest = (leaf.level, leaf.readable, leaf.writable, leaf.executable)
        return (*rest, leaf.af) if af else rest

    pairs = zip(slot_leaves(before, ipa, pages), slot_leaves(after, ipa, pages), strict=True)
    return frozenset(page for page, (old, new) in enumerate(pairs) if shape(old) != shape(new))


def by_leaf(
    ranges: Sequence[Range], ipa: int, pages: int, touched: Iterable[int]
) -> frozenset[int]:
    """The pages of the slot that share a leaf with a touched one.

    AF is a leaf's: after a touch of one page of a 2 MiB block all 512 are young.
    """
    leaves = slot_leaves(ranges, ipa, pages)
    whole: set[int] = set()
    for page in frozenset(touched):
        start, end = leaves[page].leaf(ipa + page * PAGE)
        first, last = max(start, ipa), min(end, ipa + pages * PAGE)
        whole.update(range((first - ipa) // PAGE, (last - ipa) // PAGE))
    return frozenset(whole)
