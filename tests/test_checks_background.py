# SPDX-License-Identifier: GPL-2.0-only
"""Making a host's memory scarce, with files that answer as a host would."""

from __future__ import annotations

import re

import pytest
from fake_shell import UnaskedShell

from harness.checks import background
from harness.deadline import Deadline
from harness.guest_replies import PAGE_SIZE
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven

PAGE_KIB = 4


class Host(UnaskedShell):
    """A host with so much free memory, of which there is more each time that one waits."""

    def __init__(self, *, total: int = 500_000, free: int = 400_000, pool: int = 0) -> None:
        self.total, self.free, self.stolen = total, free, 0
        self.late = 0
        self.files = {background.POOL: f"{pool}", background.LEAST: "22528"}
        self.written: list[tuple[str, str]] = []
        self.ran: list[str] = []

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        if path == "/proc/meminfo":
            return f"MemTotal: {self.total * PAGE_KIB} kB\n"
        if path == "/proc/vmstat":
            return f"nr_free_pages {self.free}\n{background.STOLEN} {self.stolen}\n"
        return self.files[path] + "\n"

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        self.written.append((path, text.strip()))
        if path == background.POOL:
            size = int(text)
            self.free -= (size - int(self.files[path])) * background.HUGE
            self.files[path] = f"{size}"

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.ran.append(command)
        if filled := re.fullmatch(r"head -c (\d+) /dev/zero >> \S+", command):
            self.free += self.late - int(filled[1]) // PAGE_SIZE
        if command.startswith("sleep"):
            self.free += 200
            self.stolen += 200
        return Result(command, 0, "", "")


def test_watermark_is_above_what_is_free() -> None:
    pages = background.watermark(4000) // PAGE_KIB
    low, high = pages * 5 // 4, pages * 3 // 2
    assert pages < 4000 < low < high


def test_memory_is_scarce_and_kswapd_runs_until_it_has_taken_enough() -> None:
    host = Host()
    with background.scarce(host, 100_000, 1.0) as reclaim:
        assert background.FREE <= host.free - 100_000 < background.FREE + background.HUGE
        # The guest takes its pages.
        host.free -= 100_000
        free = host.free
        reclaim()
    assert background.ENOUGH <= host.stolen < background.ENOUGH + 200
    raised = [int(text) for path, text in host.written if path == background.LEAST]
    above = [background.watermark(free + more) for more in range(0, host.stolen, 200)]
    assert raised == [background.LITTLE, *above, background.LITTLE]
    assert host.ran[-1].endswith(f"; echo 0 > {background.POOL}; echo 22528 > {background.LEAST}")
    assert f"umount {background.RAMFS}; rmdir {background.RAMFS}" in host.ran[-1]
    assert not [command for command in host.ran if command.startswith("head")]


def test_what_comes_late_moves_no_page_of_the_guest() -> None:
    host = Host()
    with background.scarce(host, 100_000, 1.0) as reclaim:
        host.free = background.FREE + 10 * background.HUGE
        pool = host.files[background.POOL]
        # More comes free when the ramfs has been filled.
        host.late = 3 * background.HUGE
        reclaim()
        assert host.files[background.POOL] == pool
    (filled,) = [command for command in host.ran if command.startswith("head")]
    assert filled.split()[2] == str(10 * background.HUGE * PAGE_SIZE)
    assert host.free - host.stolen == background.FREE + 3 * background.HUGE


@pytest.mark.parametrize(
    ("host", "end"), [(Host(total=2 << 20), pytest.skip.Exception), (Host(pool=8), Unproven)]
)
def test_a_large_host_and_one_with_huge_pages_are_left_alone(
    host: Host, end: type[BaseException]
) -> None:
    with pytest.raises(end), background.scarce(host, 100, 1.0):
        pass
    assert not host.written


def test_fewer_free_than_can_be_mended_proves_nothing() -> None:
    host = Host()
    with (
        pytest.raises(Unproven, match="are free, not"),
        background.scarce(host, 100_000, 1.0) as reclaim,
    ):
        host.free = 100
        host.files[background.POOL] = "0"
        reclaim()
    assert f"; echo 0 > {background.POOL};" in host.ran[-1]
