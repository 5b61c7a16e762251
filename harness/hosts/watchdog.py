# SPDX-License-Identifier: GPL-2.0-only
"""Keep a watchdog of the machine's quiet for as long as its kernel, this process and the way
between them live (Documentation/watchdog/watchdog-api.rst).

If one of them dies, the machine starts again by itself, into its known-good kernel. Most drivers
stop their device before a kexec, so it is started in the kernel that is tested: a kernel that hangs
before that is for the power switch. A machine without a driver for one in that kernel has none.

Where the inventory says so, it is armed before the jump as well. Its owner's kernel must be told to
leave it running (watchdog.stop_on_reboot=0, drivers/watchdog/watchdog_core.c), and the kernel that
is tested needs its driver, or it would be reset though it is well. What a driver does to a device
that runs when it finds it differs: that of the i6300ESB stops it until it is opened.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Shell

# Some devices wait no longer than 10 s.
EVERY_SECONDS = 2.0
ARM_SECONDS = 30.0
WAIT_SECONDS = 60
# Closed without the letter V, so that the end of this program does not stop the watchdog. Where
# somebody else has it, systemd say, it is theirs. A feeder of ours whose connection was cut has it
# until its sshd knows of that, but feeds it no more: it has to go.
_PID = "/run/kvm-harness-watchdog.pid"
# Nobody feeds it while the kernel's services stop, on its way home, or while the network is gone:
# some drivers wait for 10 s unless they are told (wdctl(8)).
_FEED = f"""\
[ -c /dev/watchdog ] || exit
old=$(cat {_PID} 2> /dev/null) && grep -qs /dev/watchdog "/proc/$old/cmdline" &&
	kill -9 "$old" && sleep 1
echo $$ > {_PID}
wdctl --settimeout {WAIT_SECONDS} /dev/watchdog > /dev/null 2>&1
exec 3> /dev/watchdog && echo armed &&
	while read -r _; do echo . >&3; done"""


_STOP_ON_REBOOT = "/sys/module/watchdog/parameters/stop_on_reboot"
_STATE = "/sys/class/watchdog/watchdog0/state"
_IDENTITY = "/sys/class/watchdog/watchdog0/identity"
_FIT = f"""\
grep -qsx 0 {_STOP_ON_REBOOT} || {{
	echo "the machine's own kernel needs watchdog.stop_on_reboot=0 to leave it running" >&2
	exit 1
}}
[ -c /dev/watchdog ] || {{ echo "there is no /dev/watchdog" >&2; exit 1; }}
! grep -qsx "Software Watchdog" {_IDENTITY} || {{
	echo "it is softdog, which goes with its kernel" >&2
	exit 1
}}"""
_ARM = f"""{_FIT}
echo . > /dev/watchdog
# A driver may stop it when the file is closed, whatever it was written.
state={_STATE}
[ ! -e $state ] || grep -qx active $state || {{ echo "it does not stay armed" >&2; exit 1; }}"""

# V is the magic that lets a driver stop it, unless that has nowayout.
_DISARM = f"""\
[ ! -c /dev/watchdog ] || printf V > /dev/watchdog
! grep -qsx active {_STATE} || {{ echo "it does not let itself be stopped" >&2; exit 1; }}"""


def unfit(shell: Shell) -> str:
    """Why it cannot be armed before a jump out of the kernel that runs, as far as reading tells."""
    return shell.run(_FIT, check=False).stderr.strip()[-300:]


def arm(shell: Shell) -> None:
    """Start it in the known-good kernel, right before a jump; InfraError if that cannot be.

    From then on the machine is reset unless its next kernel comes as far as fed().
    """
    done = shell.run(_ARM, check=False)
    if done.status != 0:
        raise InfraError(f"the watchdog cannot be armed: {done.stderr.strip()[-300:]}")


def disarm(shell: Shell) -> None:
    """Stop it again in a kernel that was not left; InfraError if it runs on."""
    done = shell.run(_DISARM, check=False)
    if done.status != 0:
        raise InfraError(f"the watchdog runs on: {done.stderr.strip()[-300:]}")


@contextlib.contextmanager
def fed(shell: Shell, every: float = EVERY_SECONDS, *, armed: bool = False) -> Iterator[None]:
    """Arm it, and feed it from a thread until the end of the block, or the first trouble.

    InfraError if it was `armed` before the jump, and this kernel has none.
    """
    stop = threading.Event()
    process = shell.start(["sh", "-c", _FEED])
    try:
        process.receive(Deadline(ARM_SECONDS))
    except EOFError as exc:
        if armed:
            raise InfraError(
                "the watchdog was armed before the jump, and this kernel has no driver for it"
            ) from exc
        # There is none for us.
        yield
        return

    def feed() -> None:
        with contextlib.suppress(InfraError):
            while not stop.is_set():
                process.send("")
                stop.wait(every)

    thread = threading.Thread(target=feed, name="watchdog", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        process.close()
