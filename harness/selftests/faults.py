# SPDX-License-Identifier: GPL-2.0-only
"""Count the access faults that a selftest's guests take: a second opinion on who sets AF.

The checks of the harness say the same of their own guest. Here neither guest nor VMM is ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.observe.trace import ACCESS_FAULT, Wanted
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven
from harness.selftests.table import Selftest


@dataclass(frozen=True)
class Faults:
    """The access faults of a selftest's guest, and its accesses to old pages."""

    faults: int
    accesses: int

    def __str__(self) -> str:
        return f"{self.faults} access faults for {self.accesses} accesses to old pages"


@contextlib.contextmanager
def counted(shell: Shell, test: Selftest, claim: Claim, seen: list[Faults]) -> Iterator[None]:
    """Add the block's access faults to `seen`, if the test's guest accesses old pages."""
    if not test.old_accesses:
        yield
        return
    with tracing(shell, Wanted((ACCESS_FAULT,))) as session:
        session.start()
        yield
        try:
            seen.append(Faults(session.stop().of(ACCESS_FAULT), test.old_accesses))
        except Unproven as exc:
            claim.not_judged(f"its access faults, since {exc}")
            return
        claim.observe(str(seen[-1]))


def judge(seen: Faults, claim: Claim, cell: CellSpec) -> None:
    """Assert that the faults are those of who must set AF here: none, or one for each access.

    Where software must, fewer of them say nothing of the other accesses: such a test does not tell
    whether the page was on an LRU list, without which page_idle passes it over, and on a real CPU
    a cached translation needs no fault, since page_idle drops none.
    """
    must = cell.cell.af_mode
    expected = 0 if must == "hardware" else seen.accesses
    if seen.faults < expected and (seen.faults or not cell.emulated):
        claim.not_judged(f"who set AF for {expected - seen.faults} of these accesses")
        return
    assert seen.faults == expected, f"{must} must set AF, but its guest took {seen}"
