# SPDX-License-Identifier: GPL-2.0-only
"""What aging takes, and what waits for it: measured in the host, by the guest program's clock.

A check makes one pass more than it keeps: the first meets cold caches. It fails only if what it
measures does not happen; how long that takes is judged by nobody here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.cell import CellSpec
from harness.checks.claim import Claim
from harness.checks.mglru import memcg_of, zram_swap
from harness.checks.pages import mark_idle, populated
from harness.checks.racing import Crowd
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list
from harness.observe.unproven import Unproven
from harness.records import write_atomically
from harness.selftests import judge
from harness.selftests.execute import execute, lacks
from harness.timing import clocked, conditions, placement, tracking
from harness.timing.conditions import Conditions
from harness.timing.placement import Placement
from harness.timing.tracking import Way
from harness.timing.values import FILE, PAGES, PASSES, RECLAIMED, SELFTEST, WRITER_PAGES, Values

# Threads that age while a writer is timed, where there is a CPU for each besides the writer's.
MOST_AGERS = 2
# Rounds of a race: acts of a writer, whose mean and slowest are one pass.
ACTS = 30
SECONDS = 60.0
ALL = range(PAGES)

Keep = Callable[..., None]


@pytest.fixture
def where(shell: Shell) -> Placement:
    """The CPUs of what is timed."""
    return placement.of_host(shell)


@pytest.fixture
def placed(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, where: Placement
) -> Callable[..., Guest]:
    """As `guest`, bound to these CPUs."""

    def made(**options: Any) -> Guest:
        claim.observe(str(where))
        return placement.put(guest(**options), shell, where)

    return made


@pytest.fixture
def keep(shell: Shell, claim: Claim, where: Placement) -> Iterator[Keep]:
    """A function that keeps nanoseconds of all passes by metric, in conditions that are told."""

    def kept(**passes: list[int]) -> None:
        # The first warms up.
        seconds = {
            name.replace("_", "-"): tuple(one / 1e9 for one in times[1:])
            for name, times in passes.items()
        }
        values = Values(passes=seconds)
        write_atomically(claim.path(FILE), values)
        claim.observe(", ".join(f"{name} {one:.6g} s" for name, one in values.medians().items()))
        look_again(shell, claim, found, where)

    with conditions.fixed(shell, where) as found:
        write_atomically(claim.path(conditions.FILE), found)
        yield kept


def look_again(shell: Shell, claim: Claim, before: Conditions, where: Placement) -> None:
    """Keep the conditions once all is measured, and say what is not as it was before."""
    after = conditions.read(shell, where)
    write_atomically(claim.path(conditions.AFTER), after)
    if names := conditions.differing((before, after)):
        claim.observe(f"{', '.join(names)} changed meanwhile")


def test_time_page_idle(placed: Callable[..., Guest], keep: Keep) -> None:
    """page_idle ages young pages; a vCPU then touches what is old."""
    vm = populated(placed(pages=PAGES))
    mark_idle(vm)
    aging, reads, writes = [], [], []
    for _ in range(PASSES + 1):
        # Without an invalidation a cached translation hides that a page is touched.
        vm.flush()
        vm.touch(ALL, write=False)
        aging.append(clocked.idle_again(vm))
        # As guests do it: nobody invalidates for them.
        reads.append(clocked.touch(vm, ALL, write=False))
        vm.touch(ALL, write=True)
        clocked.idle_again(vm)
        writes.append(clocked.touch(vm, ALL, write=True))
    keep(time_aging_page_idle=aging, time_read_aged=reads, time_write_aged=writes)


def test_time_walk(placed: Callable[..., Guest], shell: Shell, keep: Keep) -> None:
    """MGLRU makes generations of a guest's young pages."""
    vm = placed(pages=PAGES)
    with memcg_of(vm, shell):
        populated(vm)
        aging = []
        for _ in range(PASSES + 1):
            vm.flush()
            vm.touch(ALL, write=False)
            aging.append(clocked.walk(vm))
        keep(time_aging_walk=aging)


