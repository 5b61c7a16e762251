# SPDX-License-Identifier: GPL-2.0-only
"""Whether lockdep still watches: after its first report, or when it runs out of room, it stops.

And who takes a lock, by the tracepoint that comes with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from harness.observe.errors import ObserveError, shown
from harness.observe.trace import Event

# Only in a kernel with CONFIG_LOCKDEP; kernel/locking/lockdep_proc.c.
STATS = "/proc/lockdep_stats"
_DEBUG_LOCKS = re.compile(r"^ debug_locks: +(?P<value>[01])$", re.MULTILINE)


# Each acquisition of a lock, with its name (include/trace/events/lock.h); needs lockdep.
ACQUIRE = "lock:lock_acquire"
# Each release, with the name.
RELEASE = "lock:lock_release"
# The name that KVM gives its MMU lock (virt/kvm/kvm_main.c: KVM_MMU_LOCK_INIT).
MMU_LOCK = 'name ~ "*mmu_lock"'
_ACQUIRED = re.compile(r"(?:0x)?[0-9a-f]{1,16} (?:try )?(?P<read>read )?\S{1,80}")


def by_access(texts: Iterable[str]) -> tuple[int, int]:
    """How many acquisitions were for writing, and how many for reading, by their events' texts."""
    number = [0, 0]
    for text in texts:
        found = _ACQUIRED.fullmatch(text.rstrip())
        if found is None:
            raise ObserveError(ACQUIRE, 0, f"not an acquisition: {shown(text)}")
        number[found["read"] is not None] += 1
    return number[0], number[1]


@dataclass(frozen=True)
class Taken:
    """How often a lock was taken for writing and for reading, in the course of so many causes."""

    causes: int
    write: int
    read: int


def taken_by(cause: str, events: Iterable[Event]) -> Taken:
    """The acquisitions that follow an event of the name `cause` on its thread.

    `events` are in order of time, acquisitions among them. Another event of the same thread ends
    what its cause is to blame for, so whatever begins something else must be among them too.
    """
    causes = 0
    at: dict[int, str] = {}
    texts = []
    for event in events:
        if event.name != ACQUIRE:
            at[event.pid] = event.name
            causes += event.name == cause
        elif at.get(event.pid) == cause:
            texts.append(event.text)
    return Taken(causes, *by_access(texts))


def longest_hold(cause: str, visit: str, events: Iterable[Event]) -> int:
    """The most events `visit` of a thread while it holds the lock once that it took for `cause`.

    `events` are in order of time, acquisitions and releases among them, as for taken_by().
    """
    at: dict[int, str] = {}
    held: dict[int, int] = {}
    most = 0
    for event in events:
        if event.name == ACQUIRE:
            if at.get(event.pid) == cause:
                held[event.pid] = 0
        elif event.name == RELEASE:
            held.pop(event.pid, None)
        elif event.name != visit:
            at[event.pid] = event.name
        elif event.pid in held:
            held[event.pid] += 1
            most = max(most, held[event.pid])
    return most


def armed(text: str) -> bool:
    """What /proc/lockdep_stats says of debug_locks."""
    found = _DEBUG_LOCKS.search(text)
    if found is None:
        raise ObserveError(STATS, 0, "it does not tell of debug_locks")
    return found["value"] == "1"
