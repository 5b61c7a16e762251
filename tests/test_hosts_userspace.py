# SPDX-License-Identifier: GPL-2.0-only
"""What a machine is made ready with; no machine needed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.errors import InfraError
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
    assert "\nfor a in enabled:madvise defrag:madvise shmem_enabled:never; do\n" in mounts
    assert " echo 60 > /proc/sys/vm/swappiness\n" in mounts
    assert folder == f"mkdir -p {PROGRAMS}"
    assert put == f"{tmp_path} {PROGRAMS}/kvm-guest 755"


MOUNT = """\
#!/bin/sh
[ "$2" != tracefs ] && [ "$2" != cgroup2 ] && exit 0
echo "mount: $4: permission denied" >&2
exit 32
"""
V1 = "cgroup {0} cgroup rw,memory 0 0\n"


class Sandboxed(LocalShell):
    """Runs it in a folder that stands for /."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        command = re.sub(
            r"(?<!\w)/(?=(sys|proc|dev/hugepages|dev/shm)\b)", f"{self.root}/", command
        )
        return super().run(f"PATH={self.root}/bin:$PATH\n{command}", deadline, check=check)


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandboxed:
    for folder in ("bin", "proc/sys/kernel", "sys/fs/cgroup", "sys/kernel/security"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bin/mount").write_text(MOUNT)
    (tmp_path / "bin/mount").chmod(0o755)
    shm = f"{tmp_path}/dev/shm"
    (tmp_path / "proc/mounts").write_text(f"tmpfs {shm} tmpfs rw 0 0\n")
    (tmp_path / "sys/kernel/security/lockdown").write_text("[none] integrity confidentiality\n")
    return Sandboxed(tmp_path)


def mounted(root: Path, *kinds: str) -> None:
    with (root / "proc/mounts").open("a") as file:
        for kind, place in userspace.MOUNTS:
            if kind in kinds:
                file.write(f"{kind} {root}{place} {kind} rw 0 0\n")


def test_a_host_that_has_all(sandbox: Sandboxed) -> None:
    mounted(sandbox.root, "tracefs", "cgroup2")
    userspace.prepare(sandbox, {})
    assert (sandbox.root / "sys/fs/cgroup/cgroup.subtree_control").read_text() == "+memory\n"
    assert (sandbox.root / "proc/sys/kernel/panic").read_text() == "15\n"
    (sandbox.root / "sys/kernel/security/lockdown").unlink()
    userspace.prepare(sandbox, {})


def test_huge_pages_are_as_linux_has_them_by_itself(sandbox: Sandboxed) -> None:
    """Of a kernel that has none for shared memory."""
    mounted(sandbox.root, "tracefs", "cgroup2")
    folder = sandbox.root / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    for name in ("enabled", "defrag"):
        (folder / name).write_text("always\n")
    userspace.prepare(sandbox, {})
    assert {one.name: one.read_text() for one in folder.iterdir()} == {
        "enabled": "madvise\n",
        "defrag": "madvise\n",
    }
    (folder / "shmem_enabled").write_text("always\n")
    userspace.prepare(sandbox, {})
    assert (folder / "shmem_enabled").read_text() == "never\n"


def test_all_that_it_lacks_is_told_at_once(sandbox: Sandboxed) -> None:
    place = f"{sandbox.root}/sys/fs/cgroup"
    with (sandbox.root / "proc/mounts").open("a") as file:
        file.write(V1.format(f"{place}/memory"))
    # Nothing can be written there.
    (sandbox.root / "sys/fs/cgroup/cgroup.subtree_control").mkdir()
    (sandbox.root / "sys/kernel/security/lockdown").write_text("none [integrity] confidentiality\n")
    with pytest.raises(InfraError, match="checks cannot look at the kernel of the cell: ") as told:
        userspace.prepare(sandbox, {})
    _, *lacks = re.split(r"(?:: |; )no ", str(told.value))
    tracefs, cgroup2, memory, lockdown = lacks
    assert "tracefs at" in tracefs and "permission denied" in tracefs
    assert "cgroup2 at" in cgroup2 and "mounted there?" in cgroup2
    assert memory.startswith(f"memory in cgroup2: cgroup {place}/memory cgroup rw,memory 0 0 (have")
    assert "unified_cgroup_hierarchy=1" in memory
    assert "none [integrity]" in lockdown and "take lockdown= out" in lockdown


def test_what_a_host_says_shows_no_control_characters() -> None:
    assert userspace.lacking("hello\nkvm-harness lacks x: \x1b[2J\n") == (r"no x: \x1b[2J",)


def test_all_of_it_is_removed() -> None:
    shell = Noted()
    userspace.clear(shell)
    (said,) = shell.said
    assert said.split("\n") == [
        f"rm -rf {PROGRAMS}",
        "! grep -qsx 1 /sys/kernel/kexec_loaded || kexec -u",
    ]
