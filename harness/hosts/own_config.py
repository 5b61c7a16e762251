# SPDX-License-Identifier: GPL-2.0-only
"""The configuration of a machine's known-good kernel, read while nobody else has the machine."""

from __future__ import annotations

from collections.abc import Callable

from harness.deadline import Deadline
from harness.hosts import aside, machine_config, pins
from harness.hosts.machine import Machine
from harness.hosts.recovery import home
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.tenancy import tenant
from harness.inventory import SshHost
from harness.kernel.machine import MachineConfig


def own_config(
    name: str, host: SshHost, run: str, wait: float, say: Callable[[str], None]
) -> MachineConfig:
    """Read it under a lease of `run`, after the machine was brought home if need be.

    A kernel of a run that died has another configuration, and other modules loaded. Busy after
    `wait` seconds, NotBack, and what open_shell() and machine_config.read() raise.
    """
    machine = Machine(name, host, pins.load(pins.pins_path()), say)
    aside.require_in_use(name)
    with tenant(machine, run, wait) as ours:
        home(machine, ours)
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            ours.check()
            return machine_config.read(shell, trim=host.trim)
