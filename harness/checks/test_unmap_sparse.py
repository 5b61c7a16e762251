# SPDX-License-Identifier: GPL-2.0-only
"""What is taken away leaves stage 2 whole, though stage 2 has nothing where the range begins.

A walk that enters an entry in its middle, one that maps nothing, goes on where the next one begins
(__kvm_pgtable_visit(), arch/arm64/kvm/hyp/pgtable.c). The walkers of unmapping, write protection
and aging all rest on that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.pages import mapped_pages
from harness.guests import Guest
from harness.hosts.protocols import Shell

TABLE = 512
# Of the 2 MiB ranges each other one has pages, so that each walk begins where there is no table.
TABLES = 8
SOME = 96


@pytest.mark.deep
def test_unmap_sparse(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A range that begins in the middle of a hole of stage 2 is unmapped to its end."""
    ranges = list(_ranges(rng))
    claim.expect(
        f"of {TABLES * TABLE} pages of which each other 2 MiB has some: stage 2 maps exactly those "
        f"that were not in one of {len(ranges)} ranges given to MADV_DONTNEED, which begin in the "
        f"2 MiB without any, and the guest keeps what it wrote there (seed {cell.seed})"
    )
    vm = guest(pages=TABLES * TABLE)
    mapped = frozenset(
        page for first in range(TABLE, TABLES * TABLE, 2 * TABLE) for page in _some(rng, first)
    )
    vm.touch(mapped, write=True)
    mapped_pages(vm, shell, claim, mapped, "touched")
    for number, dropped in enumerate(ranges):
        vm.advise("dontneed", dropped)
        mapped -= frozenset(dropped)
        mapped_pages(vm, shell, claim, mapped, f"dropped-{number}")
    vm.verify(range(TABLES * TABLE))


def _ranges(rng: random.Random) -> Iterator[range]:
    """From anywhere in the 2 MiB that have nothing to anywhere in those behind them."""
    for first in range(0, TABLES * TABLE, 2 * TABLE):
        yield range(first + rng.randrange(1, TABLE), first + TABLE + rng.randrange(1, TABLE))


def _some(rng: random.Random, first: int) -> set[int]:
    """Pages of the 2 MiB that begin there, both ends among them."""
    return {first, first + TABLE - 1, *rng.sample(range(first, first + TABLE), SOME)}
