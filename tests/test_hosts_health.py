# SPDX-License-Identifier: GPL-2.0-only
"""What a machine says of itself, read with care, and what makes it unfit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from local_shell import LocalShell

from harness.errors import InfraError
from harness.hosts.health import (
    NEED_DISK,
    NEED_MEMORY,
    Health,
    Process,
    examine,
    in_use,
    left_behind,
    parse,
    remarks,
    sick,
    taints,
)

GIB = 1 << 30
ANSWER = """
== taint
512
== disk
262144 4096
== memory
MemTotal:        8388608 kB
MemFree:          100000 kB
MemAvailable:    4194304 kB
HardwareCorrupted:     8 kB
== load
0.42 0.30 0.25 1/200 4242
== cpus
0-3
== names
/proc/1/comm:systemd
/proc/77/comm:qemu-system-aar
/proc/78/comm:sh
/proc/80/comm:dpkg
== fds
/proc/1/fd:
/proc/77/fd:
lrwx------ 1 root root 64 Nov 22 23:00 11 -> anon_inode:kvm-vm
lrwx------ 1 root root 64 Nov 22 23:00 12 -> anon_inode:kvm-vm
/proc/78/fd:
/proc/79/fd:
lrwx------ 1 root root 64 Nov 22 23:00 3 -> anon_inode:kvm-vm
== users
admin    pts/0        2026-11-22 22:58 (10.0.0.9)
== units
apt-daily.service loaded failed failed Daily apt download activities
dev-disk-by\\x2duuid.device loaded failed failed a disk
== end
"""
FIT = Health(
    tainted=0,
    disk_free=10 * GIB,
    memory=64 * GIB,
    memory_available=60 * GIB,
    load=0.1,
    cpus=(0, 1, 2, 3),
    vms=(),
    installers=(),
    users=(),
    failed_units=(),
)


def test_an_answer_is_read_whole() -> None:
    assert parse(ANSWER) == Health(
        tainted=512,
        disk_free=GIB,
        memory=8 * GIB,
        memory_available=4 * GIB,
        load=0.42,
        cpus=(0, 1, 2, 3),
        vms=(Process(77, "qemu-system-aar"), Process(79, "?")),
        installers=(Process(80, "dpkg"),),
        users=("admin pts/0 2026-11-22 22:58 (10.0.0.9)",),
        failed_units=("apt-daily.service", "dev-disk-by\\x2duuid.device"),
        memory_bad=8192,
    )


def test_every_answer_that_is_cut_off_is_refused() -> None:
    for end in range(len(ANSWER) - 1):
        with pytest.raises(InfraError, match="nonsense"):
            parse(ANSWER[:end])


@pytest.mark.parametrize(
    "good, bad",
    [
        ("512", "-1"),
        ("512", "9" * 40),
        ("262144 ", "much "),
        ("MemAvailable", "MemElsewhere"),
        ("0.42 ", "nan "),
        ("== cpus\n0-3", "== cpus\n\N{ARABIC-INDIC DIGIT FOUR}"),
        ("== cpus\n0-3", "== cpus\n0-99999999"),
        ("== cpus\n0-3", "== cpus\n"),
        ("== load", "== cpus"),
        ("\n== taint", "hello\n== taint"),
        ("== fds\n", "== fds\nlrwx------ 1 root root 64 Nov 22 23:00 3 -> anon_inode:kvm-vm\n"),
    ],
)
def test_nonsense_is_refused(good: str, bad: str) -> None:
    assert ANSWER.count(good) == 1
    with pytest.raises(InfraError, match="nonsense"):
        parse(ANSWER.replace(good, bad))


def test_this_machine_is_read_by_its_own_sh() -> None:
    found = examine(LocalShell())
    assert found.tainted == int(Path("/proc/sys/kernel/tainted").read_text())
    assert len(found.cpus) >= len(os.sched_getaffinity(0))
    assert found.memory >= found.memory_available > 0
    assert found.disk_free > 0


@pytest.mark.parametrize(
    "change, why",
    [
        ({"tainted": 1 << 7}, "tainted: kernel died recently"),
        ({"tainted": 1 << 5 | 1 << 9}, "tainted: bad page"),
        ({"tainted": 1 << 4}, "tainted: machine check exception"),
        ({"tainted": 1 << 14}, "tainted: soft lockup"),
        ({"disk_free": NEED_DISK - 1}, "1023 MiB free, 1024 MiB are needed"),
        ({"memory_available": NEED_MEMORY - 1}, "2047 MiB of memory left"),
        ({"memory_bad": 8192}, "8 KiB of its memory are bad"),
    ],
)
def test_what_makes_a_machine_sick(change: dict[str, object], why: str) -> None:
    found = replace(FIT, **change)  # type: ignore[arg-type]
    (reason,) = sick(found)
    assert why in reason
    assert in_use(found) == ()


@pytest.mark.parametrize(
    "change, why",
    [
        ({"vms": (Process(7, "qemu"),)}, "runs VMs: qemu (pid 7)"),
        ({"installers": (Process(8, "dpkg"),)}, "packages are being installed: dpkg (pid 8)"),
        ({"load": 1.6, "cpus": tuple(range(80))}, "busy: load 1.60"),
    ],
)
def test_a_machine_that_is_in_use_is_not_sick(change: dict[str, object], why: str) -> None:
    found = replace(FIT, **change)  # type: ignore[arg-type]
    (reason,) = in_use(found)
    assert why in reason
    assert sick(found) == ()


def test_a_machine_at_each_limit_is_fit() -> None:
    limit = replace(FIT, load=1.5, disk_free=NEED_DISK, memory_available=NEED_MEMORY)
    for found in (FIT, limit):
        assert sick(found) == in_use(found) == remarks(found) == ()


def test_all_that_is_wrong_is_said_at_once() -> None:
    bad = replace(
        FIT, tainted=1 << 4, disk_free=0, memory_available=0, vms=(Process(1, "a"),), load=9
    )
    assert len(sick(bad)) == 2
    assert len(in_use(bad)) == 3


def test_little_memory_is_no_illness_while_vms_run() -> None:
    found = replace(FIT, memory_available=0, vms=(Process(7, "qemu"),))
    assert sick(found) == ()
    assert in_use(found) == (
        "it runs VMs: qemu (pid 7)",
        "it has 0 MiB of memory left, 2048 MiB are needed",
    )


def test_what_is_no_fault_is_a_remark() -> None:
    found = replace(
        FIT, tainted=1 << 9 | 1 << 12, users=("admin pts/0",), failed_units=("a.service",)
    )
    assert sick(found) == ()
    assert remarks(found) == (
        "its kernel is tainted: kernel issued warning, out-of-tree module",
        "logged in: admin pts/0",
        "failed units: a.service",
    )


def test_bits_that_nobody_has_named_yet_are_told_by_number() -> None:
    assert taints(0) == ()
    assert taints(1 << 18 | 1 << 30) == ("in-kernel test", "unknown taint 30")


@pytest.mark.parametrize(
    "change, what",
    [
        ({"tainted": 1 << 9}, "new taints: kernel issued warning"),
        ({"disk_free": 9 * GIB}, "1024 MiB of disk are gone"),
        ({"memory": 63 * GIB}, "1024 MiB of memory are not there any more"),
        ({"memory_available": 50 * GIB}, "10240 MiB more of memory are in use"),
        ({"vms": (Process(7, "qemu"),)}, "VMs run: qemu (pid 7)"),
        ({"failed_units": ("a.service",)}, "units failed: a.service"),
        ({"cpus": (0, 3)}, "CPUs are not online any more: 1-2"),
    ],
)
def test_what_a_run_left_behind(change: dict[str, object], what: str) -> None:
    after = replace(FIT, **change)  # type: ignore[arg-type]
    assert left_behind(FIT, after) == (what,)
    assert left_behind(after, after) == ()


def test_a_log_that_grew_and_what_differs_between_boots_are_no_change() -> None:
    after = replace(
        FIT,
        disk_free=FIT.disk_free - (60 << 20),
        load=0.0,
        memory=FIT.memory - (15 << 20),
        memory_available=58 * GIB,
    )
    assert left_behind(FIT, after) == ()
