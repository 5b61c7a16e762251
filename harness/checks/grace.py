# SPDX-License-Identifier: GPL-2.0-only
"""Have grace periods of RCU end at once, where a check only waits for them.

Each VM that is made or ended waits for several. What is freed after one is freed as late in the
order of things, only sooner (kernel-parameters.txt, rcupdate.rcu_expedited).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.undo import written
from harness.hosts.protocols import Shell
from harness.observe.tracefs import EXPEDITED


@contextlib.contextmanager
def expedited(shell: Shell) -> Iterator[None]:
    """So it is in this block, if the kernel can, and as before afterwards."""
    before = shell.run(f"cat {EXPEDITED}", check=False).stdout.strip()
    if not before:
        yield
        return
    with written(shell, EXPEDITED, 1, before):
        yield
