# SPDX-License-Identifier: GPL-2.0-only
"""How many pages of stage-2 tables a host has, when all that was freed has really gone.

SecPageTables of /proc/meminfo counts them for all VMs together; a VM's tables cannot be told apart
from another's, so nobody else may have a VM while a check counts. From Linux 6.11 on the tables of
IOMMUs are in it as well, of which nr_iommu_pages of /proc/vmstat has all (iommu-pages.h).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from harness.checks.claim import Claim
from harness.deadline import Deadline
from harness.guest_replies import PAGE_SIZE
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import kvmstats, vmstat
from harness.observe.collect import refusal
from harness.observe.text import run_script
from harness.observe.unproven import Unproven

Seen = TypeVar("Seen")

# What was freed must be gone after so many barriers. Sound kernels were never seen to need a second
# one: KVM frees before its MMU notifier returns, or by call_rcu(), and all threads of a process let
# go of its mm before it is reaped (exit_mm() of do_exit(), kernel/exit.c). But who reads its
# /proc/PID/cmdline, say, or walks its memory may hold the mm for a moment more (get_task_mm(),
# mmput_async()), and KVM hears of the end from him.
BARRIERS = 2
# Seconds to see whether what is late goes at all, for a kernel that has no barrier, and for what no
# barrier waits for: kfree_rcu() hands objects over each five seconds (kernel/rcu/tree.c,
# KFREE_DRAIN_JIFFIES), and a memcg's numbers are brought together each two (mm/memcontrol.c,
# FLUSH_TIME).
PATIENCE = 10.0

# Writing to it calls rcu_barrier(): every call_rcu() callback that is queued by now has run then,
# its grace period included (kernel-parameters.txt, rcutree.do_rcu_barrier; not in 6.2).
BARRIER = "/sys/module/rcutree/parameters/do_rcu_barrier"
SETTLE = (
    f"[ ! -e {BARRIER} ] || echo 1 > {BARRIER}\n"
    # The counter lags by what each CPU holds back.
    "echo 1 > /proc/sys/vm/stat_refresh\n"
)


def count(shell: Shell) -> int:
    """Pages of stage-2 tables after an RCU barrier."""
    return parse(run_script(shell, f"{SETTLE}cat /proc/meminfo; echo; cat /proc/vmstat", None))


def parse(text: str) -> int:
    """The pages of stage-2 tables by /proc/meminfo and, after an empty line, /proc/vmstat."""
    meminfo, _, counters = text.partition("\n\n")
    found = vmstat.parse_meminfo(f"{meminfo}\n")
    if "SecPageTables" not in found:
        raise Unproven("this kernel does not count stage-2 tables (SecPageTables)")
    return found["SecPageTables"] // PAGE_SIZE - vmstat.parse_vmstat(counters).get(
        "nr_iommu_pages", 0
    )


def at_first(shell: Shell, claim: Claim) -> int | None:
    """Pages of tables before there is a VM of ours; None where that would tell nothing of ours.

    Then the claim is not judged in this, so that the check does not pass.
    """
    try:
        nobody_else(shell)
        return count(shell)
    except Unproven as exc:
        claim.not_judged(f"how many tables are left, since {exc}")
        return None


def judged(
    look: Callable[[], Seen],
    gone: Callable[[Seen], bool],
    shell: Shell,
    claim: Claim,
    slowdown: float,
    *,
    late: bool = False,
) -> Seen:
    """What is seen when that which was freed must be gone; each look is to begin with SETTLE.

    That is after BARRIERS looks, or when patience ends: on a kernel without a barrier, and of what
    may go, or be told, as `late` as that. What takes more than one look is told, with the time:
    what goes late is another bug than what never goes.
    """
    deadline = Deadline(PATIENCE * slowdown)
    start = time.monotonic()
    seen = [look()]
    while not gone(seen[-1]) and (len(seen) < BARRIERS or not deadline.expired()):
        seen.append(look())
    if len(seen) > 1:
        seconds = time.monotonic() - start
        went = "gone" if gone(seen[-1]) else "not gone"
        claim.observe(f"{went} at look {len(seen)}, after {seconds:.1f} s")
    if late or len(seen) <= BARRIERS or not has_barrier(shell):
        return seen[-1]
    return seen[BARRIERS - 1]


def falls_to(shell: Shell, claim: Claim, pages: int, slowdown: float) -> int:
    """How many pages of tables there are when they must have fallen to so many, or to fewer."""
    return judged(lambda: count(shell), lambda left: left <= pages, shell, claim, slowdown)


def above(shell: Shell, claim: Claim, baseline: int, slowdown: float) -> int:
    """Pages of tables more than at the baseline, when what was freed must be gone."""
    left = falls_to(shell, claim, baseline, slowdown) - baseline
    if left < 0:
        raise Unproven(f"{-left} pages of tables that were not ours went meanwhile")
    return left


def assert_none_left(
    vm: Guest, shell: Shell, claim: Claim, baseline: int | None, slowdown: float
) -> None:
    """End the guest, and assert that the host has no more tables than at_first(), if that told."""
    if baseline is None:
        return
    vm.close()
    left = above(shell, claim, baseline, slowdown)
    claim.observe(f"{left} pages of tables left when the VM is gone")
    assert not left, f"{left} pages of tables are left when the VM is gone"


def has_barrier(shell: Shell) -> bool:
    """Whether this kernel can be told to run all RCU callbacks that are queued."""
    return shell.run(f"[ -e {BARRIER} ]", check=False).status == 0


def of_el2(shell: Shell, vm: str) -> bool:
    """Whether the tables of the VM of that debugfs folder, with its owner alive, belong to EL2.

    They do under pKVM of Linux 7.3: EL2 makes them of pages that the host gives it, which count in
    SecPageTables all the while, and gets back with the VM (arch/arm64/kvm/pkvm.c).
    """
    return refusal(shell, vm) == "el2"


def nobody_else(shell: Shell) -> None:
    """Unproven if the host has a VM already: its tables would be counted with ours."""
    script = f"for d in {kvmstats.KVM}/*-*; do [ ! -d $d ] || echo $d; done"
    others = shell.run(script).stdout.split()
    if others:
        raise Unproven(f"the host has {len(others)} other VMs, whose tables cannot be told apart")


def is_alive(shell: Shell, vm: str) -> bool:
    """Whether KVM still has the VM of that debugfs folder. Nothing in the folder is opened."""
    return shell.run(f"[ -d {kvmstats.folder(vm)} ]", check=False).status == 0


def assert_no_vm_of(shell: Shell, claim: Claim, pid: int, slowdown: float) -> None:
    """Assert that KVM has no VM any more of a process that has ended.

    A reference to one that is never dropped keeps it, and what it has, for ever.
    """
    script = f"{SETTLE}for d in {kvmstats.KVM}/{pid}-*; do [ ! -d $d ] || echo $d; done"
    left = judged(
        lambda: shell.run(script).stdout.split(), lambda vms: not vms, shell, claim, slowdown
    )
    assert not left, f"{len(left)} VMs of an owner that has ended are there still: {left[:4]}"
