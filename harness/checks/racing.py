# SPDX-License-Identifier: GPL-2.0-only
"""Run a race between agers and an opponent, and tell how often they met.

KVM tells when an aging begins, or probes on the functions of a fast path that has no event do.
Probes tell when the opponent is at stage 2; where there is none for that, the guest program marks
in the trace when it acts (docs/guest-protocol.md, "A race"). Windows are made wider by kprobes:
between the load of an entry and its store, on the callbacks of the walks that age and that unmap;
and between what a write fault does before and after it puts its page into the dirty log, on the
return of the function that does.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import reaching, situation
from harness.checks.evidence import Evidence
from harness.checks.idle_ager import Outsider
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.opponents import SLOWLY, Opposition, of_any_page, opposition
from harness.checks.overlap import (
    AGE,
    AGE_CALLBACK,
    AGED,
    LOOK_UP,
    Window,
    acts,
    agings,
    looking_up,
    meetings,
    most_threads,
    slot_range,
    stays,
    walk_functions,
)
from harness.checks.pages import mark_idle, old_pages, pick, populated, young_pages
from harness.checks.pressure import lru
from harness.checks.undo import undone
from harness.contract import Contract
from harness.contract_file import Driver
from harness.guest_replies import RaceReply
from harness.guest_words import Ager, Backing, Opponent
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list
from harness.observe.trace import MARK, Counts, Event, Wanted, returned, slowed_return
from harness.observe.tracefs import Session, tracing
from harness.observe.unproven import Unproven

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Result = TypeVar("Result")
Numbers = TypeVar("Numbers", bound="DataclassInstance")

# CPUs that a race uses: kvm-guest takes one less than there are vCPUs, within these bounds. More
# where they are real: those of an emulated host share the controller's.
FEWEST_CPUS, MOST_CPUS, MOST_REAL_CPUS = 2, 4, 8
# Of one race: a guest that hangs must be told from a check that takes too long.
SECONDS = 60.0

# How the contract calls what an ager drives.
DRIVERS: Mapping[Ager, Driver] = {
    "page-idle": "page_idle",
    "walk": "mglru_walk",
    "eviction": "eviction",
}
# Of these a race takes one that enters the series' fast path, if any does.
CHOICE: tuple[Outsider, ...] = ("page-idle", "walk")


@dataclass(frozen=True)
class Size:
    """What a race is made of."""

    pages: int
    rounds: int
    backing: Backing = "anon"


@dataclass(frozen=True)
class Crowd:
    """How many vCPUs, and threads that age, are in a race."""

    vcpus: int
    agers: int


def crowd(shell: Shell, cell: CellSpec) -> Crowd:
    """As many as a race's CPUs have to do with, and one vCPU more, so that some thread waits.

    On each CPU but one an ager can go on while the opponent acts. From three CPUs on not all of
    them do so each time, and then vCPUs run beside both.
    """
    most = MOST_CPUS if cell.emulated else MOST_REAL_CPUS
    return crowd_on(len(cpu_list.usable(shell)), most)


def crowd_on(cpus: int, most: int) -> Crowd:
    """The same by the number of CPUs on which programs can be put, of which `most` are used."""
    cpus = min(max(cpus, FEWEST_CPUS), most)
    return Crowd(vcpus=cpus + 1, agers=max(cpus - 1, 2))


def added(one: Numbers, other: Numbers) -> Numbers:
    """The sums of two dataclasses of numbers, field by field."""
    return type(one)(*map(sum, zip(astuple(one), astuple(other), strict=True)))


@dataclass(frozen=True)
class Met:
    """How often what should race did, and how often the opponent got its way.

    `acts` is how often the opponent was at stage 2, `together` are agings that began then, `also`
    is what else must come about (opponents.py), `paged_out` and `split` are pages and huge pages,
    `fast` entries of the fast path's functions that this aging enters, `threads` how many threads
    began an aging during one act, at most.
    """

    ages: int = 0
    acts: int = 0
    together: int = 0
    also: int = 0
    paged_out: int = 0
    split: int = 0
    fast: int = 0
    threads: int = 0

    def __add__(self, other: Met) -> Met:
        return replace(added(self, other), threads=max(self.threads, other.threads))

    def words(self, against: Opposition) -> str:
        """The numbers in a sentence."""
        text = (
            f"{self.together} of {self.ages} agings of its pages began during {self.acts} "
            f"{against.words}, {self.threads} threads at most began some during one act"
        )
        return f"{text}, {self.also} {against.also.words}" if against.also else text

    def missing(self, ager: Ager, opponent: Opponent, against: Opposition, least: int = 1) -> str:
        """What did not happen as often as it must for the race to prove anything, "" if all did.

        A page-out and a split need to have come about once: that is up to who holds the pages.
        """
        if self.together < least:
            return f"aging and its opponent did not meet: {self.words(against)}"
        if against.also and self.also < least:
            return f"{against.also.none}: {self.words(against)}"
        if opponent == "pageout" and ager != "eviction" and not self.paged_out:
            return "no page was paged out"
        if opponent == "split" and not self.split:
            return "no huge page was split"
        return ""


@dataclass(frozen=True)
class Shows:
    """How an aging shows: by the event `aging`, or the function of that name, which it enters.

    `fast` are those of the series' fast path's functions that it must enter in the cell.
    """

    aging: str
    fast: tuple[str, ...]

    @classmethod
    def of(cls, contract: Contract, ager: Ager, cell: CellSpec) -> Shows:
        """What the contract says of an ager in a cell."""
        expectation = contract.expect(DRIVERS[ager], situation(cell))
        fast = expectation.enters_fast_path
        return cls(fast[0] if fast and expectation.event is None else AGE, fast)

    def wanted(
        self,
        contract: Contract,
        *functions: str,
        events: tuple[str, ...] = (),
        returns: tuple[str, ...] = (),
        slowed: Mapping[str, int],
    ) -> Wanted:
        """What records agings from begin to end, and all this."""
        by_event = self.aging == AGE
        return Wanted(
            events=(AGE, *events) if by_event else events,
            functions=walk_functions(contract, *functions),
            entries=() if by_event else (self.aging,),
            returns=dict.fromkeys((AGED if by_event else self.aging, *returns), ""),
            slowed=slowed,
        )

    def lasting(self, counts: Counts, vm: Guest) -> tuple[Window, ...]:
        """How long each of the recorded agings took."""
        if self.aging == AGE:
            return agings(counts)
        ends = counts.events(returned(self.aging))
        return stays(counts.events(self.aging), ends, *slot_range(vm))

    def agings(self, counts: Counts, vm: Guest) -> Sequence[Event]:
        """Where the recorded agings began; who enters a function may be at any tested page."""
        ages = counts.events(self.aging)
        return ages if self.aging == AGE else of_any_page(ages, vm)


@dataclass(frozen=True)
class Field:
    """A guest whose pages are raced for, and what records it."""

    vm: Guest
    session: Session
    ager: Ager
    opponent: Opponent
    against: Opposition
    shows: Shows
    evidence: Evidence

    def race(
        self, claim: Claim, seed: int, rounds: int, agers: int, name: str
    ) -> tuple[RaceReply, Met]:
        """One race; the trace is kept as trace-NAME.txt. What that does not tell, missing() does.

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
        return result, self.evidence.read(lambda: self._met(result, counts), Met())

    def _met(self, result: RaceReply, counts: Counts) -> Met:
        ages = self.shows.agings(counts, self.vm)
        if self.against.any_page:
            ages = of_any_page(ages, self.vm)
        spans, also = self.against.spans(counts, self.vm), self.against.also
        return Met(
            ages=len(ages),
            acts=len(spans),
            together=meetings(spans, ages),
            also=also.number(counts, self.vm, ages) if also else 0,
            # Of pages that agers evict nothing tells who took them.
            paged_out=0 if self.ager == "eviction" else result.paged_out,
            split=result.split,
            fast=entries(counts, self.shows.fast),
            # Whoever ages meanwhile, at whatever page, is at it at the same time.
            threads=most_threads(acts(counts.events(MARK)) or spans, ages, Window.lasts),
        )

    def missing(self, met: Met, least: int = 1) -> str:
        """What was not seen often enough in races that had this outcome, "" if all was."""
        missing = met.missing(self.ager, self.opponent, self.against, least)
        return self.evidence.unseen or missing or never_entered(self.shows.fast, met.fast)


