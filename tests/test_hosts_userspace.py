# SPDX-License-Identifier: GPL-2.0-only
"""What a machine is made ready with; no machine needed."""

from __future__ import annotations

from pathlib import Path

from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.hosts import userspace
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Result


class Noted(UnaskedShell):
    def __init__(self) -> None:
        self.said: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        assert check, "what fails here would make checks fail later"
        self.said.append(command)
        return Result(command, 0, "", "")

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.said.append(f"{local} {remote} {mode:o}")


def test_mounts_and_programs(tmp_path: Path) -> None:
    shell = Noted()
    userspace.prepare(shell, {f"{PROGRAMS.lstrip('/')}/kvm-guest": tmp_path})
    mounts, folder, put = shell.said
    for kind, place in userspace.MOUNTS:
        assert f"grep -q '^[^ ]* {place} {kind} ' /proc/mounts || {{ mkdir -p {place}" in mounts
    assert mounts.startswith("set -e\n")
    assert "\necho 7 > /proc/sys/kernel/printk\n" in mounts
    assert "\necho 15 > /proc/sys/kernel/panic\n" in mounts
    balancing = "/proc/sys/kernel/numa_balancing"
    assert f"\n[ ! -e {balancing} ] || echo 0 > {balancing}\n" in mounts
    assert folder == f"mkdir -p {PROGRAMS}"
    assert put == f"{tmp_path} {PROGRAMS}/kvm-guest 755"


def test_all_of_it_is_removed() -> None:
    shell = Noted()
    userspace.clear(shell)
    (said,) = shell.said
    assert said.split("\n") == [
        f"rm -rf {PROGRAMS}",
        "! grep -qsx 1 /sys/kernel/kexec_loaded || kexec -u",
    ]