def around_writer(cpus: int) -> Crowd:
    """Who is in the race with a writer: each ager has a CPU that is neither another's nor his."""
    agers = min(max(cpus - 1, 1), MOST_AGERS)
    # A race has a CPU less than vCPUs.
    return Crowd(vcpus=agers + 2, agers=agers)


def test_time_writer(
    guest: Callable[..., Guest], shell: Shell, claim: Claim, rng: random.Random, keep: Keep
) -> None:
    """A thread takes pages from a guest while others age them, each on a CPU of its own."""
    those = around_writer(len(cpu_list.usable(shell)))
    claim.observe(f"threads that age while the writer acts: {those.agers}")
    vm = guest(pages=WRITER_PAGES, vcpus=those.vcpus, timeout=SECONDS)
    mean, slowest = [], []
    for _ in range(PASSES + 1):
        seed = rng.randrange(1 << 31)
        found = vm.race(seed, rounds=ACTS, agers=those.agers, opponent="timed-drop")
        assert found.acts, "the writer did nothing"
        assert found.passes, "nobody aged"
        mean.append(1000 * found.acts_us // found.acts)
        slowest.append(1000 * found.slowest_us)
    keep(time_writer=mean, time_writer_slowest=slowest)


def test_time_reclaim(placed: Callable[..., Guest], shell: Shell, keep: Keep) -> None:
    """Pages of a guest that has just touched them all are reclaimed, to swap on zram."""
    with zram_swap(shell):
        vm = placed(pages=PAGES)
        with memcg_of(vm, shell):
            populated(vm)
            asked: list[int] = []
            limited: list[int] = []
            for _ in range(PASSES + 1):
                for times, act in ((asked, clocked.reclaim), (limited, clocked.squeeze)):
                    vm.flush()
                    vm.touch(ALL, write=True)
                    times.append(act(vm, RECLAIMED))
            keep(time_reclaim=asked, time_reclaim_high=limited)


def test_time_selftest(shell: Shell, claim: Claim, cell: CellSpec, keep: Keep) -> None:
    """The kernel's own access_tracking_perf_test, that of the base tree on both kernels."""
    _selftest(tracking.ITS_OWN, shell, claim, cell, keep)


def test_time_selftest_mglru(shell: Shell, claim: Claim, cell: CellSpec, keep: Keep) -> None:
    """The same told to age by MGLRU (-l), that of the first tree that has the option."""
    _selftest(tracking.MGLRU, shell, claim, cell, keep)


def test_time_selftest_faults(shell: Shell, claim: Claim, cell: CellSpec, keep: Keep) -> None:
    """The same told to age while vCPUs fault memory in (-l -p)."""
    _selftest(tracking.FAULTS, shell, claim, cell, keep)


def _selftest(way: Way, shell: Shell, claim: Claim, cell: CellSpec, keep: Keep) -> None:
    built = tracking.chosen(way, cell.selftests)
    if built is None:
        pytest.skip(f"no tree's {SELFTEST} is known to take {' '.join(way.arguments)}")
    if SELFTEST not in built.programs:
        raise Unproven(built.broken.get(SELFTEST, f"{built.tree} has no {SELFTEST} for arm64"))
    cpus = int(shell.run("nproc").stdout)
    program = tracking.of_machine(cpus, way)
    if lacking := lacks(shell, program):
        raise Unproven(lacking)
    claim.observe(f"that of {built.tree} ran with {' '.join(program.arguments)}")
    passes: dict[str, list[int]] = {}
    for number in range(PASSES + 1):
        ended, threads = execute(shell, program, built.programs[SELFTEST], cell.slowdown)
        claim.save(f"{SELFTEST}-{number}.txt", f"{ended.output}{threads}")
        point = judge.point(program, SELFTEST, ended, program.seconds * cell.slowdown)
        if point.directive == "SKIP" and way.options:
            # It asks for more of the kernel than this one has.
            pytest.skip(f"{SELFTEST} skips: {point.detail}")
        if not point.ok or point.directive:
            raise Unproven(f"{SELFTEST}: {point.directive} {point.detail}")
        for metric, nanoseconds in tracking.times(ended.output, way).items():
            passes.setdefault(metric, []).append(nanoseconds)
    keep(**passes)