class Tally:
    """How many things were seen to meet, over recordings that go on until `enough` did.

    What a recording does not tell ends them, but must not keep what was done from being looked at.
    """

    def __init__(self, enough: int) -> None:
        self._enough = enough
        self._evidence = Evidence()
        self.met = 0

    def over(self, number: Callable[[], int]) -> bool:
        """Add what a recording shows; whether no further one is needed, or worth it."""
        self.met += self._evidence.read(number, 0)
        return bool(self._evidence.unseen) or self.met >= self._enough

    def prove(self, none: str) -> None:
        """Unproven if a recording did not tell, or `none` of them had anything that met."""
        self._evidence.prove("" if self.met else none)


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


def not_widened_at_look_up(claim: Claim, absent: Mapping[str, str]) -> None:
    """The same where a fault has looked its page up; whether this kernel shows that at all."""
    shown = looking_up(absent)
    names = (slowed_return(shown),) if shown else tuple(map(returned, LOOK_UP))
    not_widened(claim, absent, *names)


def drawn(rng: random.Random, races: int) -> tuple[tuple[int, ...], random.Random]:
    """The seeds of so many races, and what chooses whatever follows them: see apart()."""
    return tuple(rng.randrange(1 << 31) for _ in range(races)), apart(rng)


def apart(rng: random.Random) -> random.Random:
    """What chooses whatever follows tries of which a clock decides how many there are.

    It is taken before them, so that with the same seed of a run the same follows.
    """
    return random.Random(rng.randrange(1 << 31))


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


