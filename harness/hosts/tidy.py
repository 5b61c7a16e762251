# SPDX-License-Identifier: GPL-2.0-only
"""Leave a machine of the lab as it was before a cell."""

from __future__ import annotations

from harness.deadline import Deadline
from harness.hosts import deploy, gate, grub, pstore, userspace
from harness.hosts.health import Health
from harness.hosts.machine import Machine
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Boot, Shell
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.tenancy import Tenancy
from harness.splatlog import illness

# Of the cell's folder: what a crash left; what is not as it was.
PSTORE = "pstore"
LEFT = "left-behind.txt"


def clear(shell: Shell) -> None:
    """Remove what any cell may have put on the machine, this one's or that of a run that died."""
    grub.clear(shell)
    userspace.clear(shell)
    deploy.clear(shell, PROGRAMS)


def tidy(
    machine: Machine, ours: Tenancy, wanted: Boot, before: Health, crashes: frozenset[str]
) -> None:
    """Leave the machine as it was; what a crash has left, and what is not as it was, is kept.

    LeaseLost if it is another's: then what is there is theirs.
    """
    # Consoles can be long: not in the time that contact with the machine has.
    reported = illness(wanted.folder)
    with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
        ours.check()
        clear(shell)
        pstore.collect(shell, crashes, wanted.folder / PSTORE)
        left = gate.dismiss(machine.name, shell, before, reported)
    machine.say("nothing of the cell is left on it")
    if left:
        (wanted.folder / LEFT).write_text("".join(f"{line}\n" for line in left))
