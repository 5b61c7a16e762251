# SPDX-License-Identifier: GPL-2.0-only
"""Count the access faults that a selftest's guests take: a second opinion on who sets AF.

The checks of the harness say the same of their own guest. Here neither guest nor VMM is ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.opponents import ENTER
from harness.checks.overlap import AGE
from harness.guest_replies import PAGE_SIZE
from harness.hosts.protocols import Shell
from harness.observe.trace import ACCESS_FAULT, Event, Wanted, address_range
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven
from harness.selftests.table import Selftest

# It reads page_idle's bitmap by words of 64 pages, of which each ages those that are idle.
_WANTED = Wanted((AGE, ENTER, ACCESS_FAULT), buffer_kib=16384)


@contextlib.contextmanager
def counted(shell: Shell, test: Selftest, claim: Claim, cell: CellSpec) -> Iterator[None]:
    """Hold the block's access faults against who must set AF, if its guest's pages are aged.

    AssertionError if they are those of another. What the block raises goes first.
    """
    if not test.ages:
        yield
        return
    with tracing(shell, _WANTED) as session:
        session.start()
        yield
        counts = session.stop()
        claim.save("access-faults.txt", counts.raw)
        try:
            faults, accesses = counts.of(ACCESS_FAULT), old_accesses(counts.in_order(AGE, ENTER))
        except Unproven as exc:
            claim.not_judged(f"its access faults, since {exc}")
            return
        judge(faults, accesses, claim, cell)


def old_accesses(events: Iterable[Event]) -> int:
    """The accesses to old pages of a guest that accesses all of its pages each time that it runs.

    They are the pages that were aged (AGE) before it was entered (ENTER). Some are not, each time:
    those that are on no LRU list yet.
    """
    accesses, old = 0, set[int]()
    for event in events:
        if event.name == ENTER:
            accesses += len(old)
            old.clear()
        else:
            old.update(range(*address_range(event), PAGE_SIZE))
    return accesses


def judge(faults: int, accesses: int, claim: Claim, cell: CellSpec) -> None:
    """Assert that the faults are those of who must set AF here: none, or one for each access.

    On a real CPU an access needs no fault where a translation is cached, as page_idle drops none:
    fewer of them say too little there.
    """
    claim.observe(f"{faults} access faults for {accesses} accesses to old pages")
    if not accesses:
        claim.not_judged("who sets AF, since no page was made old")
        return
    must = cell.cell.af_mode
    expected = 0 if must == "hardware" else accesses
    if faults < expected and not cell.emulated:
        claim.not_judged(f"who set AF for {expected - faults} of these accesses")
        return
    assert faults == expected, (
        f"{must} must set AF, but its guest took {faults} access faults for {accesses} accesses to "
        "old pages"
    )
