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

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.lease import Clock, Lease, Place, Seen, parse, read_command, replace_command
from harness.hosts.protocols import Shell

# A holder that died costs the next one so many seconds.
LEASE_SECONDS = 120
# A renewal may fail two times before the third is too late.
RENEW_SECONDS = 30.0
# Of those who wait for it.
POLL_SECONDS = 2.0
MACHINE = Place()


class Busy(InfraError):
    """Another has the machine; the message says who, for which run, since and until when."""


class LeaseLost(InfraError):
    """The machine is another's by now, or could not be reached before the lease ran out."""


def boottime() -> float:
    """The controller's own clock: seconds that go on in suspend, as the machine's do meanwhile."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def owner() -> str:
    """This user and machine, as others shall read them."""
    return re.sub(r"[^A-Za-z0-9._+@:-]", "_", f"{getpass.getuser()}@{socket.gethostname()}")[:128]


def look(shell: Shell, place: Place = MACHINE) -> Seen:
    """The lease and the clocks of a machine; InfraError if they make no sense."""
    return parse(shell.run(read_command(place)).stdout, place)


def take(
    shell: Shell,
    run: str,
    *,
    wait: float = 0.0,
    place: Place = MACHINE,
    seconds: int = LEASE_SECONDS,
) -> Held:
    """Take the machine for `run`, waiting up to `wait` seconds while another has it.

    Who waits takes it when it is free, whoever came first. Raises Busy when time runs out.
    """
    deadline = Deadline(wait)
    while True:
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
        elif deadline.expired():
            raise Busy(f"the host is in use: {seen.words()}")
        else:
            time.sleep(min(POLL_SECONDS, seen.left, deadline.remaining()))


class Held:
    """A lease that is ours until check() says otherwise.

    Each call is given a shell, since the connection that the lease was taken over is gone after a
    boot. `until` is by the controller's clock, and counted from before the machine was asked: so
    it is over here before it is over there.
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
        self._lock = threading.Lock()
        self.took_over = took_over
        """The lease that was there before, if it ran out: its run left the machine as it is."""

    def check(self) -> None:
        """Raise LeaseLost unless the machine is still ours: ask before whatever changes it."""
        if self._lost is not None:
            raise self._lost
        if self._clock() >= self._until:
            raise LeaseLost("the lease on the host ran out before it could be renewed")

    def renew(self, shell: Shell, seconds: int = LEASE_SECONDS) -> None:
        """Hold the machine for `seconds` from now on; LeaseLost if it is another's.

        Before a boot it is given the time until somebody can renew it again.
        """
        with self._lock:
            asked = self._clock()
            seen = look(shell, self._place)
            if self._ours(seen) and _replace(
                shell, self._place, seen, _renewed(self._lease, seen.clock, seconds)
            ):
                self._until = asked + seconds
                return
            now = look(shell, self._place)
            self._lost = LeaseLost(f"the lease on the host is lost: {now.words()}")
            raise self._lost

    def release(self, shell: Shell) -> None:
        """Give the machine back; nothing happens if it is another's by now."""
        with self._lock:
            seen = look(shell, self._place)
            if self._ours(seen):
                _replace(shell, self._place, seen, _renewed(self._lease, seen.clock, 0))
            self._lost = LeaseLost("the lease on the host was given back")

    @contextlib.contextmanager
    def renewing(self, shell: Shell, every: float = RENEW_SECONDS) -> Iterator[None]:
        """Renew it from a thread while the body runs; `shell` is that thread's alone.

        A renewal that fails is tried again; whether the machine is still ours says check().
        """
        stop = threading.Event()

        def keep() -> None:
            while not stop.wait(every):
                with contextlib.suppress(InfraError):
                    self.renew(shell)
                if self._lost is not None:
                    return

        thread = threading.Thread(target=keep, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            # The shell's own deadlines end it; its caller is going to use that shell again.
            thread.join()

    def _ours(self, seen: Seen) -> bool:
        return seen.lease is not None and seen.lease.token == self._lease.token


def _renewed(lease: Lease, clock: Clock, seconds: int) -> Lease:
    now = {"boot_id": clock.boot_id, "up": clock.up, "seconds": seconds}
    return Lease.model_validate({**lease.model_dump(), **now})


def _replace(shell: Shell, place: Place, seen: Seen, lease: Lease) -> bool:
    answer = shell.run(replace_command(place, seen, lease)).stdout.strip()
    if answer not in ("won", "lost"):
        raise InfraError(f"the host answered nonsense when given a lease: {answer[:200]!r}")
    return answer == "won"
