# SPDX-License-Identifier: GPL-2.0-only
"""Before anything is done to the machine."""

from __future__ import annotations

from faults.deeds import NO_SUDO, USER, babbler, held_by_another, other_key, refuse
from faults.edits import console, with_key
from faults.fault import Fault

LOOK = (
    Fault(
        "look",
        "another's lease",
        "is in use: .* for the run another-run",
        setup=held_by_another,
        same_boot=True,
        lease="another's",
    ),
    Fault(
        "look",
        "lease that cannot be read",
        r"has a lease that cannot be read .*remove /var/lib/kvm-harness/lease",
        sabotage="mkdir -p /var/lib/kvm-harness/lease; "
        "echo banana > /var/lib/kvm-harness/lease/lease.000000000001",
        same_boot=True,
        lease="damaged",
    ),
    Fault(
        "look",
        "changed host key",
        "shows the host key .*pinned is",
        setup=other_key,
        same_boot=True,
    ),
    Fault(
        "look",
        "login refused",
        "refused the key",
        sabotage="echo > ~/.ssh/authorized_keys.new; cp ~/.ssh/authorized_keys /tmp/keys; "
        "mv ~/.ssh/authorized_keys.new ~/.ssh/authorized_keys; "
        "( sleep 20; cp /tmp/keys ~/.ssh/authorized_keys ) > /dev/null 2>&1 &",
        same_boot=True,
    ),
    Fault(
        "look",
        "sudo refused",
        "root: .*sudo: a password is required",
        sabotage=f"{USER}; {NO_SUDO}",
        edit=with_key("user: user"),
        same_boot=True,
    ),
    Fault(
        "look",
        "disk full",
        r"disk: \d+ MiB free, 1024 needed",
        sabotage="mount -o remount,size=64m /var",
        same_boot=True,
    ),
    Fault(
        "look",
        "wall clock jumped back",
        "clock: .* behind the controller",
        sabotage="date -s @86400",
        same_boot=True,
    ),
    Fault(
        "look",
        "wall clock jumped ahead",
        "clock: .* ahead of the controller",
        sabotage="date -s @4000000000",
        same_boot=True,
    ),
    Fault(
        "look",
        "no kexec",
        "kexec program: no kexec on PATH",
        sabotage="rm /sbin/kexec",
        same_boot=True,
    ),
    Fault(
        "look",
        "console shows nothing",
        "does not show what the kernel logs",
        edit=console("[sleep, '600']"),
        same_boot=True,
    ),
    Fault(
        "look",
        "console gone",
        "does not show what the kernel logs",
        edit=console("['false']"),
        same_boot=True,
    ),
    Fault(
        "look",
        "nonsense for an answer",
        "the host's answer to what it is.*longer than",
        sabotage="yes banana | head -c 400000 > /etc/os-release",
        same_boot=True,
    ),
    Fault(
        "look",
        "no SSH server, but another",
        "no SSH login to .* within",
        setup=babbler,
        same_boot=True,
    ),
    Fault("look", "network cut", "no SSH login to .* within 30 s", setup=refuse, same_boot=True),
)
