# SPDX-License-Identifier: GPL-2.0-only
"""One eviction of a guest's pages, held to the contract: what goes, what stays, who was asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import check_path
from harness.checks.mglru import Memcg
from harness.checks.pages import forget_references, mark_idle, shorten
from harness.contract import Expectation
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.tracefs import Session


def what_stays(expectation: Expectation) -> str:
    """For a claim, after "evicted is all that the guest left alone, and"."""
    return "nothing else" if expectation.spares == "young" else "not all that it touched"


def leave_all_behind(vm: Guest, shell: Shell, memcg: Memcg) -> None:
    """Have nobody keep a mark on any page, all in a generation that eviction takes from.

    What the guest touches from here on is all that it has used, and each touch shows at stage 2.
    """
    mark_idle(vm)
    forget_references(vm, shell)
    memcg.leave_behind()
    vm.flush()


def evict_untouched(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    memcg: Memcg,
    session: Session,
    expectation: Expectation,
    counters: Mapping[str, bool],
    touched: frozenset[int],
    *,
    use: Callable[[], None] = lambda: None,
) -> None:
    """Have the guest read these pages, evict all that can go, and assert which did.

    `use` comes before that, when all pages have been left behind. No page_idle may go before: it
    leaves PG_young on pages, which eviction takes for a reference.
    """
    pages = vm.slot.pages
    memcg.leave_behind()
    use()
    vm.flush()
    vm.touch(touched, write=False)
    present = frozenset(vm.pfns())
    with counted(vm, shell, claim, counters):
        session.start()
        memcg.evict(pages)
        counts = session.stop()
    claim.save(f"trace-{len(touched)}-touched.txt", counts.raw)
    check_path(claim, expectation, session, counts, vm, present)
    kept = frozenset(vm.pfns())
    claim.observe(f"{len(touched)} touched, {pages - len(kept)} evicted")
    check_kept(expectation, kept, touched)


def check_kept(expectation: Expectation, kept: frozenset[int], young: frozenset[int]) -> None:
    """Assert that eviction kept the young pages and no other, or some of them if it may take any.

    Which of the two the contract says (`spares`).
    """
    lost, spared = young - kept, kept - young
    enough = not lost if expectation.spares == "young" else kept & young
    assert enough, f"{len(lost)} young pages were evicted: {shorten(lost)}"
    assert not spared, f"{len(spared)} old pages were kept: {shorten(spared)}"
