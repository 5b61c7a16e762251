# SPDX-License-Identifier: GPL-2.0-only
"""Reset a machine that hangs in a kernel of a run whose controller was killed.

It answers no SSH, so neither its lease nor what it runs can be asked for. It is touched only if all
of that is so: a run of this user left it in a kernel of its own (away.py), and no process answers
for it any more; it has the same pinned key; that run's lease, as it was at the jump, is over; and
it stays silent for as long as a living run, anybody's, takes to bring it home from a hang at boot.
"""

from __future__ import annotations

import contextlib
import math
import time
from datetime import UTC, datetime

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostLost, InfraError
from harness.hosts import aside, away
from harness.hosts.away import Away
from harness.hosts.lease import LONGEST
from harness.hosts.leasing import LEASE_SECONDS, MACHINE, Held
from harness.hosts.machine import Machine
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.ssh import NoLogin
from harness.hosts.tenancy import Tenancy
from harness.hosts.trip import Trip
from harness.hosts.way_back import bring_home

POLL_SECONDS = 0.3


def revive(machine: Machine, run: str) -> None:
    """Bring the machine home if a run that was killed left it hanging; else nothing is done.

    `run` is who asks: the run that was killed itself waits for the end of its lease, for any other
    that is an InfraError. So is a machine that has no power switch, or a file that is damaged.
    NotBack for one that does not come back, which is set aside.
    """
    name = machine.name
    if not away.there(name) or aside.find(name) is not None:
        return
    trouble = _silence(machine)
    if trouble is None:
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(away.alone(name, 0))
        except DeadlineExceeded as exc:
            raise InfraError(f"{trouble}; {exc}") from exc
        # Not before: until then it is another process's to remove.
        left = away.find(name)
        if left is not None and left.host_key == machine.host_key:
            _revive(machine, left, run, trouble)


def _revive(machine: Machine, left: Away, run: str, trouble: NoLogin) -> None:
    dead = left.lease.run
    words = f"{trouble}; the run {dead} was killed while the machine was in a kernel of its"
    if machine.host.power is None:
        raise InfraError(f"{words}, and the inventory has no power switch for it: reset it by hand")
    rest = left.until + LEASE_SECONDS - time.time()
    if rest > 0 and run != dead:
        until = datetime.fromtimestamp(left.until + LEASE_SECONDS, UTC)
        raise InfraError(
            f"{words}, and its lease may hold until {until:%Y-%m-%d %H:%M:%S UTC}; from then on "
            "the next run resets it"
        )
    # The wall clock may have jumped.
    quiet = max(min(rest, LONGEST), machine.host.boot_seconds + machine.host.back_seconds)
    machine.say(f"{words}; it is reset if it stays silent for {quiet:.0f} s")
    if not _stays_silent(machine, quiet):
        machine.say("it answers again")
        return
    ours = Tenancy(machine, Held(left.lease, math.inf, MACHINE, None))
    try:
        bring_home(machine, ours, Trip(left.good, jumped=True), trouble)
    except HostLost:
        # It was set aside, or another has it: in either case it is no business of the next run.
        away.forget(machine.name)
        raise
    finally:
        ours.end()
    away.forget(machine.name)


def _stays_silent(machine: Machine, seconds: float) -> bool:
    deadline = Deadline(seconds)
    while _silence(machine) is not None:
        if deadline.expired():
            return True
        time.sleep(POLL_SECONDS)
    return False


def _silence(machine: Machine) -> NoLogin | None:
    """What became of a login, if the machine itself has nothing at all to say to it."""
    try:
        with machine.shell(Deadline(CONTACT_SECONDS)):
            return None
    except NoLogin as exc:
        # Not that of a jump host, which says nothing about what is behind it.
        of_its_own = (exc.host, exc.port) == (machine.host.address, machine.host.port)
        return exc if of_its_own and not exc.refused else None
    except InfraError:
        return None
