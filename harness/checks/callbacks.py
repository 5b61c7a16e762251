# SPDX-License-Identifier: GPL-2.0-only
"""Callbacks of stage-2 walks that a series has renamed: checks find them by what they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from harness.checks.overlap import AGE_CALLBACK, SET_FLAGS, UNMAP_CALLBACK
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import callbacks

PAGES = 16
# What has it called back, of a guest all of whose pages are young and writable; in this order.
ACTS: Mapping[str, Callable[[Guest], object]] = {
    AGE_CALLBACK: Guest.idle_mark,
    SET_FLAGS: lambda vm: vm.dirty_log(on=True),
    UNMAP_CALLBACK: lambda vm: vm.advise("dontneed", range(PAGES)),
}


def learn(shell: Shell, start: Callable[..., Guest]) -> Mapping[str, str]:
    """What this kernel calls those of them that it has by no such name; from now on probes know.

    One that cannot be found, or that has a part of its own beside, stays unknown.
    """
    missing = callbacks.unlisted(shell, ACTS)
    if not missing:
        return {}
    with start(pages=PAGES) as vm:
        vm.populate()
        vm.drain()
        acts = {name: partial(act, vm) for name, act in ACTS.items()}
        found = {name: callbacks.called_back(shell, act) for name, act in acts.items()}
    taken = {one for name, one in found.items() if name not in missing}
    aliases = {name: one for name in missing if (one := found[name]) and one not in taken}
    callbacks.remember(shell, aliases)
    return aliases
