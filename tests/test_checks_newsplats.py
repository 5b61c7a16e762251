# SPDX-License-Identifier: GPL-2.0-only
"""What a check takes for a complaint of its own, whatever the kernel's log has kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.checks.claim import Claim
from harness.checks.newsplats import assert_none_new, splats
from harness.deadline import Deadline
from harness.hosts.protocols import Result

WARN = """\
[{at:12.6f}] ------------[ cut here ]------------
[{at:12.6f}] WARNING: CPU: 1 PID: 53 at arch/arm64/kvm/mmu.c:{line} {name}+0x28/0x78
[{at:12.6f}] Call trace:
[{at:12.6f}]  {name}+0x28/0x78
[{at:12.6f}] ---[ end trace 0000000000000000 ]---
"""
QUIET = "[    4.000000] EXT4-fs (sda1): mounted filesystem\n"


def warn(at: float, name: str, line: int = 12) -> str:
    return WARN.format(at=at, name=name, line=line)


class Host(UnaskedShell):
    """A host whose log is this."""

    def __init__(self, log: str) -> None:
        self.log = log

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        assert command == "dmesg"
        return Result(command, 0, self.log, "")


def judge(tmp_path: Path, before: str, after: str) -> None:
    assert_none_new(Host(after), Claim(tmp_path, ""), splats(Host(before)))


def test_what_was_there_before_is_nothing_new(tmp_path: Path) -> None:
    old = warn(1.0, "first") + warn(2.0, "second")
    judge(tmp_path, old, old + QUIET)
    judge(tmp_path, QUIET, QUIET)


def test_what_is_new_is_told(tmp_path: Path) -> None:
    old = warn(1.0, "first")
    with pytest.raises(AssertionError, match=r"1 splats: .* third\+"):
        judge(tmp_path, old, old + QUIET + warn(5.0, "third"))
    with pytest.raises(AssertionError, match=r"1 splats: .* first\+"):
        judge(tmp_path, QUIET, QUIET + warn(5.0, "first"))


def test_the_log_may_have_lost_what_was_there_before(tmp_path: Path) -> None:
    old = warn(1.0, "first") + warn(2.0, "second")
    with pytest.raises(AssertionError, match=r"1 splats: .* third\+"):
        judge(tmp_path, old, QUIET + warn(5.0, "third"))
    with pytest.raises(AssertionError, match=r"1 splats: .* third\+"):
        judge(tmp_path, old, warn(2.0, "second") + warn(5.0, "third"))


def test_of_what_was_there_before_only_the_end_may_be_left(tmp_path: Path) -> None:
    old = warn(1.0, "first") + warn(2.0, "second")
    rest = warn(2.0, "second").split("\n", 2)[2]
    judge(tmp_path, old, rest + QUIET)
