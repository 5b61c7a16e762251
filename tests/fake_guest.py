# SPDX-License-Identifier: GPL-2.0-only
"""A kvm-guest that gives saved answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.guests import Guest
from harness.hosts.protocols import Process

READY = (
    "ready protocol=1 pid=54 vmfd=4 page_size=4096 slot_ipa=0x80000000 slot_hva=0xffffabe00000 "
    "pages=4096 payload_ipa=0x400000000 payload_pages=17 vcpus=2 backing=anon"
)
EXITS = (
    "exits=3 mmio_exit_user=1 mmio_exit_kernel=0 signal_exits=0 hvc_exit_stat=0 "
    "wfe_exit_stat=0 wfi_exit_stat=0"
)
Answer = str | Exception


class FakeProcess:
    """Gives saved answers, one for each receive(), and keeps what it was sent."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.answers = list(answers)
        self.sent: list[str] = []
        self.budgets: list[float] = []
        self.closed = 0

    def send(self, line: str) -> None:
        self.sent.append(line)

    def receive(self, deadline: Deadline) -> str:
        self.budgets.append(deadline.budget)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def stderr(self) -> str:
        return "Segmentation fault\n"

    def wait(self, deadline: Deadline) -> int:
        return 0

    def close(self) -> None:
        self.closed += 1


class FakeShell(UnaskedShell):
    """A shell that can only start the fake program."""

    def __init__(self, process: FakeProcess) -> None:
        self.process = process
        self.argv: list[str] = []

    def start(self, argv: Sequence[str]) -> Process:
        self.argv = list(argv)
        return self.process


def start(
    *answers: Answer, greeting: Answer = READY, transcript: Path | None = None
) -> tuple[Guest, FakeProcess]:
    process = FakeProcess([greeting, *answers])
    return Guest.start(FakeShell(process), vcpus=2, transcript=transcript), process
