# SPDX-License-Identifier: GPL-2.0-only
"""Age all tested pages by a driver of choice, for checks that hold whatever the driver is.

A series may give one driver a path into KVM of its own, so what is shown with page_idle is not
shown with MGLRU's walk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.counted import counted
from harness.checks.driver import reaching, situation
from harness.checks.mglru import memcg_of
from harness.checks.pages import mark_idle
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell

Ager = Literal["page_idle", "mglru_walk"]


@contextlib.contextmanager
def aging_by(
    driver: Ager, vm: Guest, shell: Shell, claim: Claim, contract: Contract, cell: CellSpec
) -> Iterator[Callable[[], None]]:
    """A function that ages all pages of a guest that has no memory yet.

    It holds the kernel's counters of aging, where the contract has some, to the leaves made old:
    what the guest's memory is, or what else goes on, must not change by which way it is aged.

    Skips the check where the contract says that this driver does not reach KVM.
    """
    reaching(contract, driver, cell)
    counters = contract.expect_counters(situation(cell))

    def by(age: Callable[[], object]) -> Callable[[], None]:
        def age_counted() -> None:
            with counted(vm, shell, claim, counters):
                age()

        return age_counted

    if driver == "page_idle":
        yield by(lambda: mark_idle(vm))
        return
    with memcg_of(vm, shell) as memcg:
        yield by(memcg.walk)
