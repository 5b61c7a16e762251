# SPDX-License-Identifier: GPL-2.0-only
"""Hold a kernel's own counters of aging to what aging did to the stage-2 tables."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from harness.checks.claim import Claim
from harness.checks.pages import dumped
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import kvmstats, stage2
from harness.observe.collect import dump_stage2
from harness.observe.text import run_script


@dataclass(frozen=True)
class Tally:
    """The counters of one VM, and how many leaves of its whole stage 2 have AF set."""

    counters: Mapping[str, int]
    young: int


@contextlib.contextmanager
def counted(
    vm: Guest, shell: Shell, claim: Claim, promised: Mapping[str, bool], *, second: bool = False
) -> Iterator[None]:
    """Assert that in this block each counter that counts here rose by the leaves made old.

    `promised` says of each counter whether it counts here; one that does not must stand still.
    The block ages a guest whose vCPUs are parked, so nobody sets AF meanwhile. `second` is for the
    second VM of the guest's owner: each has counters of its own.
    """
    if not promised:
        yield
        return
    before = tally(vm, shell, second=second)
    yield
    after = tally(vm, shell, second=second)
    check_counters(claim, promised, before, after)


def tally(vm: Guest, shell: Shell, *, second: bool = False) -> Tally:
    """Counters and young leaves of a VM now; NoDump where the kernel shows no stage 2."""
    dump = dump_stage2(shell, vm.second_dir) if second else dumped(vm, shell)
    return Tally(counters(vm, shell, second=second), stage2.young_leaves(dump.ranges))


def counters(vm: Guest, shell: Shell, *, second: bool = False) -> Mapping[str, int]:
    """The counters in a VM's debugfs folder now."""
    folder = vm.second_dir if second else vm.vm_dir
    text = run_script(shell, kvmstats.script(folder), None)
    return kvmstats.parse(text, kvmstats.folder(folder)).counters


def check_counters(claim: Claim, promised: Mapping[str, bool], before: Tally, after: Tally) -> None:
    """Assert that the counters account for the leaves that are young no more."""
    made_old = before.young - after.young
    claim.observe(f"{made_old} of {before.young} young leaves of the VM made old")
    check_rise(claim, promised, before.counters, after.counters, made_old)


def check_which(
    claim: Claim, promised: Mapping[str, bool], before: Mapping[str, int], after: Mapping[str, int]
) -> None:
    """Assert that just those counters rose that count here, by whatever number.

    For aging beside vCPUs that run: they make leaves young again, so nothing tells how many were
    made old.
    """
    for name, counts in promised.items():
        assert name in before and name in after, f"the VM has no counter {name}"
        rise = after[name] - before[name]
        claim.observe(f"{name} rose by {rise}")
        words = f"{name} rose by {rise}, where it must {'count' if counts else 'stand still'}"
        assert (rise > 0) == counts, words


def check_rise(
    claim: Claim,
    promised: Mapping[str, bool],
    before: Mapping[str, int],
    after: Mapping[str, int],
    made_old: int,
    *,
    or_fewer: bool = False,
) -> None:
    """Assert that the counters rose by so many leaves, or not at all where they do not count.

    With `or_fewer`, some of the leaves may not have been made old.
    """
    for name, counts in promised.items():
        assert name in before and name in after, f"the VM has no counter {name}"
        rise = after[name] - before[name]
        claim.observe(f"{name} rose by {rise}")
        expected = made_old if counts else 0
        fine = 0 <= rise <= expected if or_fewer else rise == expected
        assert fine, f"{name} rose by {rise} instead of {expected}{' or fewer' * or_fewer}"
