# SPDX-License-Identifier: GPL-2.0-only
"""MGLRU's commands, from what lru_gen shows of a memcg."""

from __future__ import annotations

import shlex

import pytest
from fake_shell import UnaskedShell

from harness.checks.mglru import (
    CGROUP,
    OTHER_CGROUP,
    SWAPS,
    ZSWAP,
    Memcg,
    born_in_memcg,
    comes_first,
    zram_swap,
)
from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven


class LruGen:
    """A shell on which lru_gen alone can be read and written: each `+` makes a generation."""

    def __init__(self, memcgs: dict[str, list[int]]) -> None:
        self.memcgs = memcgs
        self.sent: list[str] = []

    def read(self, path: str) -> str:
        assert path.endswith("lru_gen")
        text = ""
        for number, (name, sequences) in enumerate(self.memcgs.items(), start=1):
            text += f"memcg {number:5d} {name}\n node {0:5d}\n"
            text += "".join(f" {seq:10d} {100:10d} {5:10d} {0:11d} \n" for seq in sequences)
        return text

    def run(self, command: str) -> None:
        name, text = command.split("; ", 1)
        assert name == "printf %s kvmh-ager > /proc/self/comm"
        text, path = shlex.split(text)[2:5:2]
        assert path.endswith("lru_gen")
        self.sent.append(text)
        if text.startswith("+"):
            chosen = list(self.memcgs)[int(text.split()[1]) - 1]
            self.memcgs[chosen].append(self.memcgs[chosen][-1] + 1)


def memcg(shell: LruGen, path: str = CGROUP) -> Memcg:
    return Memcg(shell, files=False, path=path)  # type: ignore[arg-type]


def test_a_walk_is_forced_unless_it_is_not_to_be() -> None:
    shell = LruGen({"/kvm-harness": [3, 4]})
    memcg(shell).walk()
    memcg(shell).walk(force=False)
    assert shell.sent == ["+ 1 0 4 1 1", "+ 1 0 5 1 0"]


def test_with_as_many_generations_as_there_can_be_no_walk_is_left_to_the_kernel() -> None:
    shell = LruGen({"/kvm-harness": [3, 4, 5, 6]})
    with pytest.raises(Unproven, match="4 generations"):
        memcg(shell).walk(force=False)
    assert not shell.sent


def test_a_memcg_is_told_from_the_one_beside_it() -> None:
    shell = LruGen({"/kvm-harness": [3, 4], "/kvm-harness-other": [7, 8]})
    memcg(shell, OTHER_CGROUP).walk()
    memcg(shell).walk()
    assert shell.sent == ["+ 2 0 8 1 1", "+ 1 0 4 1 1"]


class Owner:
    """A guest that says when it is started and closed."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def close(self) -> None:
        self.said.append("close")


class Folders(UnaskedShell):
    """Says what is made and removed."""

    def __init__(self, said: list[str]) -> None:
        self.said = said

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        self.said.append(command)
        return Result(command, 0, "", "")


def test_a_guest_is_in_its_memcg_from_the_first_and_gone_before_it() -> None:
    said: list[str] = []

    def guest(**options: object) -> Owner:
        said.append(f"start {options}")
        return Owner(said)

    with born_in_memcg(guest, Folders(said), pages=3):  # type: ignore[arg-type]
        said.append("used")
    start = f"start {{'cgroup': '{CGROUP}', 'pages': 3}}"
    assert said == [f"mkdir -p {CGROUP}", start, "used", "close", f"rmdir {CGROUP}"]


# ---- swap -----------------------------------------------------------------------------------

HEADER = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
OURS = "/dev/zram3                              partition\t262140\t\t0\t\t{0}\n"
OTHERS = "/dev/zram0                              partition\t8388604\t\t512\t\t100\n"
FILE = "/swap.img                               file\t\t4194300\t\t0\t\t-2\n"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        (HEADER + OURS.format(-2), True),
        (HEADER + OTHERS + FILE + OURS.format(32767), True),
        (HEADER + OURS.format(100) + OTHERS, False),
        (HEADER + FILE + OURS.format(-3), False),
        (HEADER + FILE, False),
    ],
)
def test_whose_swap_is_filled_first(text: str, first: bool) -> None:
    assert comes_first(text, "/dev/zram3") == first


class Swapping(UnaskedShell):
    """A host that makes zram3, and has zswap or not."""

    def __init__(self, zswap: str, swaps: str) -> None:
        self.zswap, self.swaps = zswap, swaps
        self.done: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if command == f"cat {ZSWAP}":
            return Result(command, 0, self.zswap, "")
        self.done.append(command)
        return Result(command, 0, "", "")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        return {SWAPS: self.swaps, "/sys/class/zram-control/hot_add": "3\n"}[path]

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        assert path == ZSWAP
        self.done.append(f"zswap {text.strip()}")


@pytest.mark.parametrize(("zswap", "off"), [("Y\n", True), ("N\n", False), ("", False)])
def test_swap_is_of_our_own_and_goes_past_zswap(zswap: str, off: bool) -> None:
    host = Swapping(zswap, HEADER + OTHERS + OURS.format(32767))
    with zram_swap(host):
        assert (host.done[0] == "zswap N") == off
        assert host.done[-1].startswith("mkswap /dev/zram3 ")
        assert not any("zram0" in one for one in host.done)
        there = len(host.done)
    swapoff, remove, *last = host.done[there:]
    assert swapoff.endswith("swapoff /dev/zram3")
    assert "hot_remove" in remove
    assert last == ["zswap Y"] * off


def test_swap_that_is_not_filled_first_proves_nothing() -> None:
    host = Swapping("Y\n", HEADER + FILE + OURS.format(-3))
    with pytest.raises(Unproven, match="swap of its own"):
        zram_swap(host).__enter__()
    assert host.done[-1] == "zswap Y"
    assert "hot_remove" in host.done[-2]
