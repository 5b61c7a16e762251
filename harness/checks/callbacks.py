# SPDX-License-Identifier: GPL-2.0-only
"""Callbacks of stage-2 walks that a series has renamed: checks find them by what they are for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from harness.checks.overlap import AGE_CALLBACK, SET_FLAGS, UNMAP_CALLBACK
from harness.errors import ConnectionCut, HostDied, InfraError
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import callbacks
from harness.observe.unproven import Unproven

PAGES = 16
# What has it called back, of a guest all of whose pages are young and writable; in this order.
ACTS: Mapping[str, Callable[[Guest], object]] = {
    AGE_CALLBACK: lambda vm: vm.idle_mark(),
    SET_FLAGS: lambda vm: vm.dirty_log(on=True),
    UNMAP_CALLBACK: lambda vm: vm.advise("dontneed", range(PAGES)),
}


def learn(shell: Shell, start: Callable[..., Guest]) -> Mapping[str, str]:
    """What this kernel calls those of them that it has by no such name.

    Nothing of one that cannot be found, or that has another part as well; and nothing at all where
    that fails, of which the check that needs it will have its own word.
    """
    try:
        missing = callbacks.unlisted(shell, ACTS)
        found = _found(shell, start) if missing else {}
    except (HostDied, ConnectionCut):
        raise
    except (InfraError, Unproven):
        return {}
    parts = Counter(found.values())
    shown = {name: found[name] for name in missing}
    return {name: one for name, one in shown.items() if one and one not in ACTS and parts[one] == 1}


def _found(shell: Shell, start: Callable[..., Guest]) -> dict[str, str | None]:
    with start(pages=PAGES) as vm:
        vm.populate()
        vm.drain()
        acts = {name: partial(act, vm) for name, act in ACTS.items()}
        pid = vm.greeting.pid
        return {name: callbacks.called_back(shell, pid, act) for name, act in acts.items()}
