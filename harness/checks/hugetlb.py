# SPDX-License-Identifier: GPL-2.0-only
"""Let hugetlb have pages of 2 MiB that its pool has not (admin-guide/mm/hugetlbpage.rst)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from harness.checks.undo import written
from harness.hosts.protocols import Shell

OVERCOMMIT = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_overcommit_hugepages"


@contextlib.contextmanager
def overcommitted(shell: Shell, pages: int) -> Iterator[None]:
    """Let hugetlb take so many pages of 2 MiB from the free memory; undone afterwards."""
    if not pages:
        yield
        return
    before = int(shell.read(OVERCOMMIT))
    with written(shell, OVERCOMMIT, before + pages, before):
        yield
