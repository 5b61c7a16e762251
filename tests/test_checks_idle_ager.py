# SPDX-License-Identifier: GPL-2.0-only
"""What an ager of pages is told, where it runs, and what is made of its answers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_shell import UnaskedShell
from test_keeper import GUEST, FakeProcess, FakeShell

from harness.checks.idle_ager import ager, beside, pages_of, reached, reading, words
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guests import PROGRAM, Guest
from harness.hosts.protocols import Process, Result
from harness.observe.unproven import Unproven

ASK_USABLE = "taskset -c $(cat /sys/devices/system/cpu/online) cat /proc/self/status"
READY = "ready protocol=1 pid=60 idle_ager"


class Host(UnaskedShell):
    """A host with these CPUs, on which one ager can be started."""

    def __init__(self, cpus: str, process: FakeProcess) -> None:
        self.cpus = cpus
        self.process = process
        self.ran: list[str] = []
        self.argv: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.ran.append(command)
        told = f"Cpus_allowed:\tf\nCpus_allowed_list:\t{self.cpus}\n"
        return Result(command, 0, told if command == ASK_USABLE else "", "")

    def start(self, argv: Sequence[str]) -> Process:
        self.argv = list(argv)
        return self.process


def a_guest() -> Guest:
    return Guest.start(FakeShell(FakeProcess([GUEST])), slowdown=2.0)


def test_words_of_the_bitmap() -> None:
    assert words([640, 641, 700, 0x400000000]) == "a:1000000000000003,10000000:1"
    assert words([63, 64]) == "0:8000000000000000,1:1"


def test_pages_of_words() -> None:
    assert pages_of("-") == frozenset()
    pfns = {63, 64, 640, 700, 0x400000000}
    assert pages_of(words(pfns)) == pfns
    for text in ("", "a", "a:", ":1", "a:1,", "a:x"):
        with pytest.raises(ValueError):
            pages_of(text)


def test_pages_that_are_idle_still_are_read_while_something_else_is_done() -> None:
    process = FakeProcess([READY, "ok words=2 idle=b:1", "ok words=2 idle=-"])
    with reading(a_guest(), Host("0-1", process), [640, 641, 704]) as both:
        done: list[list[str]] = []
        assert both(lambda: done.append(list(process.sent))) == {704}
        assert both(lambda: None) == frozenset()
    # It is asked before, and answers afterwards.
    assert done == [["read a:3,b:1"]]


@pytest.mark.parametrize(
    "answer",
    [
        "ok words=1 idle=a:2",
        "ok words=1 idle=b:1",
        "ok words=1 idle=",
        "ok words=1 idle=a:1,",
        "ok words=1",
        "error system pread of /sys/kernel/mm/page_idle/bitmap (errno 6)",
    ],
)
def test_a_reading_of_other_pages_or_of_none_is_an_error(answer: str) -> None:
    process = FakeProcess([READY, answer])
    with (
        pytest.raises(InfraError, match="idle ager"),
        reading(a_guest(), Host("0-1", process), [640]) as both,
    ):
        both(lambda: None)


def test_the_ager_has_a_cpu_for_itself() -> None:
    process = FakeProcess([READY, "ok words=1", "ok passes=7"])
    host = Host("0-1,8-9", process)
    with ager(a_guest(), host, [640]):
        assert host.ran == [ASK_USABLE, "taskset -apc 0-1,8 54"]
        assert host.argv[:5] == ["taskset", "-c", "9", PROGRAM, "--idle-ager"]
        assert host.argv[5:] == ["--timeout", "240"]
        assert process.sent == ["age a:1"]
    assert process.sent == ["age a:1", "stop"]
    assert (process.waited, process.closed) == (1, 1)


def test_a_walk_is_of_the_memcg_that_the_guest_is_in() -> None:
    process = FakeProcess([READY, "ok words=0", "ok passes=7", READY, "ok words=0"])
    host = Host("0-1", process)
    with ager(a_guest(), host, [640], "walk"):
        shell, script = host.argv[0], host.argv[2]
        assert (shell, host.argv[3:7]) == ("sh", ["sh", "taskset", "-c", "1"])
        assert script == 'echo $$ > /sys/fs/cgroup/kvm-harness/cgroup.procs && exec "$@"'
    assert process.sent == ["age walk", "stop"]
    with beside(a_guest(), host, [640], "walk") as both:
        both(lambda: None)
    assert process.sent[2:] == ["mark walk"]


def test_the_ager_can_let_another_begin() -> None:
    process = FakeProcess([READY, "ok words=1"])
    with beside(a_guest(), Host("0-1", process), [640], after=8) as both:
        done: list[list[str]] = []
        both(lambda: done.append(list(process.sent)))
    assert done == [["mark-after 8 a:1"]]


def test_a_guest_that_is_walked_has_a_memcg_of_its_own() -> None:
    host = Host("0-1", FakeProcess([]))
    with reached("page-idle", a_guest(), host):
        assert not host.ran
    with reached("walk", a_guest(), host):
        assert host.ran == [
            "mkdir -p /sys/fs/cgroup/kvm-harness && "
            "echo 54 > /sys/fs/cgroup/kvm-harness/cgroup.procs"
        ]
    assert host.ran[1:] == ["rmdir /sys/fs/cgroup/kvm-harness"]


def test_the_only_cpu_is_shared() -> None:
    host = Host("3", FakeProcess([READY, "ok words=1", "ok passes=7"]))
    with ager(a_guest(), host, [640]):
        assert host.ran == [ASK_USABLE]
        assert host.argv[:3] == ["taskset", "-c", "3"]


@pytest.mark.parametrize(
    "answers",
    [
        ["error fatal /sys/kernel/mm/page_idle/bitmap: Permission denied (errno 13)"],
        [READY, "error system pwrite of /sys/kernel/mm/page_idle/bitmap (errno 6)"],
        [READY, "ok words=1", "error system pwrite of /sys/kernel/mm/page_idle/bitmap (errno 6)"],
        [READY, "ok words=1", None],
    ],
)
def test_an_ager_that_fails_is_an_error(answers: list[str | None]) -> None:
    process = FakeProcess(answers)
    with pytest.raises(InfraError, match="idle ager"), ager(a_guest(), Host("0-1", process), [640]):
        pass
    assert process.closed == 1


def test_without_page_idle_there_is_nothing_to_age_by() -> None:
    none = "error fatal /sys/kernel/mm/page_idle/bitmap: No such file or directory (errno 2)"
    process = FakeProcess([none])
    host = Host("0-1", process)
    with pytest.raises(Unproven, match="IDLE_PAGE_TRACKING"), ager(a_guest(), host, [640]):
        pass
    assert process.closed == 1
