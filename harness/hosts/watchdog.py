# SPDX-License-Identifier: GPL-2.0-only
"""Keep a watchdog of the machine's quiet for as long as its kernel, this process and the way
between them live (Documentation/watchdog/watchdog-api.rst).

If one of them dies, the machine starts again by itself, into its known-good kernel. Most drivers
stop their device before a kexec, so it is started in the kernel that is tested: a kernel that hangs
before that is for the power switch. A machine without a driver for one in that kernel has none.
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
# Closed without the letter V, so that the end of this program does not stop the watchdog. Where
# somebody else has it, systemd say, it is theirs. A feeder of ours whose connection was cut has it
# until its sshd knows of that, but feeds it no more: it has to go.
_PID = "/run/kvm-harness-watchdog.pid"
_FEED = f"""\
[ -c /dev/watchdog ] || exit
old=$(cat {_PID} 2> /dev/null) && grep -qs /dev/watchdog "/proc/$old/cmdline" &&
	kill -9 "$old" && sleep 1
echo $$ > {_PID}
exec 3> /dev/watchdog && echo armed &&
	while read -r _; do echo . >&3; done"""


@contextlib.contextmanager
def fed(shell: Shell, every: float = EVERY_SECONDS) -> Iterator[None]:
    """Arm it, and feed it from a thread until the end of the block, or the first trouble."""
    stop = threading.Event()
    process = shell.start(["sh", "-c", _FEED])
    try:
        process.receive(Deadline(ARM_SECONDS))
    except EOFError:
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
