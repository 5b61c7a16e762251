# SPDX-License-Identifier: GPL-2.0-only
"""The memory of a host's process as its kernel sees it: page frames, their flags, page_idle.

Only /proc and /sys are read and written, from outside, so it works for any process.
Documentation/admin-guide/mm/pagemap.rst and idle_page_tracking.rst.
"""

from __future__ import annotations

import base64
import gzip
import zlib
from collections.abc import Iterable, Mapping

from harness.errors import InfraError
from harness.hosts.protocols import Shell
from harness.observe.page_idle import BITMAP, MISSING
from harness.observe.unproven import Unproven

KPAGEFLAGS = "/proc/kpageflags"
MASK = "/run/kvm-harness-idle"
PAGE = 4096
WORD = 8
# What one read or write of a file in sysfs moves at most.
BLOCK = 4096
# Pages that a block of page_idle's bitmap stands for, and one of a file with a word for each page.
BITMAP_PAGES = BLOCK * 8
WORDS = BLOCK // WORD
PM_PRESENT = 1 << 63
PM_PFN = (1 << 55) - 1
KPF_LRU = 1 << 5
# Blocks between others that are read along with them: fewer commands, more bytes.
GAP = 16
# Blocks of a file that are asked for at once, before they are compressed.
LIMIT = 16384


def frames(shell: Shell, pid: int, hva: int, pages: Iterable[int]) -> dict[int, int]:
    """The PFN of each page that is present; `pages` are counted from the address `hva` on."""
    wanted = sorted(pages)
    start = hva // PAGE
    words = _words(shell, f"/proc/{pid}/pagemap", [start + page for page in wanted])
    found = {}
    for page in wanted:
        entry = words[start + page]
        if entry & PM_PRESENT:
            if not entry & PM_PFN:
                raise InfraError("pagemap hides the PFNs")
            found[page] = entry & PM_PFN
    return found


def on_lru(shell: Shell, pfns: Iterable[int]) -> frozenset[int]:
    """Those of the page frames that are on an LRU list: page_idle passes over all others."""
    words = _words(shell, KPAGEFLAGS, pfns)
    return frozenset(pfn for pfn, flags in words.items() if flags & KPF_LRU)


class IdlePages:
    """Page frames that are aged by page_idle; frames of small pages only.

    Reading the bitmap ages the pages that are idle as well: it clears their access flags.
    """

    def __init__(self, shell: Shell, pfns: Iterable[int]) -> None:
        self._shell = shell
        self._pfns = frozenset(pfns)

    def mark(self) -> None:
        """Mark them idle, and no others: this clears their access flags.

        Unproven if the kernel has no page_idle.
        """
        if self._shell.run(f"[ -e {BITMAP} ] || echo missing").stdout:
            raise Unproven(MISSING)
        data, runs = masks(self._pfns)
        packed = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
        writes = []
        skip = 0
        for first, count in runs:
            writes.append(
                f"dd if={MASK} of={BITMAP} bs={BLOCK} skip={skip} count={count} seek={first} "
                "conv=notrunc 2>/dev/null"
            )
            skip += count
        self._shell.run(
            f"echo {packed} | base64 -d | gunzip > {MASK} && {' && '.join(writes)}; "
            f"s=$?; rm -f {MASK}; exit $s"
        )

    def idle(self) -> frozenset[int]:
        """The page frames that are idle still."""
        data = _blocks(self._shell, BITMAP, {pfn // BITMAP_PAGES for pfn in self._pfns})
        return frozenset(
            pfn
            for pfn in self._pfns
            if _part(data[pfn // BITMAP_PAGES], pfn % BITMAP_PAGES // 8, 1, BITMAP) >> pfn % 8 & 1
        )


def masks(pfns: Iterable[int]) -> tuple[bytes, list[tuple[int, int]]]:
    """What to write to the bitmap to mark these pages: bytes, and the runs of blocks they are for.

    They end with the last word that has a bit set: the bitmap itself may end soon after. Words are
    little endian.
    """
    wanted = sorted(pfns)
    runs = _runs({pfn // BITMAP_PAGES for pfn in wanted})
    data = bytearray(sum(count for _, count in runs) * BLOCK)
    at: dict[int, int] = {}
    for first, count in runs:
        at |= {first + i: (len(at) + i) * BLOCK for i in range(count)}
    last = 0
    for pfn in wanted:
        last = at[pfn // BITMAP_PAGES] + pfn % BITMAP_PAGES // 8
        data[last] |= 1 << pfn % 8
    return bytes(data[: last // WORD * WORD + WORD]), runs


def _words(shell: Shell, path: str, numbers: Iterable[int]) -> Mapping[int, int]:
    """The 64-bit words of a file that have these numbers."""
    wanted = sorted(numbers)
    data = _blocks(shell, path, {number // WORDS for number in wanted})
    return {
        number: _part(data[number // WORDS], number % WORDS * WORD, WORD, path) for number in wanted
    }


def _part(block: bytes, at: int, size: int, path: str) -> int:
    if at + size > len(block):
        raise InfraError(f"{path} ends before a page of the guest")
    return int.from_bytes(block[at : at + size], "little")


def _runs(blocks: Iterable[int]) -> list[tuple[int, int]]:
    """Runs of blocks that hold all of these: the first of each, and how many they are."""
    runs: list[tuple[int, int]] = []
    for block in sorted(blocks):
        first, count = runs[-1] if runs else (block, 0)
        if runs and block - (first + count) <= GAP:
            runs[-1] = (first, block - first + 1)
        else:
            runs.append((block, 1))
    return runs


def _blocks(shell: Shell, path: str, blocks: Iterable[int]) -> Mapping[int, bytes]:
    """Blocks of a file of the host, by number; the last is short if the file ends in it."""
    runs = _runs(blocks)
    total = sum(count for _, count in runs)
    if total > LIMIT:
        raise Unproven(f"the guest's pages lie too far apart to be asked for in {path}")
    reads = "; ".join(
        f"dd if={path} bs={BLOCK} skip={first} count={count} 2>/dev/null" for first, count in runs
    )
    text = shell.run(f"{{ {reads}; }} | gzip -1 | base64").stdout
    try:
        unpack = zlib.decompressobj(wbits=31)
        packed = base64.b64decode("".join(text.split()), validate=True)
        data = unpack.decompress(packed, total * BLOCK + 1)
    except (ValueError, zlib.error) as exc:
        raise InfraError(f"{path} of the host did not arrive: {exc}") from exc
    # Only the last run can reach the end of the file.
    if not unpack.eof or not (total - runs[-1][1]) * BLOCK <= len(data) <= total * BLOCK:
        raise InfraError(f"{path} of the host did not arrive whole")
    numbers = (first + i for first, count in runs for i in range(count))
    return {block: data[at * BLOCK : (at + 1) * BLOCK] for at, block in enumerate(numbers)}
