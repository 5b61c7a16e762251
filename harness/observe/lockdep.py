# SPDX-License-Identifier: GPL-2.0-only
"""Whether lockdep still watches: after its first report, or when it runs out of room, it stops."""

from __future__ import annotations

import re

from harness.observe.errors import ObserveError

# Only in a kernel with CONFIG_LOCKDEP; kernel/locking/lockdep_proc.c.
STATS = "/proc/lockdep_stats"
_DEBUG_LOCKS = re.compile(r"^ debug_locks: +(?P<value>[01])$", re.MULTILINE)


def armed(text: str) -> bool:
    """What /proc/lockdep_stats says of debug_locks."""
    found = _DEBUG_LOCKS.search(text)
    if found is None:
        raise ObserveError(STATS, 0, "it does not tell of debug_locks")
    return found["value"] == "1"
