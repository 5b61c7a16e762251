# SPDX-License-Identifier: GPL-2.0-only
"""A guest's write whose page the host drops before KVM has mapped it (claim 5).

A fault looks its page up without the MMU lock, and must find out under the lock that the host has
taken the page away meanwhile (mmu_invalidate_retry(), user_mem_abort(), arch/arm64/kvm/mmu.c): also
a permission fault, which looks at no page then but gives write permission to whatever is mapped.
If another vCPU's read has mapped what is there after the drop, the page of a file or the zero page,
the guest would write to that, which it shares with others.

The writer alone is kept long where it has looked its page up, by a kprobe on that function's return
which its thread alone meets: the other vCPU must be through in that time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.cpus import leave_last, several
from harness.checks.driver import GUEST
from harness.checks.evidence import Evidence
from harness.checks.newsplats import assert_none_new, splats
from harness.checks.overlap import FAULT, LOOK_UP, MAPS, PKVM_MAPS, UNMAP, looking_up
from harness.checks.pages import leaves, shorten
from harness.checks.racing import added, kept, not_widened
from harness.checks.undo import undone
from harness.guest_words import Backing
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import stage2
from harness.observe.collect import NoDump
from harness.observe.trace import (
    PROBE_FULL,
    Counts,
    Event,
    Wanted,
    by_tasks,
    returned,
    slowed_return,
)
from harness.observe.tracefs import Session, tracing

PAGES = 16
# Tries until so many permission faults were overtaken, which one of two is on a busy machine.
TRIES, ENOUGH = 6, 2
WRITER, READER = 0, 1
# The data fault status codes of a permission fault, by the level of the entry (ESR_EL2.ISS.DFSC).
DFSC, PERMISSION = 0x3F, range(0xC, 0x10)
# The reader needs a millisecond (emulated), and the program that drops the page one as well.
SLOWLY = 8 * PROBE_FULL
FILE = "/run/kvm-harness-private"


@pytest.mark.deep
@pytest.mark.parametrize("backing", ["anon", "fileprivate"])
def test_write_beside_drop(
    backing: Backing, guest: Callable[..., Guest], shell: Shell, claim: Claim, cell: CellSpec
) -> None:
    """No write goes to a page that came in the place of the dropped one; no splat."""
    claim.expect(
        f"a vCPU writes {PAGES} pages ({backing}), each second of which is mapped read-only; the "
        "host drops each when it has been looked up, and another vCPU reads what is there then: "
        "the guest may write to no page but its own, and no write comes elsewhere (seed "
        f"{cell.seed}); no splat; some reads came to map a page between the look-up of a "
        "permission fault and its end"
    )
    several(shell, "nobody reads while another writes")
    before = splats(shell)
    met, evidence = Met(), Evidence()
    with (
        _file(backing, shell) as path,
        guest(backing=backing, pages=PAGES, file=path, vcpus=2) as vm,
    ):
        last = leave_last(vm, shell)
        wanted = recorded(vm.pin(WRITER, last))
        with tracing(shell, wanted) as session:
            for number in range(TRIES):
                counts = _write_and_drop(vm, shell, session, claim, number)
                met += evidence.read(partial(met_by, counts), Met())
                if met.permission >= ENOUGH or evidence.unseen:
                    break
    claim.observe(evidence.unseen or met.words())
    shown = looking_up(session.absent)
    not_widened(claim, session.absent, *([slowed_return(shown)] if shown else []))
    assert_none_new(shell, claim, before)
    missing = "no page was dropped and read while a permission fault had looked it up"
    evidence.prove("" if met.permission else missing)


@dataclass(frozen=True)
class Met:
    """How many faults of the writer were overtaken, by what they came from."""

    permission: int = 0
    others: int = 0

    def __add__(self, other: Met) -> Met:
        return added(self, other)

    def words(self) -> str:
        """The numbers in a sentence."""
        return (
            f"{self.permission} permission faults and {self.others} others had looked up a page "
            "that was dropped then, and another vCPU had mapped what was there before they were "
            "through"
        )


def recorded(writer: int) -> Wanted:
    """What shows the order of things, and keeps the writer's thread long."""
    return Wanted(
        events=(UNMAP, FAULT),
        returns=dict.fromkeys((*LOOK_UP, *MAPS, *PKVM_MAPS), by_tasks(GUEST)),
        slowed=dict.fromkeys(LOOK_UP, SLOWLY),
        slowed_thread=writer,
    )


