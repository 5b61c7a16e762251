# SPDX-License-Identifier: GPL-2.0-only
"""Run a race between agers and an opponent, and tell how often they met.

The guest program marks in the trace when its opponent acts (docs/guest-protocol.md, "A race"); KVM
tells when an aging begins. Windows are made wider by kprobes: between the load of an entry and its
store, on the walk's callback; and between what a write fault does before and after it puts its page
into the dirty log, on the return of the function that does.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import reaching
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    MARK_DIRTY,
    TAKE,
    UNMAP,
    UNMAPPED,
    Window,
    acts,
    in_guest,
    meetings,
    walk_functions,
    windows,
)
from harness.checks.pages import mark_idle, old_pages, pick, populated, young_pages
from harness.checks.pressure import lru
from harness.checks.undo import undone
from harness.contract import Contract, Driver
from harness.guest_replies import PAGE_SIZE, RaceReply
from harness.guests import Ager, Backing, Guest, Opponent
from harness.hosts.protocols import Shell
from harness.observe.trace import MARK, PROBE_FULL, Counts, Event, Wanted, address_range, returned
from harness.observe.tracefs import Session, tracing

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result = TypeVar("Result")
Numbers = TypeVar("Numbers", bound="DataclassInstance")

# More than the two CPUs that a race uses.
VCPUS = 3
AGERS = 2
# Of one race: a guest that hangs must be told from a check that takes too long.
SECONDS = 60.0

ENTER, LEAVE = "kvm:kvm_entry", "kvm:kvm_exit"
# How the contract calls what an ager drives.
DRIVERS: Mapping[Ager, Driver] = {
    "page-idle": "page_idle",
    "walk": "mglru_walk",
    "eviction": "eviction",
}


@dataclass(frozen=True)
class Size:
    """What a race is made of."""

    pages: int
    rounds: int
    backing: Backing = "anon"


def added(one: Numbers, other: Numbers) -> Numbers:
    """The sums of two dataclasses of numbers, field by field."""
    return type(one)(*map(sum, zip(astuple(one), astuple(other), strict=True)))


@dataclass(frozen=True)
class Met:
    """How often what should race did, and how often the opponent got its way.

    `together` are agings that began while the opponent acted, `marked` write faults that came to
    the dirty log while it was read, `changes` those of a slot that began while all of its pages
    were being unmapped; `paged_out` and `split` are pages and huge pages.
    """

    ages: int = 0
    acts: int = 0
    together: int = 0
    marked: int = 0
    changes: int = 0
    paged_out: int = 0
    split: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        text = (
            f"{self.together} of {self.ages} agings of its pages began during one of the "
            f"opponent's {self.acts} acts"
        )
        if self.marked:
            text += f", {self.marked} write faults came to the dirty log while it was read"
        if self.changes:
            text += f", {self.changes} of which began while all of these pages were being unmapped"
        return text

    def missing(self, ager: Ager, opponent: Opponent, least: int = 1) -> str:
        """What did not happen as often as it must for the race to prove anything, "" if all did.

        A page-out and a split need to have come about once: that is up to who holds the pages.
        """
        if self.together < least:
            return f"aging and its opponent did not meet: {self.words()}"
        if opponent == "dirty-log" and self.marked < least:
            return f"no write fault came to the log while it was read: {self.words()}"
        if opponent == "slot-unmap" and self.changes < least:
            return f"no slot changed while its pages were being unmapped: {self.words()}"
        if opponent == "pageout" and ager != "eviction" and not self.paged_out:
            return "no page was paged out"
        if opponent == "split" and not self.split:
            return "no huge page was split"
        return ""


@dataclass(frozen=True)
class Field:
    """A guest whose pages are raced for, and what records it."""

    vm: Guest
    session: Session
    ager: Ager
    opponent: Opponent
    size: Size

    def race(
        self, claim: Claim, seed: int, rounds: int, agers: int, name: str
    ) -> tuple[RaceReply, Met]:
        """One race; the trace is kept as trace-NAME.txt.

        GuestDataLost if a vCPU saw what it must not, or the dirty log missed a page.
        """
        result, counts = kept(
            self.session,
            claim,
            f"trace-{name}.txt",
            lambda: self.vm.race(
                seed,
                rounds=rounds,
                agers=agers,
                ager=self.ager,
                opponent=self.opponent,
            ),
        )
        return result, self._met(result, counts)

    def _met(self, result: RaceReply, counts: Counts) -> Met:
        ages = counts.events(AGE)
        if self.opponent == "guest":
            spans = in_guest(counts.events(ENTER), counts.events(LEAVE), *slot_range(self.vm))
        else:
            spans = acts(counts.events(MARK))
        marked = 0
        if self.opponent == "dirty-log":
            # Switching the log on waits for faults under way, which is no race for it.
            reads = acts(counts.events(MARK), log_reads=True)
            marked = meetings(reads, counts.events(returned(MARK_DIRTY)), Window.lasts)
        changes = 0
        if self.opponent == "slot-unmap":
            unmaps = windows(
                of_all_pages(counts.events(UNMAP), self.vm), counts.events(returned(UNMAPPED))
            )
            begun = [mark for mark in counts.events(MARK) if mark.fields["begins"]]
            changes = meetings(unmaps, begun)
        return Met(
            ages=len(ages),
            acts=len(spans),
            together=meetings(spans, ages),
            marked=marked,
            changes=changes,
            # Of pages that agers evict nothing tells who took them.
            paged_out=0 if self.ager == "eviction" else result.paged_out,
            split=result.split,
        )


def kept(
    session: Session, claim: Claim, name: str, race: Callable[[], Result]
) -> tuple[Result, Counts]:
    """Record a race, and keep its trace by that name even if it fails: then it is worth more."""
    stopped: list[Counts] = []

    def stop() -> None:
        stopped.append(session.stop())
        claim.save(name, stopped[0].raw)

    session.start()
    with undone(stop):
        result = race()
    return result, stopped[0]


def not_widened(claim: Claim, absent: Mapping[str, str], *names: str) -> None:
    """Tell which of the probes that make a window wider this kernel does not allow, and why."""
    for name in absent.keys() & set(names):
        claim.observe(f"the window was not widened at {name}: {absent[name]}")


def exact(vm: Guest, shell: Shell, claim: Claim, rng: random.Random, block: int = 1) -> None:
    """Assert that what was through a race ages as exactly as anything else.

    Touched are whole blocks of so many pages: one touch makes all of a huge page young.
    """
    populated(vm)
    mark_idle(vm)
    old_pages(vm, shell, claim)
    vm.flush()
    firsts = pick(rng, vm.slot.pages // block)
    touched = frozenset(page for at in firsts for page in range(at * block, (at + 1) * block))
    vm.touch(touched, write=True)
    young_pages(vm, shell, claim, touched)
    vm.verify(range(vm.slot.pages))


def slot_range(vm: Guest) -> tuple[int, int]:
    """Where the tested pages begin and end in the guest program's memory."""
    start = vm.greeting.slot_hva
    return start, start + vm.slot.pages * PAGE_SIZE


