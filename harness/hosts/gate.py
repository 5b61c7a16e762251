# SPDX-License-Identifier: GPL-2.0-only
"""Before a machine is tested on, and before it is given back: is it well, and nobody else's?"""

from __future__ import annotations

from harness.errors import InfraError
from harness.hosts import aside
from harness.hosts.health import Health, examine, in_use, left_behind, sick
from harness.hosts.protocols import Shell


def admit(name: str, shell: Shell) -> Health:
    """How the machine is, if tests may run on it; InfraError as of require_fit()."""
    aside.require_in_use(name)
    health = examine(shell)
    require_fit(name, health)
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


def dismiss(name: str, shell: Shell, before: Health) -> tuple[str, ...]:
    """What the run has left behind on the machine; if that makes it sick, it is set aside."""
    after = examine(shell)
    if illness := sick(after):
        aside.set_aside(name, illness)
    return left_behind(before, after)
