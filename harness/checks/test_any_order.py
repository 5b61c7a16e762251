# SPDX-License-Identifier: GPL-2.0-only
"""Few pages are touched, aged and asked about again and again, in whatever order.

Other checks age all pages, touch some, and look. Aging that keeps anything from one request to the
next (the last range that was old, say, so as not to walk for it again) is right then, since
something else was asked about in between (claim 13). What must be found follows from a model of two
bits for each page: the access flag of stage 2, and the idle flag of the host.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.idle_ager import marker
from harness.checks.pages import (
    leaves,
    mark_idle,
    populated,
    require_marks_kept,
    show_set,
    shows_stage2,
)
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

# Of so few pages the same one is often asked about twice in a row.
PAGES = 3
EVERYTHING = frozenset(range(PAGES))
STEPS = 64


@pytest.mark.deep
def test_any_order(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """After each of many steps in random order the flags of each page are what they must be."""
    vm = populated(guest(pages=PAGES))
    require_marks_kept(vm)
    dump = shows_stage2(vm, shell, claim, "page_idle")
    claim.expect(
        f"{PAGES} pages of which some are touched, marked idle, or read from page_idle, {STEPS} "
        f"times in random order (seed {cell.seed}): page_idle says of each whether it was touched "
        "since it was marked"
        + (
            ", and stage 2 has the access flag of exactly those that were touched since they were "
            "aged last" * dump
        )
    )
    pfns = vm.pfns()
    mark_idle(vm)
    young, idle = frozenset[int](), EVERYTHING
    steps: list[str] = []
    with marker(vm, shell) as mark:
        for _ in range(STEPS):
            some = frozenset(page for page in EVERYTHING if rng.random() < 0.5) or {0}
            step = rng.choice(("touch", "touch", "mark", "read"))
            steps.append(step if step == "read" else f"{step} {sorted(some)}")
            if step == "touch":
                # A cached translation would hide the touch from stage 2.
                vm.flush()
                vm.touch(some, write=False)
                young |= some
            elif step == "mark":
                mark(pfns[page] for page in some)
                young, idle = young - some, idle | some
            else:
                found, expected = vm.idle_read(), idle - young
                assert found == expected, (
                    f"after {', '.join(steps[-6:])}: {show_set(expected, found)} (idle)"
                )
                # Only those that are marked are asked about.
                young, idle = young - idle, expected
            if dump:
                found = stage2.young(leaves(vm, shell, claim, "last"), vm.slot.ipa, PAGES)
                assert found == young, (
                    f"after {', '.join(steps[-6:])}: stage 2: {show_set(young, found)}"
                )
    claim.observe(f"{STEPS} steps as they must be; the last ones: {', '.join(steps[-6:])}")
    vm.verify(EVERYTHING)
