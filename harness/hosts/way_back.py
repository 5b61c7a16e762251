# SPDX-License-Identifier: GPL-2.0-only
"""Bring a machine home after a cell, whatever became of that, or set the machine aside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HarnessError, HostDied, HostLost, InfraError
from harness.hosts.console import panic_in
from harness.hosts.leasing import TRY_SECONDS, LeaseLost
from harness.hosts.machine import Machine, Running, running
from harness.hosts.recovery import NotBack, bring_back, give_up
from harness.hosts.rehearsal import require_same
from harness.hosts.tenancy import Tenancy
from harness.hosts.trip import AFTER, Tape, Trip
from harness.hosts.undisturbed import undisturbed
from harness.splatlog import FIRST_LINE, whole_text


@contextlib.contextmanager
def and_back(
    machine: Machine, ours: Tenancy, trip: Trip, tape: Tape, tidy: Callable[[], None]
) -> Iterator[None]:
    """Whatever happens in the block, the machine is home after it, or set aside."""
    failure: BaseException | None = None
    try:
        yield
    except BaseException as exc:
        failure = exc
    with undisturbed():
        machine.say(f"the cell ended{f': {failure}' if failure is not None else ''}")
        log, untold = _next(tape) if trip.jumped else (None, None)
        at = trip.good
        if trip.jumped:
            try:
                at = bring_home(machine, ours, trip, failure)
            except (LeaseLost, NotBack) as exc:
                raise _both(failure, exc) from failure
            failure = failure or _down(machine, log) or untold or _unseen(machine, log)
        try:
            _tidied(machine, ours, at, tidy)
        except HostLost as exc:
            raise _both(failure, exc) from failure
        except InfraError as exc:
            raise _both(failure, _up(exc, log)) from failure
        except OSError as exc:
            raise _both(failure, InfraError(f"not all is tidy: {exc}")) from failure
    if failure is not None:
        raise failure


def _next(tape: Tape) -> tuple[Path | None, InfraError | None]:
    """Where the console of the way home is recorded, or why it is not.

    On a full disk the machine has to come home as well.
    """
    try:
        return tape.next(AFTER), None
    except OSError as exc:
        return None, InfraError(f"its console was not recorded on the way home: {exc}")


def _tidied(machine: Machine, ours: Tenancy, at: Running, tidy: Callable[[], None]) -> None:
    """Tidy up, after a reset if the machine's own kernel, whose boot is `at`, has died.

    It may have while a kernel was put on it, or since the machine came home. That is told then.
    """
    try:
        tidy()
    except LeaseLost:
        raise
    except InfraError as exc:
        if not _silent(machine):
            raise
        machine.say(f"its own kernel does not answer: {exc}")
        bring_home(machine, ours, Trip(at), exc, silent=True)
        tidy()
        raise InfraError(f"its own kernel did not answer, and was started anew: {exc}") from exc


def _silent(machine: Machine) -> bool:
    """Whether nothing answers there: another machine, or one that lets nobody in, does.

    Asked for no longer than a renewal of the lease is, which is needed for what follows.
    """
    try:
        with machine.shell(Deadline(TRY_SECONDS)) as shell:
            running(shell, Deadline(TRY_SECONDS))
    except DeadlineExceeded:
        return True
    except InfraError:
        return False
    return False


def bring_home(
    machine: Machine,
    ours: Tenancy,
    trip: Trip,
    failure: BaseException | None,
    *,
    silent: bool = False,
) -> Running:
    """Start a machine from its firmware after `failure`, or set it aside and raise NotBack.

    `silent` is for one that does not answer, whatever the failure was.
    """
    silent = silent or isinstance(failure, HostDied | DeadlineExceeded)
    try:
        answers = not silent or machine.host.power is None
        try:
            # By GRUB a reset that worked may have ended in its entry.
            cold = machine.host.boot == "kexec"
            back = bring_back(machine, ours, trip.good, answers=answers, cold=cold)
        except NotBack:
            if machine.host.boot == "kexec":
                raise
            # It may have hung before it went: then its first start was that of GRUB's entry.
            back = bring_back(machine, ours, trip.good, answers=True)
        require_same(machine, trip.good, back)
        return back
    except NotBack as exc:
        after = f"after {failure}" if failure is not None else "after a cell"
        give_up(machine, after, exc)


def _down(machine: Machine, log: Path | None) -> HostDied | None:
    """What the kernel of the cell has to answer for that panicked when it was to end."""
    down, _, _ = whole_text(log).partition(FIRST_LINE) if log is not None else ("", "", "")
    line = panic_in(down)
    if line is None:
        return None
    return HostDied("panic", f"{machine.name} panicked on its way down: {line} ({log})")


def _unseen(machine: Machine, log: Path | None) -> InfraError | None:
    """What to tell of a console that has shown nothing since the cell ended.

    A kernel that panicked on its way down would have come home all the same.
    """
    if machine.host.console is None or log is None or log.stat().st_size:
        return None
    return InfraError(f"its console showed nothing on the way home ({log})")


def _up(trouble: InfraError, log: Path | None) -> InfraError:
    """The same trouble with the known-good kernel, which may have panicked meanwhile."""
    _, _, up = whole_text(log).partition(FIRST_LINE) if log is not None else ("", "", "")
    line = panic_in(up)
    if line is None:
        return trouble
    return InfraError(f"its own kernel panicked: {line} ({log}); {trouble}")


def _both(failure: BaseException | None, then: InfraError) -> BaseException:
    """What to raise for a machine that had trouble on its way back, after a failure or none.

    A panic was seen on the console and stays one. A machine that no longer answers proves nothing
    against its kernel if it does not answer after a reset either.
    """
    if failure is None:
        return then
    if not isinstance(failure, HarnessError):
        return failure
    words = f"{failure}; {then}"
    if isinstance(failure, HostDied) and failure.kind == "panic":
        return HostDied(failure.kind, words)
    return HostLost(words) if isinstance(then, HostLost) else InfraError(words)
