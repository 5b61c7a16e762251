# SPDX-License-Identifier: GPL-2.0-only
"""Let anonymous memory be of folios of a size between a page and a huge page (mTHP).

Documentation/admin-guide/mm/transhuge.rst, "sysfs", has the files, which there are from Linux 6.8
on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from harness.checks.shmem import chosen
from harness.checks.undo import written
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven

FOLDER = "/sys/kernel/mm/transparent_hugepage"
KIB = 64
# Pages of 4 KiB in one such folio.
FOLIO = KIB // 4
HUGE_KIB = 2048


@contextlib.contextmanager
def folios_by_advice(shell: Shell) -> Iterator[None]:
    """Folios of 64 KiB, and no huge pages, where madvise() asks for such; as before afterwards.

    Skips the check where the kernel has no folios of that size.
    """
    settings = {_enabled(HUGE_KIB): "never", _enabled(KIB): "madvise"}
    before = {path: chosen(shell.run(f"cat {path}", check=False).stdout, path) for path in settings}
    if None in before.values():
        pytest.skip(f"this kernel has no folios of {KIB} KiB (mTHP, Linux 6.8)")

    with contextlib.ExitStack() as stack:
        for path, word in settings.items():
            stack.enter_context(written(shell, path, word, before[path]))
        yield


def swapped_out_whole(shell: Shell) -> int:
    """How many folios of 64 KiB were swapped out without being split, since the kernel started.

    Unproven where the kernel does not count them.
    """
    text = shell.run(f"cat {FOLDER}/hugepages-{KIB}kB/stats/swpout", check=False).stdout.strip()
    if not text.isdecimal():
        raise Unproven(f"this kernel does not count folios of {KIB} KiB that are swapped out whole")
    return int(text)


def _enabled(kib: int) -> str:
    return f"{FOLDER}/hugepages-{kib}kB/enabled"
