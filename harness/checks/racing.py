# SPDX-License-Identifier: GPL-2.0-only
"""Run a race between agers and an opponent, and tell how often they met.

The guest program marks in the trace when its opponent acts (docs/guest-protocol.md, "A race"); KVM
tells when an aging begins. A kprobe on the walk's callback makes the time between its load of an
entry and its store longer, and with it the window.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.driver import situation
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.overlap import AGE, AGE_CALLBACK, acts, in_guest, meetings
from harness.checks.pages import mark_idle, old_pages, pick, populated, young_pages
from harness.checks.undo import undone
from harness.contract import Contract, Driver
from harness.guest_replies import PAGE_SIZE, RaceReply
from harness.guests import Ager, Backing, Guest, Opponent
from harness.hosts.protocols import Shell
from harness.observe import lru_gen
from harness.observe.trace import MARK, Counts, Session, Wanted, tracing
from harness.observe.vmstat import parse_vmstat

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
SWAPPING: tuple[Opponent, ...] = ("pageout", "unmap")


@dataclass(frozen=True)
class Size:
    """What a race is made of."""

    pages: int
    rounds: int
    backing: Backing = "anon"


@dataclass(frozen=True)
class Met:
    """How often what should race did: agings that began while the opponent acted."""

    ages: int = 0
    acts: int = 0
    together: int = 0

    def __add__(self, other: Met) -> Met:
        return Met(self.ages + other.ages, self.acts + other.acts, self.together + other.together)

    def words(self) -> str:
        """The numbers in a sentence."""
        return (
            f"{self.together} of {self.ages} agings of its pages began during one of the "
            f"opponent's {self.acts} acts"
        )


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
        return result, self._met(counts)

    def _met(self, counts: Counts) -> Met:
        ages = counts.events(AGE)
        if self.opponent == "guest":
            spans = in_guest(counts.events(ENTER), counts.events(LEAVE), *tested(self.vm))
        else:
            spans = acts(counts.events(MARK))
        return Met(len(ages), len(spans), meetings(spans, ages))


def kept(
    session: Session, claim: Claim, name: str, race: Callable[[], RaceReply]
) -> tuple[RaceReply, Counts]:
    """Record a race, and keep its trace by that name even if it fails: then it is worth more."""
    stopped: list[Counts] = []

    def stop() -> None:
        stopped.append(session.stop())
        claim.save(name, stopped[0].raw)

    session.start()
    with undone(stop):
        result = race()
    return result, stopped[0]


def exact(vm: Guest, shell: Shell, claim: Claim, rng: random.Random, *, huge: bool = False) -> None:
    """Assert that what was through a race ages as exactly as anything else."""
    populated(vm)
    mark_idle(vm)
    old_pages(vm, shell, claim)
    vm.flush()
    # One touch makes all of a block young.
    touched = frozenset(range(vm.slot.pages)) if huge else pick(rng, vm.slot.pages)
    vm.touch(touched, write=True)
    young_pages(vm, shell, claim, touched)
    vm.verify(range(vm.slot.pages))


def tested(vm: Guest) -> tuple[int, int]:
    """Where the tested pages begin and end in the guest program's memory."""
    start = vm.greeting.slot_hva
    return start, start + vm.slot.pages * PAGE_SIZE


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
    if not contract.expect(DRIVERS[ager], situation(cell)).reaches_kvm:
        pytest.skip(f"{ager} does not reach KVM here")
    fast = contract.fast_path.functions if contract.fast_path else ()
    with contextlib.ExitStack() as stack:
        if ager == "eviction":
            stack.enter_context(_without_walk(shell))
        if ager == "eviction" or opponent in SWAPPING:
            stack.enter_context(zram_swap(shell))
        vm = guest(backing=size.backing, pages=size.pages, vcpus=VCPUS, timeout=SECONDS)
        # Ends before its swap does.
        stack.enter_context(vm)
        start, end = tested(vm)
        wanted = Wanted(
            events=(AGE, ENTER, LEAVE) if opponent == "guest" else (AGE,),
            functions=tuple(dict.fromkeys((AGE_CALLBACK, *fast))),
            # MGLRU's walk goes over all of the process.
            filters={AGE: f"start < {end:#x} && end > {start:#x}"},
            slowed={AGE_CALLBACK: 8},
        )
        session = stack.enter_context(tracing(shell, wanted))
        if ager != "page-idle":
            stack.enter_context(memcg_of(vm, shell))
        yield Field(vm, session, ager, opponent, size)


def splits(shell: Shell) -> int:
    """How many huge pages have been split since the host started."""
    return parse_vmstat(shell.read("/proc/vmstat")).get("thp_split_page", 0)


@contextlib.contextmanager
def _without_walk(shell: Shell) -> Iterator[None]:
    """MGLRU without its walk, so that eviction alone asks KVM."""
    enabled = lru_gen.parse_enabled(shell.read(lru_gen.ENABLED))
    with undone(lambda: shell.write(lru_gen.ENABLED, f"{int(enabled)}\n")):
        shell.write(lru_gen.ENABLED, f"{int(enabled) & ~int(lru_gen.Enabled.MM_WALK)}\n")
        yield


def show(result: RaceReply) -> str:
    """What a race did, in a sentence: what it took, and what else is not zero."""
    mean = result.acts_us / result.acts if result.acts else 0.0
    text = (
        f"{result.touches} touches, {result.least} at least by each vCPU; {result.passes} passes "
        f"of aging; {result.acts} acts took {mean:.0f} us each, the slowest {result.slowest_us} us"
    )
    others = ("found", "dropped", "paged_out", "logged", "emulated", "vms", "collapsed")
    return text + "".join(
        f"; {getattr(result, name)} {name}" for name in others if getattr(result, name)
    )
