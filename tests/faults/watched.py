# SPDX-License-Identifier: GPL-2.0-only
"""On a machine with a watchdog that runs on across a kexec, and without a power switch."""

from __future__ import annotations

from faults.deeds import BEFORE_LOADING, DEAD, INSTEAD
from faults.edits import short_boot
from faults.fault import Fault

WATCHED = (
    Fault(
        "boot",
        "kernel does not execute anything, no power switch",
        "was not booted within 25 s",
        sabotage=BEFORE_LOADING.format(what=DEAD),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "the jump does not happen, watchdog armed",
        "the jump into the kernel did not happen",
        sabotage=INSTEAD.format(what=":"),
        edit=short_boot,
        diary=r"(?s)watchdog disarmed.*reboot ordered",
    ),
)
