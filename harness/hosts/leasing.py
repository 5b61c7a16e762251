# SPDX-License-Identifier: GPL-2.0-only
"""Take, renew and give back a lease on a machine (lease.py says what one is)."""

from __future__ import annotations

import contextlib
import getpass
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

from harness.deadline import Deadline
from harness.errors import HostLost, InfraError
from harness.hosts.lease import Clock, Lease, Place, Seen, parse, read_command, replace_command
from harness.hosts.protocols import Shell
from harness.hosts.ssh import HostKeyChanged

# A holder that died costs the next one so many seconds.
LEASE_SECONDS = 120
# A renewal may fail two times before the third is too late.
RENEW_SECONDS = 30.0
# For one renewal, from opening a shell on.
TRY_SECONDS = 10.0
# A renewal whose answer never came may get in between; if more do, the lease runs out by itself.
RELEASE_TRIES = 3
# Of those who wait for it.
POLL_SECONDS = 2.0
MACHINE = Place()

T = TypeVar("T")


class Busy(InfraError):
    """Another has the machine; the message says who, for which run, since and until when."""


class LeaseLost(HostLost):
    """The machine is another's by now, or could not be reached before the lease ran out."""


def boottime() -> float:
    """The controller's own clock: seconds that go on in suspend, as the machine's do meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def owner() -> str:
    """This user and machine, as others shall read them."""
    return re.sub(r"[^A-Za-z0-9._+@:-]", "_", f"{getpass.getuser()}@{socket.gethostname()}")[:128]


def look(shell: Shell, place: Place = MACHINE, deadline: Deadline | None = None) -> Seen:
    """The lease and the clocks of a machine; InfraError if they make no sense."""
    return parse(shell.run(read_command(place), deadline).stdout, place)


def take(shell: Shell, run: str, *, place: Place = MACHINE, seconds: int = LEASE_SECONDS) -> Held:
    """Take the machine for `run`. Raises Busy while another has it (see waited())."""
    asked = boottime()
    seen = look(shell, place)
    if not seen.left:
        lease = _renewed(
            Lease(
                token=secrets.token_hex(16),
                owner=owner(),
                run=run,
                since=seen.clock.wall,
                boot_id=seen.clock.boot_id,
                up=seen.clock.up,
                seconds=seconds,
            ),
            seen.clock,
            seconds,
        )
        if _replace(shell, place, seen, lease):
            return Held(lease, asked + seconds, place, seen.abandoned)
        # Another was faster, so there is a lease now.
        seen = look(shell, place)
    state = "in use" if seen.left else "not to be had"
    raise Busy(f"the host is {state}: {seen.words()}")


def waited(attempt: Callable[[], T], deadline: Deadline) -> T:
    """What `attempt` returns, which is made again and again while it raises an InfraError.

    Each attempt opens a shell of its own: one who has a machine boots it, which ends every other's,
    and leaves it without an answer meanwhile. When time runs out, raises what the last one raised;
    HostKeyChanged and UsageError are raised at once.
    """
    while True:
        try:
            return attempt()
        except HostKeyChanged:
            raise
        except InfraError:
            if deadline.expired():
                raise
        time.sleep(min(POLL_SECONDS, deadline.remaining()))


class Held:
    """A lease that is ours until check() says otherwise.

    Each call is given a shell, since the connection that the lease was taken over is gone after a
    boot, and renewing() what opens one. `until` is by the controller's clock, and counted from
    before the machine was asked: so it is over here before it is over there.
    """

    def __init__(
        self,
        lease: Lease,
        until: float,
        place: Place,
        took_over: Lease | None,
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._lease = lease
        self._until = until
        self._place = place
        self._clock = clock
        self._lost: LeaseLost | None = None
        self._broken: Exception | None = None
        self._lock = threading.Lock()
        self.took_over = took_over
        """The lease that was there before, if it ran out: its run left the machine as it is."""

    def paper(self) -> tuple[Lease, float]:
        """The lease as it was taken, and for how many seconds more it holds."""
        return self._lease, max(0.0, self._until - self._clock())

    def check(self) -> None:
        """Raise LeaseLost unless the machine is still ours: ask before whatever changes it.

        InfraError if nobody renews it any more, because of a mistake in the harness.
        """
        if self._lost is not None:
            raise self._lost
        if self._broken is not None:
            raise InfraError("renewing the lease broke") from self._broken
        if self._clock() >= self._until:
            raise LeaseLost("the lease on the host ran out before it could be renewed")

    def renew(
        self, shell: Shell, seconds: int = LEASE_SECONDS, deadline: Deadline | None = None
    ) -> None:
        """Hold the machine for `seconds` from now on; LeaseLost if it is another's.

        After any other InfraError it may be tried again.
        Before a boot it is given the time until somebody can renew it again.
        """
        with self._lock:
            asked = self._clock()
            seen = look(shell, self._place, deadline)
            if (self._ours(seen) or self._forgotten(seen)) and _replace(
                shell, self._place, seen, _renewed(self._lease, seen.clock, seconds), deadline
            ):
                self._until = asked + seconds
                return
            now = look(shell, self._place, deadline)
            if self._ours(now):
                # An earlier renewal, whose answer never came, got there first.
                raise InfraError("a renewal of the lease overtook another one of our own")
            self._lost = LeaseLost(f"the lease on the host is lost: {now.words()}")
            raise self._lost

    def release(self, shell: Shell) -> None:
        """Give the machine back; nothing happens if it is another's by now."""
        with self._lock:
            for _ in range(RELEASE_TRIES):
                seen = look(shell, self._place)
                if not self._ours(seen) or _replace(
                    shell, self._place, seen, _renewed(self._lease, seen.clock, 0)
                ):
                    break
            self._lost = LeaseLost("the lease on the host was given back")

    @contextlib.contextmanager
    def renewing(
        self,
        connect: Callable[[Deadline], AbstractContextManager[Shell]],
        every: float = RENEW_SECONDS,
        *,
        seconds: int = LEASE_SECONDS,
        within: float = TRY_SECONDS,
    ) -> Iterator[None]:
        """Renew it from a thread while the body runs, for `seconds` each time.

        `connect` opens a shell, all of whose waits end `within` seconds, and closes it: that of
        the last time may be cut by now. A renewal that fails is tried again; whether the machine
        is still ours says check(). At the end of the body one that has begun is waited for.
        """
        stop = threading.Event()

        def keep() -> None:
            while self._lost is None and not stop.wait(every):
                deadline = Deadline(within)
                try:
                    with contextlib.suppress(InfraError), connect(deadline) as shell:
                        self.renew(shell, seconds, deadline)
                except Exception as exc:
                    self._broken = exc
                    return

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _forgotten(self, seen: Seen) -> bool:
        """Whether the machine has no lease at all, while ours is not over yet.

        One that was booted from the network has its files in a RAM disk, and they go with each
        boot. Whoever writes the first file then has it, and only one can.
        """
        return not seen.number and self._lost is None and self._clock() < self._until

    def _ours(self, seen: Seen) -> bool:
        return seen.lease is not None and seen.lease.token == self._lease.token


def _renewed(lease: Lease, clock: Clock, seconds: int) -> Lease:
    now = {"boot_id": clock.boot_id, "up": clock.up, "seconds": seconds}
    return Lease.model_validate({**lease.model_dump(), **now})


def _replace(
    shell: Shell, place: Place, seen: Seen, lease: Lease, deadline: Deadline | None = None
) -> bool:
    answer = shell.run(replace_command(place, seen, lease), deadline).stdout.strip()
    if answer not in ("won", "lost"):
        raise InfraError(f"the host answered nonsense when given a lease: {answer[:200]!r}")
    return answer == "won"
