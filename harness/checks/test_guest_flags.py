# SPDX-License-Identifier: GPL-2.0-only
"""A CPU that keeps the flags of the guest's own tables writes to memory, and no store says so.

With TCR_EL1.HA and HD it sets AF in an entry of stage 1 that it uses, and makes the entry writable
with the first store (FEAT_HAFDBS; Arm ARM, D8.4.6). Where stage 2 has the page of that entry
without write permission, such an update is a permission fault of the walk (S1PTW), which KVM has to
take for a write (kvm_is_write_fault(), arch/arm64/include/asm/kvm_emulate.h): it gives the guest a
page that it may write, and logs it as dirty (user_mem_abort(), arch/arm64/kvm/mmu.c). On one that
does not, the guest faults for ever, or migrates with its tables as they were.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

from harness.checks.claim import Claim
from harness.checks.logged import assert_logged, assert_writable
from harness.checks.pages import (
    leaves,
    mark_idle,
    pick,
    populated,
    shorten,
    show_set,
    shows_stage2,
)
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu, stage2

PAGES = 512
# What HAFDBS says of a CPU that sets AF, and of one that makes entries writable as well.
SETS_AF, SETS_DIRTY = 1, 2
# Implementer and part of those that Linux itself has make no entry writable, though they say that
# they can (cpu_has_broken_dbm(), arch/arm64/kernel/cpufeature.c): Cortex-A55 and A510, Kryo 4xx
# Silver, whatever their revision. KVM tells a guest what they say.
BROKEN = frozenset({(0x41, 0xD05), (0x41, 0xD46), (0x51, 0x805)})


def dirties(hafdbs: int, cpus: Iterable[cpu.Midr]) -> bool:
    """Whether a guest can rely on its CPU to make entries writable, wherever it runs."""
    return hafdbs >= SETS_DIRTY and not any((one.implementer, one.part) in BROKEN for one in cpus)


@dataclass(frozen=True)
class Scene:
    """A guest whose pages are tables of its own, and what is needed to look at them."""

    vm: Guest
    shell: Shell
    claim: Claim
    rng: random.Random
    dirties: bool
    """Whether its CPU makes entries writable."""
    dump: bool
    """Whether the kernel shows stage 2."""

    @property
    def everything(self) -> frozenset[int]:
        """All pages."""
        return frozenset(range(self.vm.slot.pages))

    def update(self, when: str) -> tuple[frozenset[int], frozenset[int]]:
        """Have the CPU set AF in some tables, and make entries of some writable.

        Asserts that the guest's owner finds just these changes there. Returns where they were.
        """
        vm = self.vm
        read = pick(self.rng, vm.slot.pages)
        self.claim.observe(f"{when}: the CPU is to change entries")
        vm.set_af(read)
        self._entries(f"{when}, after loads", read, frozenset())
        if not self.dirties:
            return read, frozenset()
        # Some of which have AF by now, some not.
        written = pick(self.rng, vm.slot.pages)
        vm.set_dirty(written)
        self._entries(f"{when}, after stores", read | written, written)
        return read, written

    def _entries(self, when: str, young: frozenset[int], dirty: frozenset[int]) -> None:
        found = self.vm.entries(self.everything)
        self.claim.observe(
            f"{when}: {len(found.young)} entries with AF, {len(found.dirty)} writable"
        )
        assert found.young == young, f"{when}: entries with AF: {show_set(young, found.young)}"
        missing, extra = dirty - found.dirty, found.dirty - dirty
        assert not missing, f"{when}: {len(missing)} entries not writable: {shorten(missing)}"
        assert not extra, f"{when}: {len(extra)} entries writable without a store: {shorten(extra)}"

    def watched(self, when: str, *, logged: bool, aged: bool) -> None:
        """The same of entries that nobody has used; then stage 2 and the log name these pages.

        With `aged`, all pages are made old before, and exactly the leaves of these are young
        after it. With `logged` the dirty log is on, and exactly they are in it and can be written.
        """
        vm, claim = self.vm, self.claim
        vm.plant(self.everything)
        if aged:
            mark_idle(vm)
        read, written = self.update(when)
        if self.dump:
            self._stage2(when, read | written, logged=logged, aged=aged)
        if logged:
            assert_logged(vm, claim, read | written, when)

    def _stage2(self, when: str, changed: frozenset[int], *, logged: bool, aged: bool) -> None:
        vm, claim = self.vm, self.claim
        found = leaves(vm, self.shell, claim, when.replace(" ", "-"))
        if logged:
            assert_writable(vm, claim, found, changed, when)
        if aged:
            expected = stage2.by_leaf(found, vm.slot.ipa, vm.slot.pages, changed)
            young = stage2.young(found, vm.slot.ipa, vm.slot.pages)
            claim.observe(f"{when}: {show_set(expected, young)}")
            assert young == expected, f"{when}: {show_set(expected, young)}"


@pytest.mark.deep
def test_guest_flags(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random
) -> None:
    """What a CPU changes in the guest's tables is in memory, logged, and nobody else's."""
    vm = guest(pages=PAGES)
    hafdbs = vm.hafdbs()
    if hafdbs < SETS_AF:
        pytest.skip(
            f"the guest's CPU changes nothing in its tables: ID_AA64MMFR1_EL1.HAFDBS is {hafdbs}"
        )
    stores = dirties(hafdbs, cpu.parse(shell.run(cpu.SCRIPT).stdout).values())
    claim.expect(
        f"{PAGES} pages that are tables of the guest; in some of them its CPU "
        f"sets AF{', in some it makes an entry writable' if stores else ''}: the guest's owner "
        "finds just that there. The same of old pages, whose leaves are young then, exactly these; "
        "of pages that stage 2 has without write permission for the dirty log, which names exactly "
        "these; of both; and of pages that are a forked child's as well, which keeps its own"
    )
    dump = shows_stage2(vm, shell, claim, "the log and the guest's entries")
    scene = Scene(populated(vm), shell, claim, rng, stores, dump)
    scene.watched("old", logged=False, aged=True)
    vm.dirty_log(True)
    scene.watched("logged", logged=True, aged=False)
    scene.watched("logged and old", logged=True, aged=True)
    vm.dirty_log(False)
    vm.plant(scene.everything)
    vm.snapshot()
    scene.update("forked")
    vm.look_at_snapshot()
    vm.drop_snapshot()
    vm.verify(scene.everything)