def entering(contract: Contract, cell: CellSpec) -> Outsider:
    """By what to age in a race: page_idle, unless MGLRU's walk alone enters the fast path here.

    A race by a driver that does not enter it says nothing of a series whose code it is.
    """
    where = situation(cell)
    enters = (one for one in CHOICE if contract.expect(DRIVERS[one], where).enters_fast_path)
    return next(enters, CHOICE[0])


def fast_functions(contract: Contract, cell: CellSpec) -> tuple[str, ...]:
    """The functions of the fast path that a race of aging must enter here, whoever ages."""
    return Shows.of(contract, entering(contract, cell), cell).fast


def entries(counts: Counts, functions: Iterable[str]) -> int:
    """How often these functions were seen to be entered; what cannot be seen counts for nothing.

    By whomever, or by our tasks alone if the trace tells them.
    """
    number = 0
    for name in functions:
        if name in counts.probes and counts.wanted.ours:
            with contextlib.suppress(Unproven):
                number += counts.of(name)
        elif name in counts.probes:
            number += counts.probes[name].hits
    return number


def never_entered(functions: Sequence[str], number: int) -> str:
    """What to say of a race whose agings must enter these functions, and did so `number` times."""
    if number or not functions:
        return ""
    return f"the fast path was not seen to be entered in the race: {', '.join(functions)}"


@contextlib.contextmanager
def field(
    guest: Callable[..., Guest],
    shell: Shell,
    contract: Contract,
    cell: CellSpec,
    ager: Ager,
    opponent: Opponent,
    size: Size,
    vcpus: int,
) -> Iterator[Field]:
    """A guest with all that its race needs: a memcg, swap, a trace. It is gone afterwards.

    Skips the check where the contract says that this driver of aging does not reach KVM.
    """
    expectation = reaching(contract, DRIVERS[ager], cell)
    shows = Shows.of(contract, ager, cell)
    against = opposition(opponent, faulting=counts_faults(cell, shows.aging))
    with contextlib.ExitStack() as stack:
        if ager == "eviction":
            # Then eviction alone asks KVM, by the fast path if it has one.
            stack.enter_context(lru(shell, "no_walk", expectation.lru_gen_bit or 0))
        if ager == "eviction" or opponent == "pageout":
            stack.enter_context(zram_swap(shell))
        vm = guest(backing=size.backing, pages=size.pages, vcpus=vcpus, timeout=SECONDS)
        # Ends before its swap does.
        stack.enter_context(vm)
        wanted = recorded(contract, vm, against, shows.aging)
        session = stack.enter_context(tracing(shell, wanted))
        if ager != "page-idle":
            stack.enter_context(memcg_of(vm, shell))
        yield Field(vm, session, ager, opponent, against, shows, Evidence())


def counts_faults(cell: CellSpec, aging: str) -> bool:
    """Whether a race against guest accesses can tell which of them came to what was being aged."""
    return cell.cell.af_mode == "software" and aging == AGE


def recorded(contract: Contract, vm: Guest, against: Opposition, aging: str) -> Wanted:
    """What shows a race; `aging` is an event, or a function of the fast path."""
    start, end = slot_range(vm)
    by_event = aging == AGE
    slowed = {AGE_CALLBACK: SLOWLY, **against.slowed}
    functions = (*(slowed.keys() - set(against.returns)), *against.entries)
    return Wanted(
        events=tuple(dict.fromkeys((*((AGE,) if by_event else ()), *against.events))),
        functions=walk_functions(contract, *functions),
        entries=(*against.entries, *(() if by_event else (aging,))),
        # MGLRU's walk goes over all of the process.
        filters={AGE: f"start < {end:#x} && end > {start:#x}"} if by_event else {},
        slowed=slowed,
        returns=dict.fromkeys(against.returns, ""),
    )


def show(result: RaceReply) -> str:
    """What a race did, in a sentence: what it took, and what else is not zero."""
    mean = result.acts_us / result.acts if result.acts else 0.0
    text = (
        f"{result.touches} touches on {result.cpus} CPUs, {result.least} at least by each vCPU; "
        f"{result.passes} passes of aging; {result.acts} acts took {mean:.0f} us each, the slowest "
        f"{result.slowest_us} us"
    )
    others = ("found", "dropped", "paged_out", "logged", "emulated", "vms", "split", "collapsed")
    return text + "".join(
        f"; {getattr(result, name)} {name}" for name in others if getattr(result, name)
    )
