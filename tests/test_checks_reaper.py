# SPDX-License-Identifier: GPL-2.0-only
"""What the reaper says of an owner whose memory was taken; no host, no KVM."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fake_shell import UnaskedShell
from test_keeper import GUEST, FakeProcess

from harness.checks.reaper import reaper
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guests import Guest
from harness.hosts.protocols import Process, Result, Shell
from harness.observe import stage2
from harness.observe.collect import Dump, NoDump
from harness.observe.errors import ObserveError
from harness.observe.unproven import Unproven

FOLDER = "/sys/kernel/debug/kvm/54-4"
READY = "ready protocol=1 pid=61 reaper"
# Nothing below the payload.
LINES = (
    "0x0000000000000000-0x0000000400000000          16G 1;"
    "0x0000000400000000-0x0000000400002000           8K 3   R W   AF    ;"
)


class FakeShell(UnaskedShell):
    """Starts the guest and then the reaper, and knows two CPUs; `why` is why there is no dump."""

    def __init__(self, *answers: str | None, why: str = "") -> None:
        self.reaper = FakeProcess([READY, *answers])
        self.processes = [FakeProcess([GUEST]), self.reaper]
        self.why = why
        self.version = "#1 SMP PREEMPT_DYNAMIC"
        self.argv: list[str] = []
        self.moved = ""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if command.startswith("taskset -apc"):
            self.moved = command
            return Result(command, 0, "", "")
        if command.startswith("uname -v"):
            return Result(command, 0, f"{self.version}\n", "")
        if command.startswith("taskset -c"):
            return Result(command, 0, "Cpus_allowed_list:\t0-1\n", "")
        return Result(command, 0, f"{self.why}\n", "")

    def start(self, argv: Sequence[str]) -> Process:
        self.argv = list(argv)
        return self.processes.pop(0)


def reap(vm: Guest, shell: Shell) -> Dump | None:
    with reaper(vm, shell) as act:
        return act()


def test_the_owner_is_put_where_the_reaper_is_and_stage_2_is_read_before_it_runs() -> None:
    shell = FakeShell(f"ok errno=0 waited=0 dump={stage2.HEADER};{LINES}")
    vm = Guest.start(shell)
    dump = reap(vm, shell)
    assert dump
    assert not stage2.mapped(dump.ranges, vm.slot.ipa, vm.slot.pages)
    assert shell.moved == "taskset -apc 0 54"
    assert shell.argv[:3] == ["taskset", "-c", "0"]
    assert shell.reaper.sent == [f"reap 54 {FOLDER}/stage2_page_tables"]
    assert (shell.reaper.waited, shell.reaper.closed) == (1, 1)


def test_without_a_dump_the_memory_is_taken_all_the_same() -> None:
    shell = FakeShell("ok errno=0 waited=0 dump=", why="absent")
    with pytest.raises(NoDump):
        reap(Guest.start(shell), shell)
    assert shell.reaper.sent == ["reap 54 -"]


@pytest.mark.parametrize(("errno", "why"), [(3, "No such process"), (11, "Resource temporarily")])
def test_memory_that_the_kernel_did_not_take_proves_nothing(errno: int, why: str) -> None:
    shell = FakeShell(f"ok errno={errno} waited=0 dump=")
    with pytest.raises(Unproven, match=why):
        reap(Guest.start(shell), shell)


@pytest.mark.parametrize(
    "reply", ["ok errno=0", "ok errno=0 dump=", "error system kill: x (errno 1)", None]
)
def test_a_bad_reply_is_an_error(reply: str | None) -> None:
    shell = FakeShell(reply)
    with pytest.raises(InfraError, match="reaper"):
        reap(Guest.start(shell), shell)
    assert shell.reaper.closed == 1


def test_a_dump_that_is_none_is_not_believed() -> None:
    shell = FakeShell("ok errno=0 waited=0 dump=nonsense;")
    with pytest.raises(ObserveError, match="stage2_page_tables"):
        reap(Guest.start(shell), shell)


def test_of_an_owner_who_may_have_run_nothing_is_told() -> None:
    shell = FakeShell("ok errno=0 waited=1 dump=")
    assert reap(Guest.start(shell), shell) is None


def test_a_host_without_real_time_priorities_proves_nothing() -> None:
    shell = FakeShell("error system sched_setscheduler: Operation not permitted (errno 1)")
    with pytest.raises(Unproven, match="real-time"):
        reap(Guest.start(shell), shell)


def test_nobody_is_killed_where_locks_let_others_run() -> None:
    shell = FakeShell()
    shell.version = "#1 SMP PREEMPT_RT"
    with pytest.raises(Unproven, match="PREEMPT_RT"):
        reap(Guest.start(shell), shell)
    assert not shell.reaper.sent
