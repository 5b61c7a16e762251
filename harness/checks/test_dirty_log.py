# SPDX-License-Identifier: GPL-2.0-only
"""Aging and the dirty log (claim 4): neither loses or invents what the other has.

Live migration copies what the dirty log names. A write that it does not name is data lost; a page
that it names without a write is only work, but says that somebody gave write permission away.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from harness.cell import CellSpec
from harness.checks.aging import Ager, aging_by
from harness.checks.claim import Claim
from harness.checks.cpus import free_cpu
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import (
    af_alone,
    idle_tells,
    leaves,
    old_pages,
    pick,
    populated,
    show_set,
    shows_stage2,
)
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2

PAGES = 512
ROUNDS = 2
SPIN_PAGES, READS = 64, 4


@pytest.mark.parametrize(
    "driver",
    [
        pytest.param("page_idle", marks=pytest.mark.quick),
        pytest.param("mglru_walk", marks=pytest.mark.deep),
    ],
)
def test_dirty_log(
    driver: Ager,
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    contract: Contract,
    cell: CellSpec,
) -> None:
    """With aging before, between and after, the dirty log names exactly the pages written."""
    vm = guest(pages=PAGES)
    dump = shows_stage2(
        vm, shell, claim, "the log and page_idle" if driver == "page_idle" else "the log"
    )
    claim.expect(
        f"in each of {ROUNDS} rounds the dirty log names exactly the pages that were written since "
        f"it was read last, {_beyond_the_log(driver, dump=dump)}"
    )
    with aging_by(driver, vm, shell, claim, contract, cell) as age:
        populated(vm)
        vm.dirty_log(True)
        assert_logged(vm, claim, frozenset(), "before any write")
        for number in range(ROUNDS):
            if dump:
                _round(vm, shell, claim, rng, str(number), age)
            else:
                _round_by_log(vm, claim, rng, str(number), age, idle=driver == "page_idle")
        vm.verify(range(PAGES))


def _beyond_the_log(driver: Ager, *, dump: bool) -> str:
    """What is expected of pages, as far as this kernel lets it be seen."""
    if dump:
        return (
            "pages are writable exactly while it names them, aging changes AF alone, "
            "and reads of old pages neither make them writable nor log them"
        )
    words = "no page can be written past it after aging and reads, which log none"
    if driver == "page_idle":
        words += "; all pages are old after aging, then those young that were used"
    return words


def _round(
    vm: Guest,
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    name: str,
    age: Callable[[], None],
) -> None:
    ipa = vm.slot.ipa
    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    before = leaves(vm, shell, claim, f"{name}-written")
    assert_writable(vm, claim, before, written, f"round {name}, after writes")

    age()
    aged = old_pages(vm, shell, claim)
    af_alone(vm, before, aged)

    more = pick(rng, PAGES)
    vm.touch(more, write=True)
    # Reading the log also takes write permission back and invalidates the slot's translations.
    assert_logged(vm, claim, written | more, f"round {name}")
    young = stage2.young(leaves(vm, shell, claim, f"{name}-logged"), ipa, PAGES)
    assert young == more, f"round {name}: the log took or gave AF: {show_set(more, young)}"
    age()
    assert_logged(vm, claim, frozenset(), f"round {name}, after aging")

    read = pick(rng, PAGES)
    vm.touch(read, write=False)
    after = leaves(vm, shell, claim, f"{name}-read")
    assert_writable(vm, claim, after, frozenset(), f"round {name}, after reads")
    young = stage2.young(after, ipa, PAGES)
    assert young == read, f"round {name}, after reads: {show_set(read, young)}"
    assert_logged(vm, claim, frozenset(), f"round {name}, after reads")


def _round_by_log(
    vm: Guest,
    claim: Claim,
    rng: random.Random,
    name: str,
    age: Callable[[], None],
    *,
    idle: bool,
) -> None:
    """The same where stage 2 is not shown: a page may be written past the log if a write does so.

    Whether a page that the log names has lost write permission, nothing tells then: the guest gets
    it back by a fault. `idle` is whether page_idle ages, which alone has it tell who is young.
    """

    def young(expected: frozenset[int]) -> None:
        if idle:
            idle_tells(vm, claim, expected)

    written = pick(rng, PAGES)
    vm.touch(written, write=True)
    age()
    young(frozenset())
    more = pick(rng, PAGES)
    vm.touch(more, write=True)
    assert_logged(vm, claim, written | more, f"round {name}")
    young(more)
    age()
    assert_logged(vm, claim, frozenset(), f"round {name}, after aging")
    read = pick(rng, PAGES)
    vm.touch(read, write=False)
    young(read)
    assert_logged(vm, claim, frozenset(), f"round {name}, after reads")
    everything = frozenset(range(PAGES))
    vm.touch(everything, write=True)
    assert_logged(vm, claim, everything, f"round {name}, all written")


@pytest.mark.deep
def test_dirty_log_hot(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """A vCPU that writes without an exit is logged from when the log is on, and after each read."""
    cpu = free_cpu(shell, cell)
    page = rng.randrange(SPIN_PAGES)
    claim.expect(
        f"a vCPU writes page {page} without end and without an exit; then the dirty log is "
        f"switched on: each of {READS} reads of it names that page, and no other"
    )
    vm = populated(guest(pages=SPIN_PAGES))
    vm.pin(0, cpu, fifo=True)
    vm.spin({page}, write=True)
    # It writes to the page without a fault by now, whose translation has to go.
    vm.spin_wait(2)
    vm.dirty_log(True)
    for number in range(READS):
        # The first of them may be a store from before the last read, which is counted after it.
        vm.spin_wait(2)
        assert_logged(vm, claim, frozenset({page}), f"read {number}")
    vm.spin_stop()
    vm.verify(range(SPIN_PAGES))
