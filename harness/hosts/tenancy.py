# SPDX-License-Identifier: GPL-2.0-only
"""Have a machine for the time of a cell: its lease is taken, renewed, and given back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.lease import LONGEST, Lease, Seen
from harness.hosts.leasing import LEASE_SECONDS, TRY_SECONDS, Held, look, owner, take, waited
from harness.hosts.machine import Machine
from harness.hosts.protocols import Shell
from harness.hosts.route import CONTACT_SECONDS

# A renewal may be overtaken by an earlier one of our own, whose answer never came.
TRIES = 3


class Tenancy:
    """The lease of a machine while the machine goes from one kernel to another."""

    def __init__(self, machine: Machine, held: Held) -> None:
        self._machine = machine
        self._held = held
        self._renewal = contextlib.ExitStack()
        self._longer, self._slowdown = 0.0, 1.0
        self._renew_on()

    def check(self) -> None:
        """Raise LeaseLost unless the machine is still ours: ask before whatever changes it."""
        self._held.check()

    def paper(self) -> tuple[Lease, float]:
        """The lease, and for how many seconds it holds if nobody renews it."""
        return self._held.paper()

    def hold(self, longer: float, slowdown: float = 1.0) -> None:
        """Make each renewal from the next away() on last for `longer` seconds more than usual.

        A kernel that hangs answers no renewal: the machine must still be ours once that is known.
        """
        self._longer, self._slowdown = longer, slowdown

    def renew(self, shell: Shell, seconds: float = 0.0) -> None:
        """Hold the machine for `seconds` more than usual from now on; LeaseLost if we have lost it.

        In a boot that began after the last renewal, it is what makes check() sure again.
        """
        for left in reversed(range(TRIES)):
            try:
                return self._held.renew(shell, self._seconds(seconds))
            except InfraError:
                if not left or self._lost():
                    raise

    @contextlib.contextmanager
    def away(self, shell: Shell | None, seconds: float) -> Iterator[None]:
        """While the machine boots, when nobody can renew the lease.

        `shell` is None for a machine that does not answer: then it has the time that is left, and
        that of the lease once more from its boot on.
        """
        self._renewal.close()
        self.check()
        if shell is not None:
            self.renew(shell, seconds)
        try:
            yield
        finally:
            self._renew_on()

    def end(self) -> None:
        """Give the machine back; one that does not answer is free when the lease runs out."""
        self._renewal.close()
        with (
            contextlib.suppress(InfraError),
            self._machine.shell(Deadline(CONTACT_SECONDS)) as shell,
        ):
            self._held.release(shell)
            self._machine.say("lease given back")

    def _renew_on(self) -> None:
        self._renewal.enter_context(
            self._held.renewing(
                self._machine.shell,
                seconds=self._seconds(),
                within=TRY_SECONDS * self._slowdown,
            )
        )

    def _seconds(self, more: float = 0.0) -> int:
        return min(LONGEST, round(max(more, self._longer)) + LEASE_SECONDS)

    def _lost(self) -> bool:
        try:
            self.check()
        except InfraError:
            return True
        return False


@contextlib.contextmanager
def tenant(machine: Machine, run: str, wait: float) -> Iterator[Tenancy]:
    """Have the machine until the end of the block; Busy if another has it, after `wait` seconds.

    A run has one cell at a time on a machine: its own lease is that of a cell that was killed, and
    is waited for until it runs out.
    """

    def seen_now() -> Seen:
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            return look(shell)

    def taken() -> Held:
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            return take(shell, run)

    deadline = Deadline(wait)
    seen = waited(seen_now, deadline)
    if seen.lease is not None and (seen.lease.owner, seen.lease.run) == (owner(), run):
        deadline = Deadline(max(deadline.remaining(), seen.left + 1))
    held = waited(taken, deadline)
    machine.say("lease taken")
    ours = Tenancy(machine, held)
    try:
        yield ours
    finally:
        ours.end()
