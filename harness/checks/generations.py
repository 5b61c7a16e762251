# SPDX-License-Identifier: GPL-2.0-only
"""What MGLRU documents of its generations, as a model to hold its histograms to.

Documentation/mm/multigen_lru.rst and mm/vmscan.c: a page that a guest's access faults in is in the
youngest generation. Aging moves what was accessed to the youngest, then makes a new one; there are
at most MAX_GENS, so what is in the oldest joins the next before that.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.observe.lru_gen import Lruvec

MAX_GENS = 4


@dataclass(frozen=True)
class Generations:
    """Which pages are in which generation: `members[n]` has the number `oldest` + n."""

    oldest: int
    members: tuple[frozenset[int], ...]

    def aged(self, accessed: frozenset[int]) -> Generations:
        """As they are after an aging that found these pages accessed."""
        members = [generation - accessed for generation in self.members]
        members[-1] |= accessed
        oldest = self.oldest
        if len(members) == MAX_GENS:
            members[:2] = [members[0] | members[1]]
            oldest += 1
        return Generations(oldest, (*members, frozenset()))


def new(lruvec: Lruvec, pages: frozenset[int]) -> Generations:
    """As they are when all of these pages have just been faulted in."""
    empty = (frozenset[int]() for _ in lruvec.generations[1:])
    return Generations(lruvec.generations[0].seq, (*empty, pages))


def differences(model: Generations, lruvec: Lruvec) -> tuple[str, ...]:
    """Where a histogram of anonymous pages is not that of the model.

    The owner of the guest has pages of its own in the same memcg: those that are too many in all.
    They may be in any generation, but there cannot be less pages in one than the model has.
    """
    numbers = [generation.seq for generation in lruvec.generations]
    expected = list(range(model.oldest, model.oldest + len(model.members)))
    if numbers != expected:
        return (f"generations {numbers} where {expected} are expected",)
    others = sum(one.anon for one in lruvec.generations) - sum(map(len, model.members))
    return tuple(
        f"generation {seen.seq} has {seen.anon} pages where {len(pages)} of the guest and at most "
        f"{max(others, 0)} others are expected"
        for pages, seen in zip(model.members, lruvec.generations, strict=True)
        if not 0 <= seen.anon - len(pages) <= others
    )
