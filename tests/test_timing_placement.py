# SPDX-License-Identifier: GPL-2.0-only
"""Where on a host what is timed runs, and what is kept from there."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.guests import Guest
from harness.hosts.protocols import Result
from harness.timing import placement
from harness.timing.placement import Placement, choose, quiet

FOUR = Placement(vcpu=3, ager=2, others=(0, 1))


@pytest.mark.parametrize(
    ("usable", "nodes", "chosen"),
    [
        ((0,), {}, Placement(0, 0, ())),
        ((0, 1), {}, Placement(1, 0, ())),
        ((0, 1, 2, 3), {}, FOUR),
        # Two of one node, whatever the numbers between them are.
        ((0, 1, 2, 3), {0: 0, 1: 1, 2: 0, 3: 1}, Placement(3, 1, (0, 2))),
        # Of the other node is no CPU that may be used: better the same one.
        ((0, 1, 9), {0: 0, 1: 0, 9: 1}, Placement(9, 9, (0, 1))),
    ],
)
def test_who_runs_where(usable: tuple[int, ...], nodes: dict[int, int], chosen: Placement) -> None:
    assert choose(usable, nodes) == chosen


class Said(UnaskedShell):
    """Answers what it is given, by the beginning of a command, and keeps what was asked."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.asked.append(command)
        return Result(command, 0, self.answers.get(command.split()[0], ""), "")


def test_the_placement_of_a_host() -> None:
    """CPU 2 is off line, CPU 4 of another node."""
    cpus = "/sys/devices/system/cpu"
    ls = "".join(f"{cpus}/cpu{cpu}/node{cpu // 4}\n" for cpu in (0, 1, 3, 4, 5))
    shell = Said(ls=ls, taskset="Name:\tcat\nCpus_allowed_list:\t0-1,3-5\n")
    assert placement.of_host(shell) == Placement(vcpu=5, ager=4, others=(0, 1, 3))


def test_the_vcpu_is_bound_after_all_threads_were() -> None:
    shell = Said()

    class Vm:
        greeting = SimpleNamespace(pid=77)

        def pin(self, vcpu: int, cpu: int) -> None:
            shell.asked.append(f"pin {vcpu} {cpu}")

    placement.put(cast(Guest, Vm()), shell, FOUR)
    assert shell.asked == ["taskset -apc 2 77", "pin 0 3"]


def test_masks_are_the_kernels() -> None:
    assert placement._mask((0, 1)) == "00000003"
    assert placement._mask((0, 33)) == "00000002,00000001"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of a machine's files."""
    for name in ("IRQS", "WORK", "LATENCY"):
        monkeypatch.setattr(placement, name, str(tmp_path / name))
    return tmp_path


def _say(file: Path, value: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{value}\n")
    return file


def test_interrupts_and_work_of_the_kernel_go_elsewhere_and_come_back(machine: Path) -> None:
    one = _say(machine / "IRQS" / "1" / "smp_affinity_list", "0-3")
    other = _say(machine / "IRQS" / "20" / "smp_affinity_list", "3")
    work = _say(machine / "WORK", "f")
    with pytest.raises(ZeroDivisionError), quiet(LocalShell(), FOUR):
        assert {one.read_text(), other.read_text()} == {"0-1\n"}
        assert work.read_text() == "00000003\n"
        raise ZeroDivisionError
    assert (one.read_text(), other.read_text(), work.read_text()) == ("0-3\n", "3\n", "f\n")


def test_one_that_is_refused_keeps_no_other_from_it(machine: Path) -> None:
    (machine / "IRQS" / "0" / "smp_affinity_list").mkdir(parents=True)
    one = _say(machine / "IRQS" / "1" / "smp_affinity_list", "0-3")
    with quiet(LocalShell(), FOUR):
        assert one.read_text() == "0-1\n"
    assert one.read_text() == "0-3\n"


def test_more_interrupts_than_one_command_can_name(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(placement, "_AT_ONCE", 2)
    files = [_say(machine / "IRQS" / str(n) / "smp_affinity_list", str(n % 4)) for n in range(5)]
    with quiet(LocalShell(), FOUR):
        assert {file.read_text() for file in files} == {"0-1\n"}
    assert [file.read_text() for file in files] == ["0\n", "1\n", "2\n", "3\n", "0\n"]


def test_one_that_cannot_be_moved_keeps_no_other_from_it(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a timer's, which is each CPU's own: it can be read, and a write is refused."""
    refuses = _say(machine / "IRQS" / "11" / "smp_affinity_list", "0-3")
    other = _say(machine / "IRQS" / "20" / "smp_affinity_list", "3")
    shell = LocalShell()
    monkeypatch.setattr(
        shell,
        "run",
        lambda command, *a, **k: LocalShell.run(
            shell, command.replace(f"> {refuses} ", "> /dev/full "), *a, **k
        ),
    )
    with quiet(shell, FOUR):
        assert (refuses.read_text(), other.read_text()) == ("0-3\n", "0-1\n")
    assert other.read_text() == "3\n"


def test_who_balances_interrupts_is_stopped_meanwhile(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = _say(machine / "said", "")
    program = machine / "bin" / "pkill"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{said}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    with quiet(LocalShell(), FOUR):
        assert said.read_text().split("\n")[1:-1] == ["-STOP -x irqbalance"]
    assert said.read_text().split("\n")[2:-1] == ["-CONT -x irqbalance"]


@pytest.mark.parametrize("device", ["/dev/full", "/nonesuch/device"])
def test_a_machine_that_refuses_is_timed_all_the_same(
    machine: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    shell = LocalShell()
    monkeypatch.setattr(placement, "LATENCY", device)
    run = shell.run
    # As if it could be written to.
    monkeypatch.setattr(
        shell, "run", lambda command, *a, **k: run(command.replace("test -w", ": "), *a, **k)
    )
    with quiet(shell, FOUR):
        pass


def test_with_no_cpu_left_interrupts_stay(machine: Path) -> None:
    one = _say(machine / "IRQS" / "1" / "smp_affinity_list", "0-1")
    with quiet(LocalShell(), Placement(vcpu=1, ager=0, others=())):
        assert one.read_text() == "0-1\n"


def test_cpus_are_kept_awake_by_an_open_file(machine: Path) -> None:
    """The kernel forgets the request when the file is closed (kernel/power/qos.c)."""
    device = machine / "LATENCY"
    with quiet(LocalShell(), FOUR):
        assert not device.exists()
    device.touch()
    with quiet(LocalShell(), FOUR):
        assert device.read_bytes() == struct.pack("i", 0)
        assert _open_somewhere(device)
    assert not _open_somewhere(device)


def _open_somewhere(file: Path) -> bool:
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if link.readlink() == file:
                return True
        except OSError:
            continue
    return False
