# SPDX-License-Identifier: GPL-2.0-only
"""A block is taken apart, or made again, while its access flags are being changed, or it is mapped.

Whoever loads an entry and stores to it later must not store if it was taken away meanwhile: it is
locked first, then a table takes its place, or is freed from there. A store to a locked entry is
found out by a WARN of who locked it, one over the table by a table that is never freed (claim 4);
a walk through a freed table by KASAN (claim 5).

Each round brings two of them together on two CPUs, once: one waits for the other in the guest,
where it needs no scheduler to go on, and probes keep either between its two steps for so long that
both meet also where the two CPUs of an emulated host share one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import pytest

from harness.cell import CellSpec
from harness.checks import tables
from harness.checks.claim import Claim
from harness.checks.cpus import several
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.opponents import ENTER
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    FAULT,
    SET_FLAGS,
    Window,
    agings,
    by_address,
    meetings,
    walk_functions,
    windows,
)
from harness.checks.pages import mark_idle, populated, require_huge, shorten
from harness.checks.racing import added, entries, fast_functions, kept, never_entered, not_widened
from harness.contract import Contract
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.klog import Splat
from harness.observe.trace import PROBE_FULL, Counts, Event, Wanted, slowed_entry
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

BLOCK = PAGES = 512
EVERYTHING = frozenset(range(PAGES))
WRITER, READER = 0, 1
# Rounds of one trace, and traces until so many have met.
ROUNDS = 8
TRACES, ENOUGH = 12, 4
# How long a load and its store are apart: two milliseconds and more under emulation. Who comes
# second does so up to so many microseconds later, when the first one has loaded the entry.
SLOWED = 8 * PROBE_FULL
PAUSE = 1500
# An ager enters its callback for each of the 512 entries of a table: some 40 milliseconds.
SLOWED_IN_TABLE = 8
PAUSE_IN_TABLE = 20000
# Who takes an entry away calls it when that is locked, before another takes its place.
LOCKED = "kvm_s2_put_page"
# Whoever maps enters it between the load of an entry and locking that; and takes a reference to the
# table when it is locked, before it stores what maps.
MAP_CALLBACK, HOLD = "stage2_map_walker", "kvm_host_get_page"
# Frees a table that a block took the place of; the second in Linux 6.2.
FREES = ("kvm_pgtable_stage2_free_unlinked", "kvm_pgtable_stage2_free_removed")
# In ESR_EL2 the fault status code and whether it was a write (Arm ARM, D24.2.40, "DFSC" and "WnR"),
# by the level of the entry: a write to a block that is write-protected, a read where a table has no
# entry, a read of a block that is old.
STATUS = 0x7F
SPLITS, JOINS, READS_OLD = {0x4D, 0x4E}, {0x07}, {0x09, 0x0A}

OUTCOME = (
    "the log names exactly what was written, no content lost, no splat, no table left when the VM "
    "is gone"
)


@dataclass(frozen=True)
class Met:
    """How many faults changed a block, and how many while its access flags were being changed."""

    faults: int = 0
    together: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        return f"{self.together} of {self.faults} faults came at the right time"


@dataclass(frozen=True)
class Field:
    """A guest of one block, and what was there before it."""

    vm: Guest
    before: tuple[Splat, ...]
    tables: int | None


@dataclass(frozen=True)
class Meeting:
    """What met, or why that is not known, and which functions were to take long and never ran.

    `entered` are entries of the series' fast path.
    """

    met: Met
    unseen: str = ""
    idle: frozenset[str] = frozenset()
    entered: int = 0


@pytest.mark.deep
def test_split_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A write takes a block apart while the block is aged: nothing lost, no splat."""
    claim.expect(
        f"a block is aged by page_idle while one of its pages is written for the dirty log, again "
        f"and again (seed {cell.seed}): {OUTCOME}; writes came while it was being aged"
    )
    field = _field(guest, shell, claim)
    vm = field.vm
    wanted = _beside_aging(contract, {AGE_CALLBACK: SLOWED, LOCKED: SLOWED})

    def one_round() -> None:
        written, joined = rng.sample(range(BLOCK), 2)
        vm.dirty_log(True)
        vm.touch_aging({written}, write=True, pause=rng.randrange(PAUSE))
        _assert_logged(vm, {written})
        vm.dirty_log(False)
        # A page without an entry: to map it makes the block again, and that is young.
        vm.touch({joined}, write=False)

    _race(
        field,
        shell,
        claim,
        cell,
        wanted,
        one_round,
        lambda counts: _beside(counts, vm, SPLITS),
        fast_functions(contract, cell),
    )


