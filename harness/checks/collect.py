# SPDX-License-Identifier: GPL-2.0-only
"""What every check leaves behind: counters and kernel log before and after it.

One snapshot lies between two checks and serves both, since nothing happens there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from harness.hosts.protocols import Shell
from harness.observe.collect import Snapshot, snapshot


@dataclass(frozen=True)
class Taken:
    """A snapshot and all of the kernel's log up to it."""

    snapshot: Snapshot
    log: str = field(repr=False)


class Collector:
    """Takes snapshots of one host."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._last: Taken | None = None

    def before(self) -> Taken:
        """The snapshot that the last check left, or a first one."""
        return self._last or self.after()

    def after(self) -> Taken:
        """A new snapshot."""
        self._last = Taken(snapshot(self._shell), self._shell.run("dmesg").stdout)
        return self._last


def evidence(before: Taken, after: Taken) -> dict[str, str]:
    """The files to keep: raw texts, typed values of both moments, and the new part of the log."""
    values = {
        source: {
            name: [first.get(name), last.get(name)]
            for name in sorted({*first, *last})
            if first.get(name) != last.get(name)
        }
        for source, first, last in (
            ("vmstat", before.snapshot.vmstat, after.snapshot.vmstat),
            ("meminfo", before.snapshot.meminfo, after.snapshot.meminfo),
            ("kvm", before.snapshot.kvm.counters, after.snapshot.kvm.counters),
        )
    }
    enabled = [int(taken.snapshot.lru_enabled) for taken in (before, after)]
    return {
        "before.txt": _raw(before),
        "after.txt": _raw(after),
        "changes.json": json.dumps({**values, "lru_gen_enabled": enabled}, indent=1) + "\n",
        "dmesg.txt": new_part(before.log, after.log),
    }


def new_part(before: str, after: str) -> str:
    """What a log has gained; all of it if its buffer has wrapped in between."""
    return after.removeprefix(before) if after.startswith(before) else after


def _raw(taken: Taken) -> str:
    return "".join(f"==> {name} <==\n{text}\n" for name, text in taken.snapshot.raw.items())
