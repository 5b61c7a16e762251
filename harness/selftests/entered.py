# SPDX-License-Identifier: GPL-2.0-only
"""Count what KVM does while a selftest runs, where the test itself does not look at it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, Wanted
from harness.observe.tracefs import tracing
from harness.observe.unproven import Unproven
from harness.selftests.table import Shown


@contextlib.contextmanager
def entered(shell: Shell, shown: Shown | None, claim: Claim) -> Iterator[None]:
    """Have the block's success not pass if KVM never did what it is said to show."""
    if shown is None:
        yield
        return
    with tracing(shell, Wanted(functions=shown.functions)) as session:
        session.start()
        yield
        tell(session.stop(), shown, claim)


def tell(counts: Counts, shown: Shown, claim: Claim) -> None:
    """State how often KVM did it; if never, or if that cannot be told, the claim is not judged."""
    name = next((one for one in shown.functions if one not in counts.absent), None)
    if name is None:
        claim.not_judged(f"whether {shown.what}: this kernel has none of {shown.functions}")
        return
    try:
        entries = counts.of(name)
    except Unproven as exc:
        claim.not_judged(f"whether {shown.what}: {exc}")
        return
    claim.observe(f"{name} entered {entries} times")
    if not entries:
        claim.not_judged(f"whether {shown.what}: {name} was never entered")