@pytest.mark.deep
def test_join_beside_aging(
    guest: Callable[..., Guest],
    shell: Shell,
    claim: Claim,
    rng: random.Random,
    cell: CellSpec,
    contract: Contract,
) -> None:
    """A block takes the place of a table while an ager walks that: nothing lost, no splat."""
    claim.expect(
        f"a fault makes a block of a table that an ager walks, by page_idle, again and again (seed "
        f"{cell.seed}): {OUTCOME}; faults came while the table was being walked"
    )
    field = _field(guest, shell, claim)
    vm = field.vm
    wanted = _beside_aging(contract, {AGE_CALLBACK: SLOWED_IN_TABLE}, *FREES)

    def one_round() -> None:
        joined, *written = rng.sample(range(BLOCK), 1 + BLOCK // 8)
        vm.dirty_log(True)
        vm.touch(written, write=True)
        _assert_logged(vm, set(written))
        vm.dirty_log(False)
        vm.touch_aging({joined}, write=False, pause=rng.randrange(PAUSE_IN_TABLE))

    def beside(counts: Counts) -> Met:
        found = _beside(counts, vm, JOINS)
        freed = sum(counts.of(name) for name in FREES if name not in counts.absent)
        claim.observe(f"{freed} tables freed")
        return replace(found, together=min(found.together, freed))

    fast = fast_functions(contract, cell)
    _race(field, shell, claim, cell, wanted, one_round, beside, fast)


@pytest.mark.deep
def test_split_beside_fault(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """One vCPU's write takes a block apart while another's access fault sets the block's flag."""
    if cell.cell.af_mode == "hardware":
        pytest.skip("no vCPU takes an access fault where hardware sets the access flag")
    claim.expect(
        f"one vCPU writes to a page of an old block for the dirty log, and another reads from the "
        f"same block, again and again (seed {cell.seed}): {OUTCOME}; writes came while an access "
        "fault on the block was being handled"
    )
    field = _field(guest, shell, claim)
    vm = field.vm
    wanted = Wanted((FAULT, ENTER), (SET_FLAGS, LOCKED), slowed={SET_FLAGS: SLOWED, LOCKED: SLOWED})

    def one_round() -> None:
        written, read, joined = rng.sample(range(BLOCK), 3)
        vm.touch({joined}, write=False)
        mark_idle(vm)
        vm.dirty_log(True)
        # The writer's own access fault is over before it splits the block.
        pause = rng.randrange(PAUSE)
        vm.touch_both({written}, {read}, writer=WRITER, reader=READER, pause=pause)
        _assert_logged(vm, {written})
        vm.dirty_log(False)

    def beside(counts: Counts) -> Met:
        faults = counts.events(FAULT)
        splits = tuple(by_address(of(faults, SPLITS), vm, EVERYTHING))
        flags = by_address(of(faults, READS_OLD), vm, EVERYTHING)
        spans = windows(flags, counts.events(ENTER))
        return Met(len(splits), meetings(spans, splits, Window.lasts))

    _race(field, shell, claim, cell, wanted, one_round, beside)


@pytest.mark.deep
def test_two_faults_map(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, cell: CellSpec
) -> None:
    """Two vCPUs' faults map a block at once: one of them locks its entry, and the other retries."""
    claim.expect(
        f"a block is gone from stage 2, and one vCPU writes to it while another reads from it, "
        f"again and again (seed {cell.seed}): no content lost, no splat, no table left when the VM "
        "is gone; faults came while another on the same block was being handled"
    )
    field = _field(guest, shell, claim)
    vm = field.vm
    slowed = {MAP_CALLBACK: SLOWED, HOLD: SLOWED}
    wanted = Wanted((FAULT, ENTER), tuple(slowed), slowed=slowed)

    def one_round() -> None:
        # Unmaps it from stage 2, and leaves it in the host's memory.
        vm.mprotect(EVERYTHING, write=False)
        vm.mprotect(EVERYTHING, write=True)
        written, read = rng.sample(range(BLOCK), 2)
        pause = rng.randrange(PAUSE)
        vm.touch_both({written}, {read}, writer=WRITER, reader=READER, pause=pause)

    def beside(counts: Counts) -> Met:
        faults = tuple(by_address(counts.events(FAULT), vm, EVERYTHING))
        return Met(
            len(faults), meetings(windows(faults, counts.events(ENTER)), faults, Window.lasts)
        )

    _race(field, shell, claim, cell, wanted, one_round, beside)


def _field(guest: Callable[..., Guest], shell: Shell, claim: Claim) -> Field:
    """The guest's writer has a CPU, and its reader and its main thread, which ages, another."""
    cpus = several(shell, "nobody changes a block while another changes it")
    baseline = tables.at_first(shell, claim)
    before = splats(shell)
    vm = populated(guest(backing="thp", pages=PAGES, vcpus=2))
    require_huge(vm)
    vm.pin(WRITER, cpus[0])
    vm.pin(READER, cpus[-1])
    shell.run(f"taskset -pc {cpus[-1]} {vm.greeting.pid}")
    mark_idle(vm)
    return Field(vm, before, baseline)


def _beside_aging(contract: Contract, slowed: dict[str, int], *others: str) -> Wanted:
    functions = walk_functions(contract, *slowed, *others)
    return Wanted((AGE, FAULT), functions, returns={AGED: ""}, slowed=slowed)


def _beside(counts: Counts, vm: Guest, status: Collection[int]) -> Met:
    """The faults of that status, and those of them that came while their block was aged."""
    faults = tuple(by_address(of(counts.events(FAULT), status), vm, EVERYTHING))
    return Met(len(faults), meetings(agings(counts), faults))


def of(faults: Iterable[Event], status: Collection[int]) -> Iterator[Event]:
    """The events FAULT that have one of these in STATUS."""
    return (fault for fault in faults if fault.fields["esr"] & STATUS in status)


def _meet(
    session: Session,
    claim: Claim,
    one_round: Callable[[], None],
    met: Callable[[Counts], Met],
    fast: Sequence[str] = (),
) -> Meeting:
    """Go on until enough have met, for TRACES traces at most.

    What a trace does not tell must not keep what the rounds did from being looked at.
    """

    def rounds() -> None:
        for _ in range(ROUNDS):
            one_round()

    total, entered = Met(), 0
    idle = frozenset(session.wanted.slowed) - session.absent.keys()
    for number in range(TRACES):
        _, counts = kept(session, claim, f"trace{number}.txt", rounds)
        entered += entries(counts, fast)
        try:
            total += met(counts)
            idle = frozenset(name for name in idle if not counts.of(name))
        except Unproven as exc:
            return Meeting(total, str(exc))
        if total.together >= ENOUGH:
            break
    return Meeting(total, idle=idle, entered=entered)


def _assert_logged(vm: Guest, written: set[int]) -> None:
    logged = vm.dirty()
    assert logged == written, f"logged are {shorten(logged)}, not {shorten(frozenset(written))}"


def _race(
    field: Field,
    shell: Shell,
    claim: Claim,
    cell: CellSpec,
    wanted: Wanted,
    one_round: Callable[[], None],
    met: Callable[[Counts], Met],
    fast: Sequence[str] = (),
) -> None:
    """The rounds, what must hold when they are over, and whether they proved anything."""
    with tracing(shell, wanted) as session:
        found = _meet(session, claim, one_round, met, fast)
    field.vm.verify(EVERYTHING)
    claim.observe(found.met.words())
    for name in sorted(found.idle):
        claim.observe(f"the window was not widened at {name}: nothing entered it")
    not_widened(claim, session.absent, *map(slowed_entry, wanted.slowed))
    assert_none_new(shell, claim, field.before)
    tables.assert_none_left(field.vm, shell, claim, field.tables, cell.slowdown)
    if found.unseen or not found.met.together:
        why = found.unseen or found.met.words()
        raise Unproven(f"what should race did not meet: {why}")
    if missing := never_entered(fast, found.entered):
        raise Unproven(missing)
