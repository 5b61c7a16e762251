# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel on a machine of the lab, by kexec out of its known-good one, and come back.

The firmware, its settings and what the boot loader starts by default are never touched: whatever
goes wrong, the machine's next start ends in the kernel that its owner gave it. (With `boot: grub`
GRUB is told to start the kernel once, instead of the kexec.) The order is what makes it safe:

    lease       nobody else uses the machine, and others see who does
    home        it runs its known-good kernel, and nothing of a dead run is left on it
    health      it is well, and nobody is at work on it
    rehearsal   it is known to come back from the firmware, shown once for each known-good kernel
    jump        with panic= on the command line, the console recorded from before, and the
                machine's watchdog armed, if it has one that runs on
    proof       it answers, in another boot, with this cell's mark on its command line
    home        by reboot, or by its power switch if it does not answer; proven in the same way

A machine that does not get home is set aside, with the reason.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.errors import HarnessError, HostDied, HostLost, InfraError
from harness.hosts import away, bootargs, deploy, gate, grub, pstore, userspace, watchdog
from harness.hosts.at_home import at_home
from harness.hosts.console import Console
from harness.hosts.diary import Diary
from harness.hosts.examine import say_until_seen
from harness.hosts.fitness import PROTECTED
from harness.hosts.health import Health
from harness.hosts.machine import LONGEST_SECONDS, MARK, Machine, NotBooted, Running
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Boot, Shell
from harness.hosts.recovery import REBOOT, vain_seconds
from harness.hosts.rehearsal import rehearse
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.ssh import SshShell
from harness.hosts.tenancy import Tenancy
from harness.hosts.tidy import clear, tidy
from harness.hosts.trip import BEFORE, CONSOLE, Tape, Trip, taped
from harness.hosts.watched import WatchedShell
from harness.hosts.way_back import and_back
from harness.inventory import SshHost

# Of the cell's folder: what was done to the machine.
DIARY = "machine.txt"

IMAGE = f"{PROGRAMS}/Image"
# For a machine whose connection was lost to be found again.
AGAIN_SECONDS = 60.0
# Returns at once; the shell that asked ends in order. systemd stops services and unmounts first.
JUMP = f"""\
{bootargs.PANIC_ENDS}
if [ -d /run/systemd/system ]; then
	systemctl kexec
else
	( sleep 1; sync; echo u > /proc/sysrq-trigger; exec kexec -e ) > /dev/null 2>&1 &
fi"""


@dataclass(frozen=True)
class LabHost:
    """A machine that runs a kernel of ours."""

    console: Console
    shell: Shell
    boot_seconds: float


@contextlib.contextmanager
def boot(name: str, host: SshHost, wanted: Boot) -> Iterator[LabHost]:
    """The machine `name` while it runs `wanted.kernel`, and its owner's kernel again afterwards.

    HostDied if that kernel panics or hangs. HostLost if the machine is not to be had or not fit, if
    it does not come back, or is another's.
    """
    diary = Diary(wanted.folder / DIARY)
    with contextlib.ExitStack() as stack:
        with _to_be_had():
            machine, ours, good = stack.enter_context(
                at_home(name, host, wanted.run, wanted.wait, diary)
            )
            _require_el2(host, good)
            with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
                ours.check()
                clear(shell)
                before = gate.admit(name, shell)
                crashes = pstore.names(shell)
            trip = Trip(rehearse(machine, ours, good))
            stack.enter_context(away.answered_for(name))

        def tidied() -> None:
            tidy(machine, ours, wanted, before, crashes)

        diary.check()
        tape = stack.enter_context(taped(host, wanted.folder))
        stack.enter_context(and_back(machine, ours, trip, tape, tidied))
        yield from _there(machine, ours, trip, tape, wanted, before)
    diary.check()


@contextlib.contextmanager
def _to_be_had() -> Iterator[None]:
    """Whatever goes wrong before anything is put on the machine is none of the cell's doing."""
    try:
        yield
    except HarnessError as exc:
        raise HostLost(str(exc), "unavailable") from exc


def _require_el2(host: SshHost, good: Running) -> None:
    """InfraError for a known-good kernel whose hypervisor keeps EL2 across a kexec."""
    if host.boot == "kexec" and bootargs.protected(good.cmdline):
        raise InfraError(PROTECTED)


