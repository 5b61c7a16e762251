# SPDX-License-Identifier: GPL-2.0-only
"""See who sets the access flag of a guest's pages on one CPU of a host, and hold it to a reason."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from harness.checks.claim import Claim
from harness.checks.pages import mark_idle, old_pages, young_pages
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.inventory import AfMode
from harness.observe.af import Expected
from harness.observe.trace import ACCESS_FAULT, pages_by_ipa
from harness.observe.tracefs import Session
from harness.observe.unproven import Unproven
from harness.ranges import format_ranges
from harness.results import CpuAf


def probed(kind: Expected, usable: Collection[int]) -> tuple[int, ...]:
    """The CPUs of a kind to look at: the first and the last, in case that they are not alike.

    Of those that are `usable`; Unproven if none is.
    """
    cpus = [cpu for cpu in kind.cpus if cpu in usable]
    if not cpus:
        raise Unproven(f"no guest can be put on {kind.name}")
    return tuple(sorted({cpus[0], cpus[-1]}))


def observe(vm: Guest, shell: Shell, claim: Claim, session: Session, cpu: int) -> AfMode | None:
    """Who sets the access flag for vCPU 0 on one CPU of the host; None for neither.

    All pages are old before it reads them, with no translation cached, and young after; so somebody
    sets their flags. `session` records access faults. `vm` is populated, and stays on that CPU.
    """
    pages = frozenset(range(vm.slot.pages))
    vm.pin(0, cpu)
    mark_idle(vm)
    old_pages(vm, shell, claim, f"cpu{cpu}-aged")
    vm.flush()
    session.start()
    exits = vm.touch(pages, write=False).exits.exits
    touching = session.stop()
    claim.save(f"trace-cpu{cpu}.txt", touching.raw)
    young_pages(vm, shell, claim, pages, f"cpu{cpu}-touched")
    faulted = pages_by_ipa(touching.events(ACCESS_FAULT), vm.slot.ipa, vm.slot.pages)
    found = who(faulted, pages, exits)
    claim.observe(
        f"CPU {cpu}: access faults for {len(faulted)} of {len(pages)} pages, {exits} exits of the "
        f"vCPU: {found or 'neither hardware nor software'}"
    )
    return found


def who(faulted: frozenset[int], touched: frozenset[int], exits: int) -> AfMode | None:
    """Who sets the access flag by two witnesses, None where they tell nothing or disagree.

    A tracepoint may be silent, but an access fault is an exit of the vCPU; some exits are for
    other reasons.
    """
    if not faulted and exits < len(touched):
        return "hardware"
    if faulted == touched and exits >= len(touched):
        return "software"
    return None


def record(kind: Expected, observed: AfMode | None = None) -> CpuAf:
    """What is recorded of the CPUs of a kind."""
    return CpuAf(
        cpus=format_ranges(kind.cpus),
        midr=str(kind.midr),
        model=kind.midr.model.name if kind.midr.model else "",
        expected=kind.af,
        why=kind.why,
        observed=observed,
    )


def one(seen: Collection[AfMode | None]) -> AfMode | None:
    """What all of several CPUs showed, None if they differ."""
    return next(iter(seen)) if len(set(seen)) == 1 else None


def differences(
    kinds: Sequence[Expected], seen: Mapping[int, AfMode | None], planned: AfMode
) -> list[str]:
    """In words, where what was seen on each CPU is not what must be, nor what the cell is about.

    No number is in it that differs from one run to the next.
    """
    words = []
    for kind in kinds:
        for cpu in kind.cpus:
            if cpu in seen and seen[cpu] != kind.af:
                found = f"{seen[cpu] or 'neither hardware nor software'} sets the access flag"
                words.append(f"{found} on CPU {cpu}, where {kind.af} must: {kind.why}")
        if kind.af != planned:
            words.append(f"{kind.name}: {kind.af} ({kind.why}), in a cell that is about {planned}")
    return words
