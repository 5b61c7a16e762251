# SPDX-License-Identifier: GPL-2.0-only
"""A memcg for a Linux guest: QEMU starts in it, so that all of its memory is charged to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.mglru import CGROUP, Memcg
from harness.checks.undo import undone
from harness.hosts.protocols import Shell

# Tries to remove it, a tenth of a second apart: what is killed takes a moment to go.
TRIES = 100


@contextlib.contextmanager
def memcg(shell: Shell, slowdown: float) -> Iterator[Memcg]:
    """A memcg to start one guest in; it is gone afterwards, with whatever is in it still."""
    shell.run(f"mkdir {CGROUP}")
    with undone(lambda: _remove(shell, slowdown)):
        yield Memcg(shell, files=False)


def _remove(shell: Shell, slowdown: float) -> None:
    """Kill what is left in it (cgroup-v2.rst, cgroup.kill), and remove it when that has gone.

    Nothing is left of a guest that was ended as it should; a QEMU whose holder was killed dies by
    itself, but nobody has waited for it.
    """
    shell.run(
        f"echo 1 > {CGROUP}/cgroup.kill; i=0; until rmdir {CGROUP}; do "
        f"i=$((i + 1)); [ $i -lt {TRIES * slowdown:.0f} ] || exit 1; sleep 0.1; done"
    )
