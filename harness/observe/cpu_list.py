# SPDX-License-Identifier: GPL-2.0-only
"""The CPUs of a host by their numbers, as the kernel lists them ("0-3,8-11").

Their numbers need not follow each other: CPUs may be offline, and what a shell of ours starts may
be kept to a cpuset.
"""

from __future__ import annotations

import re

from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError, shown
from harness.ranges import parse_ranges

# Five digits, so that no host can ask for a set that fills the memory.
_LIST = re.compile(r"(?:[0-9]{1,5}(?:-[0-9]{1,5})?(?:,(?!$)|$))+", re.ASCII)
_ALLOWED = re.compile(r"^Cpus_allowed_list:\t(.*)$", re.MULTILINE)
ONLINE = "/sys/devices/system/cpu/online"


def parse(text: str, source: str) -> tuple[int, ...]:
    """The CPUs of a list, rising; none for an empty one, which nohz_full may be.

    ObserveError names `source` for what is none (Documentation/admin-guide/cputopology.rst).
    """
    text = text.strip()
    if not text or text == "(null)":
        return ()
    try:
        if _LIST.fullmatch(text):
            return tuple(sorted(parse_ranges(text)))
    except ValueError:
        pass
    raise ObserveError(source, 1, f"not a list of CPUs: {shown(text)}")


def allowed(status: str) -> tuple[int, ...]:
    """Where a task may run, of its /proc/PID/status; ObserveError if it does not say."""
    found = _ALLOWED.search(status)
    cpus = parse(found[1], "Cpus_allowed_list") if found else ()
    if not cpus:
        raise ObserveError("/proc/self/status", 0, "names no CPU")
    return cpus


def usable(shell: Shell) -> tuple[int, ...]:
    """The CPUs on which a program of ours can be put, rising; isolated ones are among them.

    Who asks for all that are online is given those that its cpuset has (sched_setaffinity(2)).
    """
    return allowed(shell.run(f"taskset -c $(cat {ONLINE}) cat /proc/self/status").stdout)


def last(shell: Shell) -> int:
    """The last one of these: the one without a tick, where the harness has booted the host."""
    return usable(shell)[-1]
