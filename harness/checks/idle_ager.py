# SPDX-License-Identifier: GPL-2.0-only
"""Age pages by page_idle from outside of the process that has them.

Its writes reach pages by PFN and the reverse map, so it needs nothing of their owner, and can
outlive it. Documentation/admin-guide/mm/idle_page_tracking.rst: a word of 64 bits for 64 PFNs.
"""

from __future__ import annotations

import base64
import contextlib
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from harness.checks.undo import undone
from harness.deadline import Deadline
from harness.guests import Guest
from harness.hosts.protocols import Shell

BITMAP = "/sys/kernel/mm/page_idle/bitmap"
MASK = "/run/kvm-harness-mask"
WORD_BITS = 64
# Of the bitmap: 128 MiB of memory, wherever that lies.
MOST_WORDS = 512
# To go over all pages once, and to end.
SECONDS = 30.0
# Pages of 4 KiB in a huge page.
HUGE = 512
WRITE = "dd if={mask} of={bitmap} bs=8 seek={word} conv=notrunc 2>/dev/null"
# The end of its input ends it.
LOOP = f"while {WRITE}; do echo; done & read -r _; kill $!; wait"


def densest(pfns: Iterable[int], words: int = MOST_WORDS) -> tuple[int, tuple[int, ...]]:
    """Where in the bitmap most of the pages lie together: a word's number, and their PFNs."""
    ordered = sorted(pfns)
    best: tuple[int, tuple[int, ...]] = (0, ())
    for at, pfn in enumerate(ordered):
        word = pfn // WORD_BITS
        end = bisect_left(ordered, (word + words) * WORD_BITS)
        if end - at > len(best[1]):
            best = (word, tuple(ordered[at:end]))
    return best


def mask(word: int, pfns: Iterable[int]) -> bytes:
    """The bitmap's bytes from a word on, with these bits set; words are little endian."""
    bits = sum(1 << (pfn - word * WORD_BITS) for pfn in pfns)
    words = -(-bits.bit_length() // WORD_BITS)
    return bits.to_bytes(words * WORD_BITS // 8, "little")


def age_once(shell: Shell, pfns: Iterable[int]) -> None:
    """Age these pages; of a huge page, the PFN of its head."""
    word, _ = _put_mask(shell, pfns)
    shell.run(f"{WRITE.format(mask=MASK, bitmap=BITMAP, word=word)}; rm -f {MASK}")


def age_huge_page(vm: Guest, shell: Shell, part: frozenset[int], skew: int) -> None:
    """Age the one huge page of the host that holds `part` of a slot, skewed by so many pages."""
    first = min(part)
    age_once(shell, [vm.pfns()[first] - (first + skew) % HUGE])


@contextlib.contextmanager
def ager(shell: Shell, pfns: Iterable[int], slowdown: float) -> Iterator[int]:
    """Age these pages without end, from now until it is left, on a host slower than usual.

    It goes over those that lie close enough together, and yields how many these are.
    """
    word, number = _put_mask(shell, pfns)
    # The last CPU, and with it what it starts: it must not share one with those that it races.
    last = int(shell.run("nproc --all").stdout) - 1
    loop = LOOP.format(mask=MASK, bitmap=BITMAP, word=word)
    process = shell.start(["taskset", "-c", str(last), "sh", "-c", loop])

    def end() -> None:
        try:
            process.wait(Deadline(SECONDS * slowdown))
        finally:
            process.close()
        shell.run(f"rm -f {MASK}")

    with undone(end):
        # Once it has gone over all pages it is at work.
        process.receive(Deadline(SECONDS * slowdown))
        yield number


def _put_mask(shell: Shell, pfns: Iterable[int]) -> tuple[int, int]:
    """Put the mask of those pages on the host: at which word it begins, and how many they are."""
    word, chosen = densest(pfns)
    text = base64.b64encode(mask(word, chosen)).decode()
    shell.run(f"echo {text} | base64 -d > {MASK}")
    return word, len(chosen)