def by_address(faults: Iterable[Event], vm: Guest, pages: Container[int]) -> Iterator[Event]:
    """The events FAULT on some of the tested pages, with the host's address of the page."""
    for fault in faults:
        page = (fault.fields["ipa"] - vm.slot.ipa) // PAGE_SIZE
        if page in pages:
            at = vm.greeting.slot_hva + page * PAGE_SIZE
            yield replace(fault, fields={"start": at, "end": at + PAGE_SIZE})


def of_all_pages(unmaps: Iterable[Event], vm: Guest) -> list[Event]:
    """The unmaps of all tested pages at once: of one alone, it may be the page of zeroes."""
    whole = slot_range(vm)
    return [one for one in unmaps if address_range(one) == whole]


@contextlib.contextmanager
def field(
    guest: Callable[..., Guest],
    shell: Shell,
    contract: Contract,
    cell: CellSpec,
    ager: Ager,
    opponent: Opponent,
    size: Size,
) -> Iterator[Field]:
    """A guest with all that its race needs: a memcg, swap, a trace. It is gone afterwards.

    Skips the check where the contract says that this driver of aging does not reach KVM.
    """
    reaching(contract, DRIVERS[ager], cell)
    with contextlib.ExitStack() as stack:
        if ager == "eviction":
            # Then eviction alone asks KVM.
            stack.enter_context(lru(shell, "no_walk"))
        if ager == "eviction" or opponent == "pageout":
            stack.enter_context(zram_swap(shell))
        vm = guest(backing=size.backing, pages=size.pages, vcpus=VCPUS, timeout=SECONDS)
        # Ends before its swap does.
        stack.enter_context(vm)
        start, end = slot_range(vm)
        more = {"guest": (ENTER, LEAVE), "slot-unmap": (UNMAP,)}.get(opponent, ())
        # A fault stays for long where its page is marked: it must be mapped by then.
        returns = {"dirty-log": {MARK_DIRTY: ""}, "slot-unmap": {UNMAPPED: ""}}.get(opponent, {})
        slowed = {AGE_CALLBACK: 8} | {
            "dirty-log": {MARK_DIRTY: 8},
            # A drop of a few pages takes longer than the slot is let wait for before it changes.
            "slot-unmap": {TAKE: 2 * PROBE_FULL},
        }.get(opponent, {})
        wanted = Wanted(
            events=(AGE, *more),
            functions=walk_functions(contract, *(slowed.keys() - returns)),
            # MGLRU's walk goes over all of the process.
            filters={AGE: f"start < {end:#x} && end > {start:#x}"},
            slowed=slowed,
            returns=returns,
        )
        session = stack.enter_context(tracing(shell, wanted))
        if ager != "page-idle":
            stack.enter_context(memcg_of(vm, shell))
        yield Field(vm, session, ager, opponent, size)


def show(result: RaceReply) -> str:
    """What a race did, in a sentence: what it took, and what else is not zero."""
    mean = result.acts_us / result.acts if result.acts else 0.0
    text = (
        f"{result.touches} touches, {result.least} at least by each vCPU; {result.passes} passes "
        f"of aging; {result.acts} acts took {mean:.0f} us each, the slowest {result.slowest_us} us"
    )
    others = ("found", "dropped", "paged_out", "logged", "emulated", "vms", "split", "collapsed")
    return text + "".join(
        f"; {getattr(result, name)} {name}" for name in others if getattr(result, name)
    )