def _there(
    machine: Machine, ours: Tenancy, trip: Trip, tape: Tape, wanted: Boot, before: Health
) -> Iterator[LabHost]:
    """Jump into the kernel, and give the machine to whoever wants it."""
    with contextlib.ExitStack() as stack:
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            if machine.host.console is not None:
                with Console(wanted.folder / BEFORE, tape.ended) as console:
                    say_until_seen(shell, console, secrets.token_hex(8))
            initrd = _deployed(shell, machine, wanted)
            machine.say("copying the kernel")
            cmdline = _cmdline(machine.host, trip, wanted, before.cpus[-1])
            chosen = None
            if machine.host.boot == "grub":
                chosen = grub.load(shell, ours, wanted.kernel, initrd, cmdline)
            else:
                _load(shell, ours, initrd, wanted, cmdline)
            console = stack.enter_context(Console(tape.next(CONSOLE), tape.ended))
            vain = vain_seconds(machine.host)
            ours.hold(_unnoticed(wanted) + vain, wanted.slowdown)
            # One that never comes up is renewed by nobody either, until its last resort has helped.
            with ours.away(shell, wanted.seconds + LONGEST_SECONDS * wanted.slowdown + vain):
                away.note(machine, ours, trip.good)
                if chosen is not None:
                    # Not before: from here on the next start is the kernel's, whoever orders it.
                    grub.choose(shell, chosen)
                started = time.monotonic()
                trip.jumped = True
                if machine.host.watchdog:
                    watchdog.arm(shell)
                    machine.say("watchdog armed")
                if chosen is not None:
                    shell.run(REBOOT)
                    machine.say("start by GRUB ordered")
                else:
                    shell.run(JUMP)
                    machine.say("kexec ordered")
                try:
                    there, _ = stack.enter_context(
                        machine.booted(
                            trip.arrived, Deadline(wanted.seconds), console.check, wanted.slowdown
                        )
                    )
                except HostDied as exc:
                    if _before(machine.host, trip, exc, console.text()):
                        raise InfraError(f"before the kernel of the cell began: {exc}") from exc
                    raise
                except NotBooted as exc:
                    if exc.seen is not None:
                        _forget(machine)
                        raise InfraError(f"the jump into the kernel did not happen: {exc}") from exc
                    died = console.hung(str(exc))
                    if _before(machine.host, trip, died, console.text()):
                        raise InfraError(f"before the kernel of the cell began: {died}") from exc
                    raise died from exc
        seconds = round(time.monotonic() - started, 3)
        machine.say("runs the kernel of the cell")
        # At once: where files do not outlive a boot, nobody sees until then whose it is.
        ours.renew(there)
        if chosen is not None:
            grub.require_taken(there, chosen)

        def again(trouble: Exception) -> SshShell:
            found = _found_again(machine, trip, stack, console, wanted.slowdown, trouble)
            stack.enter_context(watchdog.fed(found, armed=machine.host.watchdog))
            return found

        stack.enter_context(watchdog.fed(there, armed=machine.host.watchdog))
        userspace.prepare(there, wanted.programs)
        yield LabHost(console, WatchedShell(there, again, wanted.slowdown), seconds)


def _unnoticed(wanted: Boot) -> float:
    """Seconds for which the kernel may have hung before the machine is brought home for it."""
    return wanted.longest + (2 * LONGEST_SECONDS + AGAIN_SECONDS) * wanted.slowdown


def _cmdline(host: SshHost, trip: Trip, wanted: Boot, last: int) -> str:
    isolated = bootargs.tickless(last) if wanted.tickless else ()
    # On the way home it must not run on: the firmware may take longer than it waits.
    stop = ("watchdog.stop_on_reboot=1",) if host.watchdog else ()
    ours = (f"{MARK}{trip.cell}", *stop, *isolated, *wanted.cmdline)
    return bootargs.of_machine(trip.good.cmdline, ours)


def _deployed(shell: Shell, machine: Machine, wanted: Boot) -> str | None:
    """Put the kernel's modules on the machine; the initramfs that it starts with, None for none.

    One that the inventory names is its owner's word; else one is made with these modules.
    """
    named = machine.host.initrd
    if wanted.modules is None:
        return named
    machine.say(f"deploying modules of {wanted.release}")
    made = deploy.deploy(shell, wanted.modules, wanted.release, PROGRAMS, make=named is None)
    if made is not None:
        machine.say("initramfs made")
    return named or made


def _load(shell: Shell, ours: Tenancy, initrd: str | None, wanted: Boot, cmdline: str) -> None:
    """Have the running kernel keep the other one ready."""
    shell.run(f"mkdir -p {PROGRAMS}")
    shell.put(wanted.kernel, IMAGE)
    # The copy may have taken minutes.
    ours.check()
    given = f" --initrd={shlex.quote(initrd)}" if initrd else ""
    # -a: by kexec_file_load(2) if the kernel has it, else by kexec_load(2).
    shell.run(
        f"kexec -a -l {IMAGE}{given} --command-line={shlex.quote(cmdline)} && rm {IMAGE} && "
        "grep -qx 1 /sys/kernel/kexec_loaded"
    )


def _forget(machine: Machine) -> None:
    """A machine that stayed must not start GRUB's entry next, nor be reset by its watchdog."""
    try:
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            if machine.host.boot == "grub":
                grub.clear(shell)
            if machine.host.watchdog:
                watchdog.disarm(shell)
                machine.say("watchdog disarmed")
    except InfraError as exc:
        machine.say(f"not undone: {exc}")


def _before(host: SshHost, trip: Trip, exc: HostDied, console: str) -> bool:
    """Whether the machine died, or went elsewhere, before the kernel of the trip had begun.

    A jump into another boot is that kernel's doing; GRUB, which may start what it likes, is not,
    nor is a watchdog that was armed before its owner's kernel had shut down.
    """
    elsewhere = ("gone", "hang") if host.boot == "grub" else ("gone",) if host.watchdog else ()
    if host.console is not None and exc.kind in elsewhere:
        return trip.cell not in console
    return exc.kind == "panic" and not trip.begun(console)


def _found_again(
    machine: Machine,
    trip: Trip,
    stack: contextlib.ExitStack,
    console: Console,
    slowdown: float,
    trouble: Exception,
) -> SshShell:
    """A new shell where one was lost, if the machine still runs the kernel; else HostDied."""
    deadline = Deadline(AGAIN_SECONDS * slowdown)
    try:
        shell, now = stack.enter_context(
            machine.booted(lambda _: True, deadline, console.check, slowdown)
        )
    except NotBooted as exc:
        raise console.hung(f"{trouble}; {exc}") from exc
    if now.cell != trip.cell:
        raise HostDied("gone", f"{trouble}; the machine is in another boot by now: {now.release}")
    return shell
