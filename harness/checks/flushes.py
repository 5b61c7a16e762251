# SPDX-License-Identifier: GPL-2.0-only
"""Hold aging to the TLB invalidations of stage 2 that it may make, and to those that it must.

Each stops all CPUs of a host for a moment, so a host that ages a guest's memory page by page must
not pay one for each (claim 9). Two witnesses: the functions that invalidate, and the VM's own
counter, which is no tracing's. Neither shows one that EL2 makes by itself, without VHE. Who asks
KVM with the flush, by clear_flush_young, must get one for each page that was young (claim 13), and
not before the page is old by each way that leads to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.checks.claim import Claim
from harness.checks.counted import counters
from harness.checks.overlap import AGE, AGE_WALK
from harness.contract_file import FlushRule
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.trace import Counts, Wanted, by_tasks, returned
from harness.observe.unproven import Unproven

# Invalidations of stage 2, host side. A kernel that has not all of them shows those it has. The
# first is what kvm_flush_remote_tlbs() calls, which is inlined where MMU notifiers flush.
FLUSHES = ("kvm_arch_flush_remote_tlbs", "kvm_tlb_flush_vmid_range", "__kvm_tlb_flush_vmid_ipa")
# Of a VM; virt/kvm/kvm_main.c, kvm_flush_remote_tlbs().
COUNTER = "remote_tlb_flush_requests"
# Asks with the flush, and returns whether any VM had the page young.
ASK_FLUSHING = "__mmu_notifier_clear_flush_young"


def with_flushes(plain: Wanted) -> Wanted:
    """What must be recorded for check_flushes(), on top of what is `plain`."""
    events = tuple(dict.fromkeys((*plain.events, AGE)))
    functions = tuple(dict.fromkeys((*plain.functions, *FLUSHES)))
    # Where it matters whose they are, exactly those of the task that ages: other VMs have theirs.
    entries = tuple(dict.fromkeys((*plain.entries, *FLUSHES))) if plain.ours else plain.entries
    return replace(plain, events=events, functions=functions, entries=entries)


@contextlib.contextmanager
def requests(vm: Guest, shell: Shell) -> Iterator[Callable[[], int]]:
    """How often the VM's TLB was invalidated as a whole in this block, for after its end.

    0 where the kernel has no such counter.
    """
    before = counters(vm, shell).get(COUNTER, 0)
    risen: list[int] = []
    yield lambda: risen[0]
    risen.append(counters(vm, shell).get(COUNTER, 0) - before)


def check_flushes(
    claim: Claim,
    promise: FlushRule | None,
    *recordings: Counts,
    requested: int | None = None,
) -> None:
    """Assert that no recording of aging has more invalidations than the contract lets it make.

    `requested` is what the VM's own counter rose by in all of them, if it was read. Unproven if a
    function cannot be seen, so that more may have been made, or if only that counter rose, which
    others can have done whose invalidations were seen: kswapd unmaps pages of the VM, too.
    """
    if promise is None:
        return
    each = promise.flushes == "each"
    most = [len(counts.events(AGE)) if each else 0 for counts in recordings]
    seen = [
        sum(counts.of(name) for name in FLUSHES if name not in counts.absent)
        for counts in recordings
    ]
    also = "" if requested is None else f", {requested} by the VM's counter"
    claim.observe(f"{' + '.join(map(str, seen))} TLB invalidations{also}")
    others = sum(_by_others(counts) for counts in recordings)
    for number, bound in (*zip(seen, most, strict=True), (requested or 0, sum(most) + others)):
        assert number <= bound, (
            f"aging invalidated stage 2's TLB {number} times, where {bound} times are the most"
        )
    if (requested or 0) > sum(most):
        raise Unproven(f"the VM's counter rose by {requested}; others invalidated {others} times")
    # At the end: what is wrong outranks what cannot be seen.
    for counts in recordings:
        for name in FLUSHES:
            counts.of(name)


def with_flushing(plain: Wanted) -> Wanted:
    """What must be recorded for check_flushed(), on top of what is `plain`, of whose tasks."""
    young, ours = "ret != 0", by_tasks(*plain.ours)
    # kswapd asks about other VMs, whose TLBs the tested VM's counter knows nothing of.
    asked = f"{young} && ({ours})" if ours else young
    entered = (ASK_FLUSHING, *FLUSHES)
    return replace(
        plain,
        functions=tuple(dict.fromkeys((*plain.functions, *entered))),
        entries=tuple(dict.fromkeys((*plain.entries, *entered))),
        returns={**plain.returns, ASK_FLUSHING: asked, AGE_WALK: ours},
    )


def check_flushed(
    claim: Claim, vm: Guest, shell: Shell, counts: Counts, requested: int | None
) -> None:
    """Assert that whoever asked with the flush, and was told "young", has invalidated the TLB.

    clear_flush_young of include/linux/mmu_notifier.h tears the translation down, whoever sets the
    flag. That must come after the last leaf of the page was made old, by the trace; where the
    kernel does not show the order, `requested`, by which the VM's counter rose, must be enough; it
    is None where others are asked, too. Nothing is judged where there is neither.
    """
    told = returned(ASK_FLUSHING)
    if told in counts.absent:
        claim.observe("how often aging must invalidate stage 2's TLB is not shown")
        return
    young = len(counts.events(told))
    also = "" if requested is None else f"; {requested} TLB invalidations"
    claim.observe(f"{young} times young, asked with the flush{also}")
    missing = {ASK_FLUSHING, FLUSHES[0], returned(AGE_WALK)} & counts.absent.keys()
    if not missing:
        late = _not_flushed(counts)
        assert not late, (
            f"{late} of {young} times a page was found young by who asks with the flush, and "
            "stage 2's TLB was not invalidated after its last leaf was made old"
        )
        return
    claim.observe(f"whether they come last is not shown: no {', '.join(sorted(missing))}")
    if requested is not None and COUNTER in counters(vm, shell):
        assert requested >= young, (
            f"{young} times a page was found young by who asks with the flush, but stage 2's TLB "
            f"was invalidated {requested} times"
        )


def _not_flushed(counts: Counts) -> int:
    """How often who asked with the flush was told "young" with none since a leaf was made old."""
    told, walked = returned(ASK_FLUSHING), returned(AGE_WALK)
    flushes = [name for name in FLUSHES if name not in counts.absent]
    # By the task that asks: it goes over tables for other reasons, too.
    owed: dict[int, bool] = {}
    late = 0
    for event in counts.in_order(ASK_FLUSHING, walked, told, *flushes):
        if event.name == told:
            late += owed.get(event.pid, False)
        elif event.name == ASK_FLUSHING:
            owed[event.pid] = True
        elif event.name != walked:
            owed[event.pid] = False
        # A bool has one byte of the register.
        elif event.fields["ret"] & 0xFF:
            owed[event.pid] = True
    return late


def _by_others(counts: Counts) -> int:
    """How often a whole TLB was invalidated by tasks that do not age."""
    return sum(counts.of_others(name) for name in FLUSHES if name not in counts.absent)
