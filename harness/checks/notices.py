# SPDX-License-Identifier: GPL-2.0-only
"""How often the MMU notifiers asked KVM about each page, and what that cost.

Two calls for a page where one would do take the MMU lock twice (claim 14); the gain of another
way to age lies in locks and remote flushes (9). The latter two are numbers for a report.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from harness.checks.flushes import FLUSHES
from harness.checks.overlap import AGE, TEST, UNMAP
from harness.checks.pressure import Regions
from harness.guests import Guest
from harness.observe import lockdep
from harness.observe.trace import Counts, Wanted, merged, pages_by_hva
from harness.observe.unproven import Unproven

Told = TypeVar("Told")


@dataclass(frozen=True)
class Notices:
    """How often each tested page was asked about, by kvm_age_hva, and by kvm_test_age_hva."""

    aged: tuple[int, ...]
    tested: tuple[int, ...]

    def once(self, pages: frozenset[int], times: int = 1) -> str:
        """What speaks against that each page was asked about so often in all; "" if nothing."""
        for name, seen in (("kvm_age_hva", self.aged), ("kvm_test_age_hva", self.tested)):
            expected = times if name == "kvm_age_hva" else 0
            if wrong := sorted(page for page in pages if seen[page] != expected):
                page = wrong[0]
                return (
                    f"{len(wrong)} of {len(pages)} pages, page {page} among them, had "
                    f"{seen[page]} {name} instead of {expected}"
                )
        return ""


def recorded(*plain: Wanted) -> Wanted:
    """What must be recorded, on top of what is `plain`, for the functions below."""
    filters = {lockdep.ACQUIRE: lockdep.MMU_LOCK}
    return merged(*plain, Wanted((AGE, TEST, UNMAP, lockdep.ACQUIRE), FLUSHES, filters=filters))


def notices(counts: Counts, vm: Guest) -> Notices:
    """How often each tested page was asked about; Unproven if events were lost."""
    aged, tested = (
        pages_by_hva(counts.events(name), vm.greeting.slot_hva, vm.slot.pages)
        for name in (AGE, TEST)
    )
    return Notices(aged, tested)


def cost(counts: Counts, vm: Guest, regions: Regions) -> Mapping[str, object] | str:
    """What one step of aging or reclaim cost, for the report: numbers, or why there is none.

    So what is judged before them, and without, is judged.
    """
    return _or_why(lambda: _cost(counts, vm, regions))


def _cost(counts: Counts, vm: Guest, regions: Regions) -> Mapping[str, object]:
    seen = notices(counts, vm)
    gone = pages_by_hva(counts.events(UNMAP), vm.greeting.slot_hva, vm.slot.pages)
    by_region = {
        name: sum(seen.aged[page] for page in pages)
        for name, pages in (
            ("hot", regions.hot),
            ("warm", regions.warm),
            ("cold", regions.cold),
        )
    }
    return {
        "age_hva": by_region,
        "age_hva_pages": sum(map(bool, seen.aged)),
        "age_hva_most_for_a_page": max(seen.aged),
        "test_age_hva": sum(seen.tested),
        "unmapped": sum(gone),
        "flushes": {name: _or_why(partial(counts.of, name)) for name in FLUSHES},
        "mmu_lock": _or_why(lambda: _locks(counts)),
    }


def _locks(counts: Counts) -> Mapping[str, int]:
    write, read = lockdep.by_access(event.text for event in counts.events(lockdep.ACQUIRE))
    return {"write": write, "read": read}


def _or_why(read: Callable[[], Told]) -> Told | str:
    try:
        return read()
    except Unproven as exc:
        return f"unavailable: {exc}"
