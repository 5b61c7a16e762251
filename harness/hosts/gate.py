# SPDX-License-Identifier: GPL-2.0-only
"""Before a machine is tested on, and before it is given back: is it well, and nobody else's?"""

from __future__ import annotations

import re
import time
from dataclasses import replace

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import aside
from harness.hosts.health import Health, examine, in_use, left_behind, sick
from harness.hosts.protocols import Shell

# A machine that was started less than so long ago may have a load of its own.
NEW_SECONDS = 300
SETTLE_SECONDS = 180.0
PAUSE_SECONDS = 5.0


def admit(name: str, shell: Shell) -> Health:
    """How the machine is, if tests may run on it; InfraError as of require_fit()."""
    aside.require_in_use(name)
    health = examine(shell)
    if _only_busy(health) and _just_started(shell):
        health = settled(shell, health, SETTLE_SECONDS)
    require_fit(name, health)
    return health


def _only_busy(health: Health) -> bool:
    idle = replace(health, load=0.0)
    return bool(in_use(health)) and not in_use(idle) and not sick(health)


def _just_started(shell: Shell) -> bool:
    """Its own start is a load as well, of which the mean over a minute knows for a while."""
    text = shell.read("/proc/uptime")
    found = re.match(r"([0-9]{1,9})\.", text, re.ASCII)
    if found is None:
        raise InfraError(f"the host answered nonsense when asked for its uptime: {text[:200]!r}")
    return int(found[1]) < NEW_SECONDS


def settled(shell: Shell, health: Health, seconds: float) -> Health:
    """How the machine is once a load has passed that is known to; at the latest after `seconds`."""
    deadline = Deadline(seconds)
    while _only_busy(health) and not deadline.expired():
        time.sleep(PAUSE_SECONDS)
        health = examine(shell)
    return health


def require_fit(name: str, health: Health) -> None:
    """InfraError says all that speaks against tests on the machine.

    A sick one is set aside. One that somebody uses is not: it may be free in an hour.
    """
    illness, use = sick(health), in_use(health)
    if illness:
        aside.set_aside(name, illness)
    if illness or use:
        raise InfraError(f"{name} is not fit for tests: {'; '.join((*illness, *use))}")


def dismiss(
    name: str, shell: Shell, before: Health, reported: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """What the run has left behind on the machine; if that makes it sick, it is set aside.

    It is also if it was `reported` to be by the kernel of the cell: the known-good one does not
    know that, for what is marked as bad memory is so until the next boot.
    """
    after = examine(shell)
    told = tuple(f"the kernel of a cell reported: {one}" for one in reported)
    if illness := (*told, *sick(after)):
        aside.set_aside(name, illness)
    return left_behind(before, after)
