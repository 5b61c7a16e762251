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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HarnessError, HostDied, HostLost, InfraError
from harness.hosts import aside, bootargs, deploy, gate, grub, pstore, userspace, watchdog
from harness.hosts.at_home import at_home
from harness.hosts.console import Console, panic_in
from harness.hosts.console_command import Recording, recording
from harness.hosts.examine import say_until_seen
from harness.hosts.health import Health
from harness.hosts.leasing import LeaseLost
from harness.hosts.machine import LONGEST_SECONDS, MARK, Machine, NotBooted, Running
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Boot, Shell
from harness.hosts.recovery import REBOOT, NotBack, bring_back
from harness.hosts.rehearsal import rehearse, require_same
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.ssh import SshShell
from harness.hosts.tenancy import Tenancy
from harness.hosts.undisturbed import undisturbed
from harness.hosts.watched import WatchedShell
from harness.inventory import SshHost
from harness.printable import printable
from harness.splatlog import FIRST_LINE, whole_text

# Files in the cell's folder: the console on the way there, in the kernel that is tested, on the way
# back; what was done to the machine; what a crash left; what is not as it was.
BEFORE, CONSOLE, AFTER = "console-before.log", "console.log", "console-after.log"
DIARY = "machine.txt"
PSTORE = "pstore"
LEFT = "left-behind.txt"

IMAGE = f"{PROGRAMS}/Image"
# For a machine whose connection was lost to be found again.
AGAIN_SECONDS = 60.0
# Returns at once; the shell that asked ends in order. systemd stops services and unmounts first.
JUMP = """\
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


@dataclass
class _Trip:
    """How far a machine has gone from its known-good kernel."""

    good: Running
    jumped: bool = False
    cell: str = field(default_factory=lambda: secrets.token_hex(8))
    """The mark of this boot, which no other has."""

    def begun(self, console: str) -> bool:
        """Whether the kernel of this trip has said anything; before it, another shuts down."""
        return FIRST_LINE in console or self.cell in console

    def arrived(self, seen: Running) -> bool:
        """Whether a machine runs the kernel of this trip; HostDied if it has gone past it."""
        if seen.cell == self.cell:
            return True
        if seen.boot_id != self.good.boot_id:
            raise HostDied("gone", f"the machine is in another boot already, of {seen.release}")
        return False


class _Tape:
    """What the machine's console says, in one file for each leg of the trip."""

    def __init__(self, folder: Path, recording: Recording | None) -> None:
        self._folder = folder
        self._recording = recording

    def next(self, name: str) -> Path:
        """Go on in another file; it stays empty where the inventory has no command."""
        path = self._folder / name
        path.touch()
        if self._recording is not None:
            self._recording.switch(path)
        return path

    def ended(self) -> InfraError | None:
        """Why nothing is recorded any more, if that is so."""
        return self._recording.ended() if self._recording is not None else None


@contextlib.contextmanager
def boot(name: str, host: SshHost, wanted: Boot) -> Iterator[LabHost]:
    """The machine `name` while it runs `wanted.kernel`, and its owner's kernel again afterwards.

    HostDied if that kernel panics or hangs. HostLost if the machine is not to be had or not fit, if
    it does not come back, or is another's.
    """
    diary = _diary(wanted.folder / DIARY)
    with contextlib.ExitStack() as stack:
        with _to_be_had():
            machine, ours, good = stack.enter_context(
                at_home(name, host, wanted.run, wanted.wait, diary)
            )
            with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
                ours.check()
                _clear(shell)
                before = gate.admit(name, shell)
                crashes = pstore.names(shell)
            trip = _Trip(rehearse(machine, ours, good))

        def tidy() -> None:
            _tidy(machine, ours, wanted, before, crashes)

        tape = stack.enter_context(_taped(host, wanted.folder))
        stack.enter_context(_and_back(machine, ours, trip, tape, tidy))
        yield from _there(machine, ours, trip, tape, wanted, before)


@contextlib.contextmanager
def _to_be_had() -> Iterator[None]:
    """Whatever goes wrong before anything is put on the machine is none of the cell's doing."""
    try:
        yield
    except HarnessError as exc:
        raise HostLost(str(exc), "unavailable") from exc


