# SPDX-License-Identifier: GPL-2.0-only
"""Have the kernel reclaim in the background: kswapd, which wakes up when memory runs short.

It begins when less is free than the low watermark and ends at the high one, which are 5/4 and 3/2
of min_free_kbytes (mm/page_alloc.c, __setup_per_zone_wmarks()). What lies between them is a fifth
of what is free then, so it is few pages only where few are free. The pool of hugetlb takes the
others, which costs nothing: nobody touches it. What is free late, or in pieces, goes to a ramfs, of
which kswapd takes nothing. So this is for small hosts that nobody else uses.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

import pytest

from harness.checks.undo import undone, unmount
from harness.deadline import Deadline
from harness.guest_replies import PAGE_SIZE
from harness.hosts.protocols import Shell
from harness.observe import vmstat
from harness.observe.unproven import Unproven

POOL = "/proc/sys/vm/nr_hugepages"
LEAST = "/proc/sys/vm/min_free_kbytes"
HUGE = 512
RAMFS = "/run/kvm-harness-ramfs"
# 4 GiB in pages: no host that has more is filled.
SMALL = 1 << 20
# Pages that are left free, min_free_kbytes with watermarks below that, and by how many pages the
# low watermark is above what is free when kswapd is to run.
FREE = 4096
LITTLE = 8192
SHORT = 512
# Pages that kswapd is to take, and the seconds that it has for it. It takes slab first, and what
# CPUs kept for themselves is free when the watermarks change.
STOLEN = "pgsteal_kswapd"
# Taken by a process that had to wait for memory.
DIRECT = "pgsteal_direct"
ENOUGH = 512
PATIENCE = 30.0


def watermark(free: int) -> int:
    """The min_free_kbytes whose low watermark is a little above so many pages."""
    return (free + SHORT) * 4 // 5 * (PAGE_SIZE // 1024)


def counters(shell: Shell) -> Mapping[str, int]:
    """What /proc/vmstat tells now."""
    return vmstat.parse_vmstat(shell.read("/proc/vmstat"))


@contextlib.contextmanager
def scarce(shell: Shell, pages: int, slowdown: float) -> Iterator[Callable[[], None]]:
    """Leave memory for so many pages and FREE; undone afterwards.

    What is yielded keeps the watermarks above what is free until kswapd has taken ENOUGH pages, or
    has had its time. By then it may want a fifth of what is free more, and a little (watermark()).
    Skips the check on a host that is large; Unproven on one that uses the pool of hugetlb.
    """
    total = vmstat.parse_meminfo(shell.read("/proc/meminfo"))["MemTotal"] // PAGE_SIZE
    if total > SMALL:
        pytest.skip(f"the host has {total} pages, too many to make them scarce")
    if shell.read(POOL).strip() != "0":
        raise Unproven("somebody uses the pool of hugetlb")
    before = shell.read(LEAST).strip()

    def reclaim() -> None:
        # What was on its way to be freed may have come meanwhile. The pool can but shrink now: to
        # grow it moves pages, and one that was moved is not young at stage 2 any more.
        _fill(shell, FREE)
        _leave(shell, FREE, grow=False)
        first = counters(shell)
        free = first["nr_free_pages"]
        if not FREE // 2 < free < 2 * FREE:
            raise Unproven(f"{free} pages are free, not {FREE}")
        deadline = Deadline(PATIENCE * slowdown)
        now = first
        while now[STOLEN] - first[STOLEN] < ENOUGH and not deadline.expired():
            shell.write(LEAST, f"{watermark(now['nr_free_pages'])}\n")
            # A process that starts needs memory: that wakes kswapd.
            shell.run("sleep 0.1")
            now = counters(shell)
        shell.write(LEAST, f"{LITTLE}\n")

    back = f"{unmount(RAMFS)}; echo 0 > {POOL}; echo {before} > {LEAST}"
    with undone(lambda: shell.run(back)):
        # A harness that was killed leaves the folder.
        shell.run(f"mkdir -p {RAMFS} && mount -t ramfs kvm-harness {RAMFS}")
        shell.write(LEAST, f"{LITTLE}\n")
        _leave(shell, pages + FREE)
        yield reclaim


def _leave(shell: Shell, pages: int, *, grow: bool = True) -> None:
    """Let the pool of hugetlb grow, if it may, or shrink until about so many pages are free."""
    more = (counters(shell)["nr_free_pages"] - pages) // HUGE
    if more > 0 and not grow:
        return
    shell.write(POOL, f"{max(0, int(shell.read(POOL)) + more)}\n")


def _fill(shell: Shell, pages: int) -> None:
    """Put into the ramfs what is free beyond so many pages and a huge one."""
    more = counters(shell)["nr_free_pages"] - pages
    if more >= HUGE:
        shell.run(f"head -c {more * PAGE_SIZE} /dev/zero >> {RAMFS}/pages")
