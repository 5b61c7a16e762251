# SPDX-License-Identifier: GPL-2.0-only
"""Drive khugepaged, which asks KVM whether pages are young and must leave them as they are.

Documentation/admin-guide/mm/transhuge.rst describes its files. What it found in a range of 2 MiB
is told by a tracepoint, the number of pages that were young among it.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from harness.checks.undo import undone
from harness.deadline import Deadline
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError, shown
from harness.observe.trace import Event
from harness.observe.unproven import Unproven

FOLDER = "/sys/kernel/mm/transparent_hugepage/khugepaged"
# It looks at a range again and again and gives it up where a page is absent.
SETTINGS = {"max_ptes_none": 0, "pages_to_scan": 4096, "scan_sleep_millisecs": 10}
SCAN = "huge_memory:mm_khugepaged_scan_pmd"
SCAN_SECONDS = 60.0
POLL = 0.05
NO_PFN = (1 << 64) - 1

# include/trace/events/huge_memory.h of Linux 6.12; 7.3 has no "writable"
_SCAN = re.compile(
    r"mm=[^ ]{1,20}, scan_pfn=0x(?P<pfn>[0-9a-f]{1,16}), (?:writable=[01], )?"
    r"referenced=(?P<young>[0-9]{1,9}), none_or_zero=(?P<absent>[0-9]{1,9}), "
    r"status=(?P<status>[a-z0-9_]{1,40}), unmapped=[0-9]{1,9}"
)


@dataclass(frozen=True)
class Scan:
    """One look at a range: the PFN that it ended with, and how many pages were young before it."""

    pfn: int
    young: int
    absent: int
    status: str


def scans(events: Iterable[Event]) -> tuple[Scan, ...]:
    """The scans that events of SCAN tell of."""
    found = []
    for event in events:
        match = _SCAN.fullmatch(event.text.strip())
        if match is None:
            raise ObserveError(SCAN, 0, f"unknown form: {shown(event.text)}")
        young, absent = int(match["young"]), int(match["absent"])
        found.append(Scan(int(match["pfn"], 16), young, absent, match["status"]))
    return tuple(found)


def scans_of(
    scanned: Iterable[Event], asked: Iterable[Event], pfn: int, hva: int
) -> tuple[Scan, ...]:
    """The scans that ended after the page of this PFN and virtual address, before an absent one.

    `asked` are the events of kvm_test_age_hva. Linux 7.3 gives no PFN for an absent page; such a
    scan is told by the page that KVM was asked for last.
    """
    found = []
    last: int | None = None
    order = sorted([*asked, *scanned], key=lambda event: (event.time, event.name == SCAN))
    for event in order:
        if event.name != SCAN:
            last = event.fields["hva"]
            continue
        (scan,) = scans([event])
        if scan.pfn == pfn or (scan.pfn == NO_PFN and last == hva):
            found.append(scan)
        last = None
    return tuple(found)


@contextlib.contextmanager
def busy(shell: Shell) -> Iterator[None]:
    """Have it scan all the time by SETTINGS; as it was before afterwards."""
    before = {name: shell.read(f"{FOLDER}/{name}").strip() for name in SETTINGS}

    def restore() -> None:
        for name, value in before.items():
            shell.write(f"{FOLDER}/{name}", f"{value}\n")

    with undone(restore):
        for name, number in SETTINGS.items():
            shell.write(f"{FOLDER}/{name}", f"{number}\n")
        yield


def wait_full_scans(shell: Shell, number: int, slowdown: float) -> None:
    """Wait until it has begun and ended that many scans of all memory; Unproven if it does not."""

    def ended() -> int:
        return int(shell.read(f"{FOLDER}/full_scans"))

    seconds = SCAN_SECONDS * slowdown
    deadline = Deadline(seconds)
    # The one under way had begun before.
    goal = ended() + 1 + number
    while ended() < goal:
        if deadline.expired():
            raise Unproven(f"khugepaged made no {number} scans in {seconds:.0f} s")
        time.sleep(POLL)