def _diary(path: Path) -> Callable[[str], None]:
    """Writes lines with the seconds since now."""
    started = time.monotonic()

    def say(words: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{time.monotonic() - started:8.2f} {printable(words)}\n")

    return say


@contextlib.contextmanager
def _taped(host: SshHost, folder: Path) -> Iterator[_Tape]:
    if host.console is None:
        yield _Tape(folder, None)
        return
    with recording(host.console, folder / BEFORE) as made:
        yield _Tape(folder, made)


# ---- there --------------------------------------------------------------------------------------


def _there(
    machine: Machine, ours: Tenancy, trip: _Trip, tape: _Tape, wanted: Boot, before: Health
) -> Iterator[LabHost]:
    """Jump into the kernel, and give the machine to whoever wants it."""
    with contextlib.ExitStack() as stack:
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            if machine.host.console is not None:
                with Console(wanted.folder / BEFORE, tape.ended) as console:
                    say_until_seen(shell, console, secrets.token_hex(8))
            initrd = _deployed(shell, machine, wanted)
            machine.say("copying the kernel")
            cmdline = _cmdline(machine.host, trip, wanted, before.cpus)
            chosen = None
            if machine.host.boot == "grub":
                chosen = grub.load(shell, ours, wanted.kernel, initrd, cmdline)
            else:
                _load(shell, ours, initrd, wanted, cmdline)
            console = stack.enter_context(Console(tape.next(CONSOLE), tape.ended))
            ours.hold(_unnoticed(wanted), wanted.slowdown)
            with ours.away(shell, wanted.seconds + LONGEST_SECONDS * wanted.slowdown):
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


def _cmdline(host: SshHost, trip: _Trip, wanted: Boot, cpus: int) -> str:
    isolated = bootargs.tickless(cpus) if wanted.tickless else ()
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


def _clear(shell: Shell) -> None:
    """Remove what any cell may have put on the machine, this one's or that of a run that died."""
    grub.clear(shell)
    userspace.clear(shell)
    deploy.clear(shell, PROGRAMS)


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


def _before(host: SshHost, trip: _Trip, exc: HostDied, console: str) -> bool:
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
    trip: _Trip,
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


# ---- and back -----------------------------------------------------------------------------------


@contextlib.contextmanager
def _and_back(
    machine: Machine, ours: Tenancy, trip: _Trip, tape: _Tape, tidy: Callable[[], None]
) -> Iterator[None]:
    """Whatever happens in the block, the machine is home after it, or set aside."""
    failure: BaseException | None = None
    try:
        yield
    except BaseException as exc:
        failure = exc
    with undisturbed():
        machine.say(f"the cell ended{f': {failure}' if failure is not None else ''}")
        log = tape.next(AFTER) if trip.jumped else None
        if log is not None:
            try:
                _bring_home(machine, ours, trip, failure)
            except (LeaseLost, NotBack) as exc:
                raise _both(failure, exc) from failure
            failure = failure or _down(machine, log)
        try:
            tidy()
        except InfraError as exc:
            raise _both(failure, _up(exc, log)) from failure
    if failure is not None:
        raise failure


def _bring_home(
    machine: Machine, ours: Tenancy, trip: _Trip, failure: BaseException | None
) -> None:
    silent = isinstance(failure, HostDied | DeadlineExceeded)
    try:
        answers = not silent or machine.host.power is None
        try:
            back = bring_back(machine, ours, trip.good, answers=answers)
        except NotBack:
            if machine.host.boot == "kexec":
                raise
            # It may have hung before it went: then its first start was that of GRUB's entry.
            back = bring_back(machine, ours, trip.good, answers=True)
        require_same(machine, trip.good, back)
    except NotBack as exc:
        after = f"after {failure}" if failure is not None else "after a cell"
        aside.set_aside(machine.name, (f"{after}: {exc}",))
        machine.say(f"set aside: {exc}")
        raise


def _down(machine: Machine, log: Path) -> HostDied | None:
    """What the kernel of the cell has to answer for that panicked when it was to end."""
    down, _, _ = whole_text(log).partition(FIRST_LINE)
    line = panic_in(down)
    if line is None:
        return None
    return HostDied("panic", f"{machine.name} panicked on its way down: {line} ({log})")


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


def _tidy(
    machine: Machine, ours: Tenancy, wanted: Boot, before: Health, crashes: frozenset[str]
) -> None:
    """Leave the machine as it was; what a crash has left, and what is not as it was, is kept.

    LeaseLost if it is another's: then what is there is theirs.
    """
    with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
        ours.check()
        _clear(shell)
        pstore.collect(shell, crashes, wanted.folder / PSTORE)
        left = gate.dismiss(machine.name, shell, before)
    machine.say("nothing of the cell is left on it")
    if left:
        (wanted.folder / LEFT).write_text("".join(f"{line}\n" for line in left))
