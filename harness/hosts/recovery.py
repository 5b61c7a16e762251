# SPDX-License-Identifier: GPL-2.0-only
"""Bring a machine back to its known-good kernel: what its firmware starts by itself.

No kernel of the harness is ever installed, so each start from the firmware ends there. A kernel
in protected mode is left in no other way: kexec out of it would lose EL2.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NoReturn

from harness.deadline import Deadline
from harness.errors import HostLost, InfraError
from harness.hosts import aside, bootargs
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import (
    FIRST_SECONDS,
    LONGEST_SECONDS,
    Machine,
    NotBooted,
    Running,
    running,
)
from harness.hosts.power import CommandPower
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.tenancy import Tenancy
from harness.hosts.undisturbed import undisturbed
from harness.inventory import SshHost

POWER_SECONDS = 120.0
# A switch takes the order to go off before it is off, and may forget the one to go on that comes
# meanwhile. No command tells that it is off: at most so long until a machine that answers is gone,
# and then until its power supply is.
GONE_SECONDS = 60.0
OFF_SECONDS = 15.0
POLL_SECONDS = 1.0

# systemd would go by kexec if a kernel were loaded, and leave the kernel running if there were a
# user space to follow in /run/nextroot (systemctl(1)).
REBOOT = f"""\
{bootargs.PANIC_ENDS}
if [ -d /run/systemd/system ]; then
	SYSTEMCTL_SKIP_AUTO_KEXEC=1 SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT=1 systemctl reboot
else
	( sleep 1; sync; echo u > /proc/sysrq-trigger; exec reboot -f ) > /dev/null 2>&1 &
fi"""


class NotBack(HostLost):
    """A machine did not come back to its known-good kernel; the message says what was tried."""


def home(machine: Machine, ours: Tenancy) -> Running:
    """The known-good kernel that the machine runs, after it was brought back if need be."""
    with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
        now = running(shell)
    machine.say(f"runs {now.release}, boot {now.boot_id}")
    if not now.cell:
        return now
    machine.say("that is a kernel of a run that died")
    try:
        return bring_back(machine, ours, now, answers=True)
    except NotBack as exc:
        # Or each cell would try it again.
        give_up(machine, "in the kernel of a run that died", exc)


def give_up(machine: Machine, when: str, exc: NotBack) -> NoReturn:
    """Set the machine aside, and raise what it is set aside for; `when` is part of the reason."""
    try:
        aside.set_aside(machine.name, (f"{when}: {exc}",))
    except OSError as full:
        raise NotBack(f"{exc}; nor could it be set aside: {full}") from exc
    machine.say(f"set aside: {exc}")
    raise exc


@undisturbed()
def bring_back(
    machine: Machine,
    ours: Tenancy,
    left: Running,
    *,
    answers: bool,
    by_itself: bool = True,
    cold: bool = True,
) -> Running:
    """Start the machine from its firmware, and wait for a kernel in another boot than `left`.

    `answers` says whether its kernel is worth asking; else, or if that does not help, its power
    switch is. Without one there is panic= and a watchdog to hope for, and, unless `by_itself` is
    false, with one that does not obey as well: management controllers refuse to reset a machine
    that is off, so it is told to be on then. Some take a reset that does nothing: then, with
    `cold` and `by_itself`, the power goes off and on. Raises NotBack, and LeaseLost as soon as the
    machine is another's; one whose lease ran out while a reset was waited for is left as it is.
    """
    tried: list[str] = []

    def back(seen: Running) -> bool:
        return not seen.cell and seen.boot_id != left.boot_id

    def trouble(what: str, exc: InfraError) -> None:
        tried.append(f"{what}: {exc}")
        machine.say(tried[-1])

    for what, order in _ways(machine, ours, answers, cold=cold and by_itself):
        try:
            ours.check()
        except LeaseLost as exc:
            if what != COLD:
                raise
            trouble(what, exc)
            break
        try:
            ordered = order(back)
            machine.say(f"{what} ordered" if ordered else "it is back already")
        except LeaseLost:
            raise
        except InfraError as exc:
            trouble(what, exc)
            if what != "reset" or not by_itself:
                continue
            try:
                _switch_on(machine)
                machine.say("switched on, should it have been off")
            except InfraError as failed:
                trouble("power on", failed)
            what = "panic= or a watchdog"
        try:
            return _arrived(machine, ours, back)
        except LeaseLost:
            raise
        except InfraError as exc:
            trouble(_vain(what, exc, left), exc)
    raise NotBack(
        f"{machine.name} did not come back to its known-good kernel ({'; then '.join(tried)})"
    )


def _vain(what: str, exc: InfraError, left: Running) -> str:
    """In words, what was tried in vain; `left` is the boot that should have ended with it."""
    seen = exc.seen if isinstance(exc, NotBooted) else None
    if what == "reset" and seen is not None and seen.boot_id == left.boot_id:
        return "reset, which the power switch took and did not do"
    return what


def _arrived(machine: Machine, ours: Tenancy, back: Callable[[Running], bool]) -> Running:
    """The kernel that is `back`, once it is; whoever waits for it has the machine's lease again."""
    seconds = machine.host.back_seconds
    with ours.away(None, seconds), machine.booted(back, Deadline(seconds)) as (shell, seen):
        ours.hold(0)
        ours.renew(shell)
        machine.say(f"runs {seen.release}, boot {seen.boot_id}")
        return seen


