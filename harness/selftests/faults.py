# SPDX-License-Identifier: GPL-2.0-only
"""Count the access faults that a selftest's guests take: a second opinion on who sets AF.

The checks of the harness say the same of their own guest. Here neither guest nor VMM is ours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.inventory import AfMode
from harness.observe.trace import ACCESS_FAULT, Counts, Wanted
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven
from harness.selftests.table import Selftest


@contextlib.contextmanager
def counted(shell: Shell, test: Selftest, claim: Claim, expected: AfMode) -> Iterator[None]:
    """Record the block's access faults if the test makes a known number of accesses to old pages.

    They are observed and judged by nobody: on hardware a cached translation spares a fault.
    `expected` is who must set AF in this cell, which the harness's own checks judge.
    """
    if not test.old_accesses:
        yield
        return
    with tracing(shell, Wanted((ACCESS_FAULT,))) as session:
        session.start()
        yield
        tell(session.stop(), test.old_accesses, claim, expected)


def tell(counts: Counts, accesses: int, claim: Claim, expected: AfMode) -> None:
    """State the number of faults, and whether it is that of who must set AF here.

    That is none, or one for each access; any other number says nothing of it.
    """
    try:
        faults = counts.of(ACCESS_FAULT)
    except Unproven as exc:
        claim.observe(f"access faults were not counted: {exc}")
        return
    claim.observe(f"{faults} access faults for {accesses} accesses to old pages")
    if faults in (0, accesses):
        seen: AfMode = "software" if faults else "hardware"
        claim.af_observed = seen
        who = "as it" if seen == expected else f"but {expected}"
        claim.observe(f"so {seen} sets AF, {who} must")
