# SPDX-License-Identifier: GPL-2.0-only
"""Power switches: of an emulated machine by QMP, of a machine of the lab by its own commands."""

from __future__ import annotations

from harness import proc
from harness.deadline import Deadline
from harness.hosts.qmp import Monitor
from harness.inventory import Argv, PowerCommands


class QmpPower:
    """The Power protocol over QMP (QEMU QMP Reference Manual), for a QEMU without -no-reboot.

    A QEMU that has ended cannot be switched on again, so off is a machine that stands still before
    its firmware's first instruction: what ran there is lost, as without power. One whose CPUs were
    stopped by somebody else is on, and runs again after a reset.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def on(self, deadline: Deadline) -> None:
        """See Power.on."""
        self._monitor.execute("cont", deadline)

    def off(self, deadline: Deadline) -> None:
        """See Power.off."""
        self._monitor.execute("stop", deadline)
        self._monitor.execute("system_reset", deadline)

    def reset(self, deadline: Deadline) -> None:
        """See Power.reset."""
        off = self._monitor.execute("query-status", deadline)["status"] == "prelaunch"
        self._monitor.execute("system_reset", deadline)
        if not off:
            self._monitor.execute("cont", deadline)


class CommandPower:
    """The Power protocol by the commands that the inventory names for the host `name`."""

    def __init__(self, name: str, commands: PowerCommands) -> None:
        self._name = name
        self._commands = commands

    def on(self, deadline: Deadline) -> None:
        """See Power.on."""
        self._run("on", self._commands.on, deadline)

    def off(self, deadline: Deadline) -> None:
        """See Power.off."""
        self._run("off", self._commands.off, deadline)

    def reset(self, deadline: Deadline) -> None:
        """See Power.reset."""
        self._run("reset", self._commands.reset, deadline)

    def _run(self, what: str, argv: Argv, deadline: Deadline) -> None:
        # Not contained: that would take from sudo(8) what it lives by (PR_SET_NO_NEW_PRIVS).
        proc.run(argv, deadline=deadline, what=f"power {what} of {self._name}")
