# SPDX-License-Identifier: GPL-2.0-only
"""The configuration of a machine's known-good kernel, read while nobody else has the machine."""

from __future__ import annotations

from collections.abc import Callable

from harness.deadline import Deadline
from harness.hosts import machine_config
from harness.hosts.at_home import at_home
from harness.hosts.route import CONTACT_SECONDS
from harness.inventory import SshHost
from harness.kernel.machine import MachineConfig


def own_config(
    name: str, host: SshHost, run: str, wait: float, say: Callable[[str], None]
) -> MachineConfig:
    """Read it under a lease of `run`, after the machine was brought home if need be.

    A kernel of a run that died has another configuration, and other modules loaded. Errors are
    those of at_home() and machine_config.read().
    """
    with (
        at_home(name, host, run, wait, say) as (machine, ours, _),
        machine.shell(Deadline(CONTACT_SECONDS)) as shell,
    ):
        ours.check()
        return machine_config.read(shell, trim=host.trim)
