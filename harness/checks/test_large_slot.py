# SPDX-License-Identifier: GPL-2.0-only
"""A memslot of 4 GiB, of which a few pages are used: what is done to all of it is done to all.

Only a huge page is aged by one request, and that is small. Whoever unmaps, deletes or
write-protects memory does it by ranges as large as the slot; a size that is held in 32 bits
somewhere on its way to stage 2 is 0 here.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import leaves, mapped_pages, young_pages
from harness.checks.skips import or_skip
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

GIB = 1 << 18
PAGES = 4 * GIB
# Of each GiB, the ends among them: each page takes tables of the host's and of stage 2.
USED = 8


@pytest.mark.deep
def test_large_slot(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """Logging, aging, unmapping and the slot's end reach each page of a slot of 4 GiB."""
    used = used_pages(rng)
    claim.expect(
        f"{len(used)} pages of a slot of {PAGES // GIB} GiB: none is writable when the dirty log "
        "is switched on, and it names what is written then; all old after aging, then exactly "
        "those read young; none is mapped when the slot was made anew, nor when all of its memory "
        f"was dropped, and what was dropped reads as zeroes (seed {cell.seed})"
    )
    vm = _guest(guest)
    vm.touch(used, write=True)
    mapped_pages(vm, shell, claim, used, "filled")
    vm.dirty_log(True)
    assert_writable(vm, claim, leaves(vm, shell, claim, "logged"), frozenset(), "logged")
    written = _some(rng, used)
    vm.touch(written, write=True)
    assert_logged(vm, claim, written, "written")
    vm.dirty_log(False)

    vm.drain()
    marked = vm.idle_mark().marked
    if marked != len(used):
        raise Unproven(f"page_idle marked {marked} of {len(used)} pages")
    young_pages(vm, shell, claim, frozenset(), "aged")
    vm.flush()
    read = _some(rng, used)
    vm.touch(read, write=False)
    young_pages(vm, shell, claim, read, "read")

    vm.readonly(True)
    mapped_pages(vm, shell, claim, frozenset(), "anew")
    vm.readonly(False)
    vm.touch(used, write=False)
    vm.verify(used)
    mapped_pages(vm, shell, claim, used, "again")
    vm.advise("dontneed", range(PAGES))
    mapped_pages(vm, shell, claim, frozenset(), "dropped")
    # Each load is held to zero now.
    vm.touch(used, write=False)


def _guest(guest: Callable[..., Guest]) -> Guest:
    """A guest with that slot; skips where a program cannot have so large a mapping."""
    return or_skip(
        lambda: guest(pages=PAGES),
        "Cannot allocate memory",
        "this host gives no program more memory than it has (vm.overcommit_memory)",
    )


def used_pages(rng: random.Random) -> frozenset[int]:
    """Pages all over the slot: the first and the last of each GiB, and some between."""
    return frozenset(
        page
        for gib in range(0, PAGES, GIB)
        for page in (gib, gib + GIB - 1, *(gib + rng.randrange(GIB) for _ in range(USED - 2)))
    )


def _some(rng: random.Random, pages: frozenset[int]) -> frozenset[int]:
    return frozenset(rng.sample(sorted(pages), len(pages) // 2))
