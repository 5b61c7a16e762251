# SPDX-License-Identifier: GPL-2.0-only
"""The lease is ours, the machine in its own kernel."""

from __future__ import annotations

from fault_scene import Strike

from faults.deeds import ADMIN, BANANA, NO_SUDO, kill_and_let_time_pass, refuse, script
from faults.edits import as_admin
from faults.fault import Fault

HEALTH = (
    Fault(
        "health",
        "nonsense for an answer",
        "nonsense when asked for its health",
        sabotage=BANANA.format(path="/proc/sys/kernel/tainted"),
        same_boot=True,
    ),
    Fault(
        "health",
        "kernel is tainted by an oops",
        "kernel is tainted: kernel died recently",
        sabotage="echo 128 > /tmp/x; mount --bind /tmp/x /proc/sys/kernel/tainted",
        aside=True,
        same_boot=True,
    ),
    Fault(
        "health",
        "memory is short",
        r"it has \d+ MiB of memory left",
        sabotage="sed 's/^MemAvailable:.*/MemAvailable: 100000 kB/' /proc/meminfo > /tmp/x; "
        "mount --bind /tmp/x /proc/meminfo",
        aside=True,
        same_boot=True,
    ),
    Fault(
        "health",
        "sudo refused from now on",
        "sudo: a password is required",
        sabotage=ADMIN,
        edit=as_admin,
        strikes=(Strike("lease taken", script(NO_SUDO), connecting=True),),
        same_boot=True,
        # It takes root to give it back.
        lease="runs out",
    ),
    Fault(
        "health",
        "network cut",
        "no SSH login to .* within 30 s",
        strikes=(Strike("runs Linux", refuse, connecting=True),),
        same_boot=True,
        lease="runs out",
    ),
    Fault(
        "health",
        "controller killed",
        verdict="killed",
        strikes=(Strike("runs Linux", kill_and_let_time_pass, connecting=True),),
        same_boot=True,
    ),
)
