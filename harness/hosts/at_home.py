# SPDX-License-Identifier: GPL-2.0-only
"""Have a machine of the lab in its known-good kernel, which is where all work on it begins."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from harness.hosts import aside, away, pins
from harness.hosts.machine import Machine, Running
from harness.hosts.recovery import home
from harness.hosts.revive import revive
from harness.hosts.tenancy import Tenancy, tenant
from harness.inventory import SshHost


@contextlib.contextmanager
def at_home(
    name: str, host: SshHost, run: str, wait: float, say: Callable[[str], None]
) -> Iterator[tuple[Machine, Tenancy, Running]]:
    """The machine, its lease until the end of the block, and its known-good kernel, which it runs.

    `run` and `wait` as in tenant(); `say` is told what is done to it. InfraError if it was set
    aside, Busy if it is another's, NotBack if it cannot be brought home (then it is set aside), and
    what open_shell() raises.
    """
    machine = Machine(name, host, pins.load(pins.pins_path()), say)
    aside.require_in_use(name)
    revive(machine, run)
    with tenant(machine, run, wait) as ours:
        now = home(machine, ours)
        # Of a run that was killed: it must not be held against the machine later on.
        away.forget(name)
        yield machine, ours, now
