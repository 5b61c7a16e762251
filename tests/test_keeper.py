# SPDX-License-Identifier: GPL-2.0-only
"""A keeper, and the idle ager, against saved and spoiled replies; no host, no KVM."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guests import PROGRAM, Guest
from harness.hosts.protocols import Process
from harness.keeper import keeper

GUEST = (
    "ready protocol=1 pid=54 vmfd=4 page_size=4096 slot_ipa=0x80000000 slot_hva=0xffffabe00000 "
    "pages=4096 payload_ipa=0x400000000 payload_pages=17 vcpus=1 backing=anon"
)


class FakeProcess:
    """Gives saved answers and keeps what it was sent; an answer of None is the end of output."""

    def __init__(self, answers: Sequence[str | None]) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []
        self.waited = self.closed = 0

    def send(self, line: str) -> None:
        self.sent.append(line)

    def receive(self, deadline: Deadline) -> str:
        answer = self.answers.pop(0)
        if answer is None:
            raise EOFError
        return answer

    def stderr(self) -> str:
        return ""

    def wait(self, deadline: Deadline) -> int:
        self.waited += 1
        return 0

    def close(self) -> None:
        self.closed += 1


class FakeShell(UnaskedShell):
    """Starts programs, whose first answer may hold the name that the program was given."""

    def __init__(self, *processes: FakeProcess) -> None:
        self.processes = list(processes)
        self.argv: list[str] = []

    def start(self, argv: Sequence[str]) -> Process:
        self.argv = list(argv)
        process = self.processes.pop(0)
        if process.answers[0] is not None and "--keeper" in argv:
            process.answers[0] = process.answers[0].replace("NAME", argv[2])
        return process


def test_a_guest_hands_its_vm_to_the_keeper_by_name() -> None:
    kept = FakeProcess(["ready protocol=1 pid=53 keeper=NAME", "ok kept=1", "ok kept=0"])
    owner = FakeProcess([GUEST, "ok"])
    shell = FakeShell(kept, owner)
    with keeper(shell) as holder:
        assert shell.argv == [PROGRAM, "--keeper", holder.name, "--timeout", "120"]
        assert re.fullmatch("[0-9a-f]{16}", holder.name)
        holder.keep(Guest.start(shell))
        holder.drop()
    assert owner.sent == [f"give {holder.name} vm"]
    assert kept.sent == ["take", "drop"]
    assert (kept.waited, kept.closed) == (1, 1)


@pytest.mark.parametrize(
    "greeting",
    [
        None,
        "",
        "ready protocol=2 pid=53 keeper=NAME",
        "ready protocol=1 pid=53 keeper=another",
        "ready protocol=1 pid=53 keeper=NAME more",
        "error fatal the keeper's socket: Address already in use (errno 98)",
    ],
)
def test_a_bad_greeting_ends_the_program(greeting: str | None) -> None:
    process = FakeProcess([greeting])
    with pytest.raises(InfraError, match="keeper"), keeper(FakeShell(process)):
        pass
    assert process.closed == 1


@pytest.mark.parametrize("reply", ["ok kept=2", "ok", "error system poll (errno 110)", None])
def test_an_fd_that_did_not_come_is_an_error(reply: str | None) -> None:
    kept = FakeProcess(["ready protocol=1 pid=53 keeper=NAME", reply])
    shell = FakeShell(kept, FakeProcess([GUEST, "ok"]))
    with keeper(shell) as holder, pytest.raises(InfraError, match="take"):
        holder.keep(Guest.start(shell))
    assert kept.closed == 1


def test_a_name_cannot_bring_another_command() -> None:
    owner = FakeProcess([GUEST])
    vm = Guest.start(FakeShell(owner))
    with pytest.raises(ValueError, match="keeper"):
        vm.give("a;quit")
    assert not owner.sent
