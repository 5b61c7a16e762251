# SPDX-License-Identifier: GPL-2.0-only
"""Have DAMON age a process's memory at addresses that are known, and look at it.

DAMON monitors by samples: in each region it takes a random address, ages what lies there, and when
the sampling interval is over asks whether it was accessed (Documentation/mm/damon/design.rst). With
regions of one page each there is a sample in each page. The interval is one that nobody waits for:
to switch DAMON off ends it, and DAMON looks at its samples before it goes (kdamond_fn() in
mm/damon/core.c), so the check decides when. The files are described in
Documentation/admin-guide/mm/damon/usage.rst.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from harness.checks.cpus import leave_last
from harness.checks.undo import undone
from harness.deadline import Deadline
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError, shown
from harness.observe.text import run_script
from harness.observe.trace import Event
from harness.observe.unproven import Unproven

FOLDER = "/sys/kernel/mm/damon/admin/kdamonds"
AGGREGATED = "damon:damon_aggregated"
# Longer than any check may take, in microseconds.
INTERVAL = 4_000_000_000
# Between aging and asking where it is to be at work all the time.
BUSY_INTERVAL = 1000
# The kernel wants no fewer.
LEAST_REGIONS = 3
# For DAMON's thread to have sampled each region once, in seconds.
PATIENCE = 20.0

# include/trace/events/damon.h of Linux 6.12
_AGGREGATED = re.compile(
    r"target_id=[0-9]{1,20} nr_regions=[0-9]{1,9} (?P<start>[0-9]{1,20})-(?P<end>[0-9]{1,20}): "
    r"(?P<accesses>[0-9]{1,9}) [0-9]{1,9}"
)


@dataclass(frozen=True)
class Region:
    """A range of addresses, the end exclusive, and in how many samples DAMON found it accessed."""

    start: int
    end: int
    accesses: int


def results(events: Iterable[Event]) -> tuple[Region, ...]:
    """The regions that events of AGGREGATED tell of."""
    found = []
    for event in events:
        match = _AGGREGATED.fullmatch(event.text.strip())
        if match is None:
            raise ObserveError(AGGREGATED, 0, f"unknown form: {shown(event.text)}")
        found.append(Region(int(match["start"]), int(match["end"]), int(match["accesses"])))
    return tuple(found)


def script(pid: int, starts: Sequence[int], size: int, interval: int = INTERVAL) -> str:
    """The script that sets DAMON up for regions of one size and switches it on.

    It samples each `interval` microseconds, and never adds up. The least number of regions is
    theirs, so that no two of them are merged; the most is, too, so that none is split.
    """
    if len(starts) < LEAST_REGIONS or list(starts) != sorted(set(starts)):
        raise ValueError(f"not {LEAST_REGIONS} regions or more in rising order")
    lines = [
        f"cd {FOLDER}; echo 1 > nr_kdamonds; cd 0; echo 1 > contexts/nr_contexts; cd contexts/0",
        "echo vaddr > operations; cd monitoring_attrs",
        f"for f in aggr_us update_us; do echo {INTERVAL} > intervals/$f; done",
        f"echo {interval} > intervals/sample_us",
        f"echo {len(starts)} > nr_regions/max; echo {len(starts)} > nr_regions/min",
        f"cd ../targets; echo 1 > nr_targets; cd 0; echo {pid} > pid_target",
        f"cd regions; echo {len(starts)} > nr_regions",
    ]
    lines += [
        f"echo {start} > {index}/start; echo {start + size} > {index}/end"
        for index, start in enumerate(starts)
    ]
    return "\n".join([*lines, f"echo on > {FOLDER}/0/state", f"cat {FOLDER}/0/pid"])


@contextlib.contextmanager
def sampling(
    shell: Shell, pid: int, starts: Sequence[int], size: int, slowdown: float
) -> Iterator[Callable[[], None]]:
    """Have DAMON age one address of a process in each region, now and not again.

    What is yielded has it ask once which of them were accessed since, and end. Unproven without
    DAMON, or if somebody else uses it.
    """

    def end() -> None:
        shell.run(f"echo off > {FOLDER}/0/state")

    with _running(shell, script(pid, starts, size)) as thread:
        _wait_until_asleep(shell, thread, slowdown)
        yield end


@contextlib.contextmanager
def asking(vm: Guest, shell: Shell) -> Iterator[None]:
    """Have DAMON age each tested page, ask whether it was accessed, and so on without end.

    Its thread has the last CPU for itself. Unproven as sampling().
    """
    first = vm.greeting.slot_hva
    starts = range(first, first + vm.slot.pages * PAGE_SIZE, PAGE_SIZE)
    cpu = leave_last(vm, shell)
    setup = script(vm.greeting.pid, starts, PAGE_SIZE, BUSY_INTERVAL)
    with _running(shell, setup) as thread:
        shell.run(f"taskset -pc {cpu} {thread}")
        yield


@contextlib.contextmanager
def _running(shell: Shell, setup: str) -> Iterator[int]:
    """DAMON as that script sets it up, and the PID of its thread; it is off afterwards."""
    found = shell.run(f"cat {FOLDER}/nr_kdamonds", check=False).stdout.strip()
    if found != "0":
        raise Unproven(f"no free DAMON (nr_kdamonds is {found or 'absent'})")

    def remove() -> None:
        on = f"[ -e {FOLDER}/0/state ] && [ $(cat {FOLDER}/0/state) = on ]"
        shell.run(f"if {on}; then echo off > {FOLDER}/0/state; fi; echo 0 > {FOLDER}/nr_kdamonds")

    with undone(remove):
        yield int(run_script(shell, setup, None))


def _wait_until_asleep(shell: Shell, thread: int, slowdown: float) -> None:
    """Wait for the interval to begin: state I, as nothing that DAMON waits for before it has."""
    deadline = Deadline(PATIENCE * slowdown)
    while (state := shell.read(f"/proc/{thread}/stat").rpartition(")")[2].split()[0]) != "I":
        if deadline.expired():
            raise Unproven(f"DAMON did not take its samples in time (state {state})")
