# SPDX-License-Identifier: GPL-2.0-only
"""Age pages by page_idle from outside of the process that has them.

Its writes reach pages by PFN and the reverse map, so it needs nothing of their owner, and can
outlive it. Documentation/admin-guide/mm/idle_page_tracking.rst: a word of 64 bits for 64 PFNs.
Where a race is to go by MGLRU's walk, the same process has that walk all that their memcg has.
"""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

from harness.checks.cpus import leave_last
from harness.checks.mglru import CGROUP, memcg_of
from harness.companion import Companion, ask_together
from harness.errors import InfraError
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.cpu_list import usable

WORD_BITS = 64
# Words of the bitmap in a reply.
_WORD = "[0-9a-f]{1,16}:[0-9a-f]{1,16}"
_WORDS = rf"-|{_WORD}(?:,{_WORD})*"
# Pages of 4 KiB in a huge page.
HUGE = 512

# By what it ages.
Outsider = Literal["page-idle", "walk"]
# Runs what follows in the guest's memcg, which is the one that is walked.
_JOINS = ("sh", "-c", f'echo $$ > {CGROUP}/cgroup.procs && exec "$@"', "sh")


def words(pfns: Iterable[int]) -> str:
    """The words of the bitmap that have these bits, as the idle ager is told them."""
    bits: dict[int, int] = defaultdict(int)
    for pfn in pfns:
        bits[pfn // WORD_BITS] |= 1 << pfn % WORD_BITS
    return ",".join(f"{word:x}:{bits[word]:x}" for word in sorted(bits))


def pages_of(text: str) -> frozenset[int]:
    """The PFNs of the bits in such words, "-" for none; ValueError for anything else."""
    found: set[int] = set()
    for word in text.split(",") if text != "-" else ():
        index, _, bits = word.partition(":")
        first, mask = int(index, 16) * WORD_BITS, int(bits, 16)
        found.update(first + bit for bit in range(WORD_BITS) if mask >> bit & 1)
    return frozenset(found)


def age_huge_page(vm: Guest, shell: Shell, part: frozenset[int], skew: int) -> None:
    """Age the one huge page of the host that holds `part` of a slot, skewed by so many pages."""
    first = min(part)
    head = vm.pfns()[first] - (first + skew) % HUGE
    with _process(vm, shell) as process:
        process.ask(f"mark {words([head])}", "ok words=1")


def reached(by: Outsider, vm: Guest, shell: Shell) -> contextlib.AbstractContextManager[object]:
    """What it takes that a guest which has no memory yet can be aged so: for a walk, a memcg.

    The guest has ended when that is left.
    """
    return memcg_of(vm, shell) if by == "walk" else vm


@contextlib.contextmanager
def ager(
    vm: Guest, shell: Shell, pfns: Iterable[int], by: Outsider = "page-idle"
) -> Iterator[None]:
    """Age these pages of a guest without end, from now until it is left; of huge pages, the heads.

    A walk ages all of the guest's memcg: see reached(). The ager has the last CPU for itself: the
    guest's threads get the others, and keep them.
    """
    with _on_last_cpu(vm, shell, by) as process:
        # Once it has gone over all pages it is at work.
        process.ask(f"age {_what(pfns, by)}", r"ok words=[0-9]+")
        yield
        process.ask("stop", r"ok passes=[0-9]+")


@contextlib.contextmanager
def marker(vm: Guest, shell: Shell) -> Iterator[Callable[[Iterable[int]], None]]:
    """A process that ages just the pages that what is yielded is given, by their PFNs."""
    with _process(vm, shell) as process:
        yield lambda pfns: process.ask(f"mark {words(pfns)}", r"ok words=[0-9]+")


@contextlib.contextmanager
def beside(
    vm: Guest, shell: Shell, pfns: Iterable[int], by: Outsider = "page-idle", after: int = 0
) -> Iterator[Callable[[Callable[[], object]], None]]:
    """A process that ages these pages once, on the last CPU, while this one does something else.

    What is yielded is given that, and returns when both are done. The process waits for `after`
    milliseconds first, so that what is done beside it can have begun.
    """
    command = f"{f'mark-after {after}' if after else 'mark'} {_what(pfns, by)}"
    with _on_last_cpu(vm, shell, by) as process:

        def both(act: Callable[[], object]) -> None:
            process.send(command)
            act()
            process.replied(command, r"ok words=[0-9]+")

        yield both


def later(milliseconds: int, act: Callable[[], object]) -> None:
    """What is to begin so much later beside such a process than it is told to age."""
    time.sleep(milliseconds / 1000)
    act()


@contextlib.contextmanager
def reading(
    vm: Guest, shell: Shell, pfns: Iterable[int]
) -> Iterator[Callable[[Callable[[], object]], frozenset[int]]]:
    """As beside(), but the process reads which of the pages are idle still, and ages them by that.

    What is yielded returns their PFNs. Nobody is asked about a page that is not marked.
    """
    asked = frozenset(pfns)
    command = f"read {words(asked)}"
    with _on_last_cpu(vm, shell) as process:

        def both(act: Callable[[], object]) -> frozenset[int]:
            process.send(command)
            act()
            found = process.replied(command, rf"ok words=[0-9]+ idle=({_WORDS})")
            idle = pages_of(found[1])
            if idle - asked:
                raise InfraError(
                    f"the idle ager tells of other pages than it was asked: {found[1]}"
                )
            return idle

        yield both


@contextlib.contextmanager
def agers(vm: Guest, shell: Shell, parts: Sequence[Iterable[int]]) -> Iterator[Callable[[], None]]:
    """Processes that age pages at the same time, one for each part of the PFNs, each on its CPU.

    What is yielded has each of them age its part once. Needs as many CPUs as there are parts.
    """
    asked: list[tuple[Companion, str]] = []
    with contextlib.ExitStack() as stack:
        for cpu, pfns in zip(usable(shell), parts, strict=False):
            process = stack.enter_context(_process(vm, shell, ("taskset", "-c", str(cpu))))
            asked.append((process, f"mark {words(pfns)}"))
        yield lambda: ask_together(asked, r"ok words=[0-9]+")


def _what(pfns: Iterable[int], by: Outsider) -> str:
    return "walk" if by == "walk" else words(pfns)


def _on_last_cpu(vm: Guest, shell: Shell, by: Outsider = "page-idle") -> Companion:
    joins = _JOINS if by == "walk" else ()
    return _process(vm, shell, (*joins, "taskset", "-c", str(leave_last(vm, shell))))


def _process(vm: Guest, shell: Shell, before: Sequence[str] = ()) -> Companion:
    options = ("--idle-ager",)
    return Companion.start(shell, options, "idle ager", "idle_ager", vm.slowdown, before=before)
