# SPDX-License-Identifier: GPL-2.0-only
"""The CPUs of a host: how many there are, and which one runs without a tick."""

from __future__ import annotations

import pytest

from harness.cell import CellSpec
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list
from harness.observe.unproven import Unproven
from harness.ranges import format_ranges

NOHZ_FULL = "/sys/devices/system/cpu/nohz_full"


def cpu_count(shell: Shell) -> int:
    """How many CPUs the host has, those included that are isolated or offline.

    For what is kept for each; which can be used says cpu_list.usable().
    """
    return int(shell.run("nproc --all").stdout)


def several(shell: Shell, alone: str) -> tuple[int, ...]:
    """The CPUs on which programs of ours can be put; Unproven says what one alone cannot show."""
    found = cpu_list.usable(shell)
    if len(found) < 2:
        raise Unproven(f"with one CPU, {alone}")
    return found


def leave_last(vm: Guest, shell: Shell) -> int:
    """Move a guest's threads to the other CPUs, where there are any; the last one's number.

    Who races the guest has that for itself: a thread that took it would stop what is to race.
    """
    *others, last = cpu_list.usable(shell)
    if others:
        shell.run(f"taskset -apc {format_ranges(others)} {vm.greeting.pid}")
    return last


def free_cpu(shell: Shell, cell: CellSpec) -> int:
    """A CPU of the host that runs without a tick; Unproven if there is none.

    Skips the check where the harness itself has booted the host without one.
    """
    if not cell.tickless:
        pytest.skip("a host with a debug kernel has no CPU without a tick")
    text = shell.run(f"cat {NOHZ_FULL}", check=False).stdout
    tickless = cpu_list.parse(text, NOHZ_FULL)
    if not tickless:
        raise Unproven("the host has no CPU without a tick (nohz_full)")
    free = set(tickless).intersection(cpu_list.usable(shell))
    if not free:
        raise Unproven(f"no CPU without a tick can be used, of {format_ranges(tickless)}")
    return max(free)