@contextlib.contextmanager
def _file(backing: Backing, shell: Shell) -> Iterator[str | None]:
    """The path of the file of which the memory is a private mapping, where it is one."""
    if backing == "anon":
        yield None
        return
    # A harness that was killed leaves it.
    remove = f"rm -f {FILE}"
    shell.run(remove)
    with undone(lambda: shell.run(remove)):
        yield FILE


def _write_and_drop(vm: Guest, shell: Shell, session: Session, claim: Claim, number: int) -> Counts:
    """Have all pages written and dropped once, and judge what is there then."""
    pages = range(PAGES)
    # What nobody has written to is mapped read-only; the others are mapped nowhere.
    vm.touch(pages[::2], write=False, vcpu=READER)
    _, counts = kept(
        session,
        claim,
        f"trace{number}.txt",
        lambda: vm.write_dropped(pages, writer=WRITER, reader=READER),
    )
    _assert_own(vm, shell, claim, number)
    vm.touch(pages, write=False, vcpu=READER)
    vm.verify(pages)
    # What is there without the guest's own pages: nobody has written to it.
    vm.advise("dontneed", pages)
    vm.verify(pages)
    vm.advise("dontneed", pages)
    return counts


def _assert_own(vm: Guest, shell: Shell, claim: Claim, number: int) -> None:
    """Assert that the pages that the guest may write are anonymous: no file's, nor the zero page.

    A page that is mapped in stage 2 but nowhere in the host is none either. Where the kernel does
    not show stage 2, what the pages hold tells alone.
    """
    try:
        ranges = leaves(vm, shell, claim, str(number))
    except NoDump as exc:
        claim.observe(f"by what the pages hold alone, since {exc.reason}")
        return
    writable = stage2.writable(ranges, vm.slot.ipa, PAGES)
    others = writable - vm.flagged("anon")
    assert not others, f"pages may be written that are not the guest's own: {shorten(others)}"


def met_by(counts: Counts) -> Met:
    """How many of the writer's faults had looked up a page when it was dropped and another mapped.

    Unproven if the kernel does not show by what they do.
    """
    shown = looking_up(counts.absent) or LOOK_UP[0]
    ways = [way for way in (MAPS, PKVM_MAPS) if returned(way[0]) not in counts.absent]
    names = [returned(name) for way in ways or [MAPS] for name in way]
    events = counts.in_order(FAULT, UNMAP, returned(shown), *names)
    return overtaken(events, counts.wanted.slowed_thread)


def overtaken(events: Iterable[Event], writer: int | None) -> Met:
    """The same by events in order of time, where `writer` is the id of the writer's thread.

    What counts comes between the writer's look-up and whatever it does next: an unmap, and then the
    end of a mapping by another thread.
    """
    met = Met()
    permission = False
    # What others did since its look-up; None while it has looked up no page.
    since: list[str] | None = None
    for event in events:
        if event.pid != writer:
            if since is not None:
                since.append(event.name)
            continue
        met += _fault(since, permission=permission)
        since = None
        if event.name == FAULT:
            permission = event.fields["esr"] & DFSC in PERMISSION
        elif event.name in map(returned, LOOK_UP):
            since = []
    return met + _fault(since, permission=permission)


def _fault(since: Sequence[str] | None, *, permission: bool) -> Met:
    """Of one fault: nothing, if no page was mapped after an unmap."""
    after = since[since.index(UNMAP) :] if since and UNMAP in since else ()
    if not any(returned(name) in after for name in (MAPS[0], PKVM_MAPS[0])):
        return Met()
    return Met(permission=int(permission), others=int(not permission))