def _switch_on(machine: Machine) -> None:
    if machine.host.power is not None:
        CommandPower(machine.name, machine.host.power).on(Deadline(POWER_SECONDS))


def _cycle(machine: Machine, switch: CommandPower) -> None:
    """Take the power away and give it back, which also starts a machine that was off."""
    try:
        switch.off(Deadline(POWER_SECONDS))
    except InfraError as exc:
        machine.say(f"power off: {exc}")
    else:
        deadline = Deadline(GONE_SECONDS)
        while _answers(machine) and not deadline.expired():
            time.sleep(POLL_SECONDS)
        time.sleep(OFF_SECONDS)
    # Whatever became of the first order: a machine that is left off is lost.
    switch.on(Deadline(POWER_SECONDS))


def _answers(machine: Machine) -> bool:
    try:
        with machine.shell(Deadline(FIRST_SECONDS)) as shell:
            running(shell)
    except InfraError:
        return False
    return True


def vain_seconds(host: SshHost) -> float:
    """For how long resets may be waited for in vain: the lease must hold on for what follows."""
    if host.power is None:
        return 0.0
    # An order may take its time, and a last look at the machine come after the time is over.
    once = POWER_SECONDS + host.back_seconds + LONGEST_SECONDS
    # By GRUB there may be a second one (way_back.py).
    return once * (2 if host.boot == "grub" else 1)


COLD = "power off and on"

Order = Callable[[Callable[[Running], bool]], bool]
"""Returns whether there was anything to order."""


def _ways(machine: Machine, ours: Tenancy, answers: bool, cold: bool) -> list[tuple[str, Order]]:
    power = machine.host.power

    def reboot(back: Callable[[Running], bool]) -> bool:
        deadline = Deadline(CONTACT_SECONDS)
        with machine.shell(deadline) as shell:
            if back(running(shell, deadline)):
                return False
            try:
                ours.renew(shell, machine.host.back_seconds + vain_seconds(machine.host))
            except LeaseLost:
                raise
            except InfraError as exc:
                # On a full disk; a reset would come without it as well, and without sync.
                if not shell.connected:
                    raise
                machine.say(f"lease not renewed: {exc}")
            try:
                shell.run(REBOOT, deadline)
            except InfraError:
                # The connection may go before the answer comes.
                if shell.connected:
                    raise
        return True

    def reset(_: object) -> bool:
        if power is not None:
            CommandPower(machine.name, power).reset(Deadline(POWER_SECONDS))
        return True

    def cycle(_: object) -> bool:
        if power is not None:
            _cycle(machine, CommandPower(machine.name, power))
        return True

    def wait(_: object) -> bool:
        return True

    ways: list[tuple[str, Order]] = [("reboot", reboot)] if answers else []
    if power is not None:
        return [*ways, ("reset", reset), *([(COLD, cycle)] if cold else [])]
    return [*ways, ("no power switch, so panic= or a watchdog", wait)]
