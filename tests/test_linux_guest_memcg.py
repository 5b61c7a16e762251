# SPDX-License-Identifier: GPL-2.0-only
"""The memcg of a Linux guest goes whatever the guest does. The shell is real, the memcg a folder.

tests/linux_guest_ends.py has a real memcg, with QEMU in it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError, LinuxGuestDied
from harness.hosts.protocols import Result
from harness.linux_guest import memcg as module
from harness.linux_guest.memcg import memcg


class LocalShell(UnaskedShell):
    """A folder has no cgroup.kill, so what is written there goes nowhere."""

    def __init__(self, group: Path) -> None:
        self.kill = f"{group}/cgroup.kill"
        self.kills = 0

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.kills += command.count(self.kill)
        script = command.replace(self.kill, "/dev/null")
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=20)
        if check and done.returncode:
            raise InfraError(done.stderr)
        return Result(command, done.returncode, done.stdout, done.stderr)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "group"
    monkeypatch.setattr(module, "CGROUP", str(path))
    return path


def test_is_gone_afterwards(group: Path) -> None:
    shell = LocalShell(group)
    with memcg(shell, 1.0):
        assert group.is_dir()
    assert not group.exists()
    assert shell.kills == 1


@pytest.mark.parametrize(
    "error",
    [
        InfraError("not the guest that was asked for"),
        DeadlineExceeded("gave up waiting for a line"),
        LinuxGuestDied("guest-gone", "QEMU ended with signal=9"),
        AssertionError("2 young pages were evicted"),
    ],
)
def test_is_gone_when_the_guest_does_not_start_or_fails(error: Exception, group: Path) -> None:
    with pytest.raises(type(error), match=str(error)), memcg(LocalShell(group), 1.0):
        raise error
    assert not group.exists()


def test_is_removed_when_what_was_killed_has_gone(group: Path) -> None:
    with memcg(LocalShell(group), 1.0):
        (group / "dying").mkdir()
        dies = subprocess.Popen(["sh", "-c", f"sleep 0.2; rmdir {group}/dying"])
    assert dies.wait(20) == 0
    assert not group.exists()


def test_what_stays_is_told_but_not_instead_of_why(
    group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRIES", 2)
    with pytest.raises(InfraError, match="not empty"), memcg(LocalShell(group), 1.0):
        (group / "stays").mkdir()
    (group / "stays").rmdir()
    group.rmdir()
    with pytest.raises(AssertionError, match="evicted"), memcg(LocalShell(group), 1.0):
        (group / "stays").mkdir()
        raise AssertionError("2 young pages were evicted")


def test_anothers_is_left_alone(group: Path) -> None:
    group.mkdir()
    shell = LocalShell(group)
    with pytest.raises(InfraError, match="exists"), memcg(shell, 1.0):
        pass
    assert group.is_dir()
    assert shell.kills == 0
