# SPDX-License-Identifier: GPL-2.0-only
"""What a process allocated for each CPU, alloc_percpu(), and nobody has freed.

It is in no memcg unless it is asked for, and in the Percpu line of /proc/meminfo by whole pages:
the trace alone tells of each (include/trace/events/percpu.h).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from harness.observe.trace import PERCPU_ALLOC, PERCPU_FREE, Event

_SITE = re.compile(r"call_site=(?P<function>[A-Za-z0-9_.]{1,126})")


def kept(events: Iterable[Event]) -> Mapping[str, int]:
    """Function -> how many of its allocations no event frees; events in the order of time."""
    live: dict[int, str] = {}
    for event in events:
        pointer = event.fields["ptr"]
        if event.name == PERCPU_ALLOC:
            found = _SITE.match(event.text)
            live[pointer] = found["function"] if found else "an unknown function"
        elif event.name == PERCPU_FREE:
            live.pop(pointer, None)
    return Counter(live.values())
