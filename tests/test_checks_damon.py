# SPDX-License-Identifier: GPL-2.0-only
"""DAMON as a driver: how it is set up, what its tracepoint says, and that it is switched off."""

from __future__ import annotations

import pytest
from fake_shell import UnaskedShell
from test_keeper import GUEST, FakeProcess, FakeShell

from harness.checks import damon
from harness.checks.damon import FOLDER, Region
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.guests import Guest
from harness.hosts.protocols import Result
from harness.observe.errors import ObserveError
from harness.observe.trace import Event
from harness.observe.unproven import Unproven

# As seen on Linux 6.12.117.
SEEN = "target_id=0 nr_regions=64 281473324449792-281473324453888: 1 0"
STARTS = (0x10000, 0x20000, 0x30000)


def event(text: str) -> Event:
    return Event(0, 0, "kdamond.0", 61, damon.AGGREGATED, text, {})


class Host(UnaskedShell):
    """Its DAMON has a thread that is asleep when it was looked at so many times."""

    def __init__(self, *, kdamonds: str = "0", looks: int = 3) -> None:
        self.kdamonds = kdamonds
        self.looks = looks
        self.commands: list[str] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if command.startswith(f"cat {FOLDER}/nr_kdamonds"):
            return Result(command, 0, self.kdamonds, "")
        self.commands.append(command)
        return Result(command, 0, "61\n" if "echo on >" in command else "", "")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        assert path == "/proc/61/stat"
        self.looks -= 1
        return f"61 (kdamond (0)) {'R' if self.looks > 0 else 'I'} 2 0 0"


def test_what_a_region_was_found_to_be() -> None:
    start = 281473324449792
    assert damon.results([event(SEEN), event(f" {SEEN}")]) == (Region(start, start + 4096, 1),) * 2


@pytest.mark.parametrize("text", ["", SEEN[:-2], SEEN.replace(": 1", ": -1"), f"{SEEN} more"])
def test_another_form_is_no_answer(text: str) -> None:
    with pytest.raises(ObserveError, match="unknown form"):
        damon.results([event(text)])


def test_regions_are_neither_merged_nor_split() -> None:
    lines = damon.script(54, STARTS, 0x1000).splitlines()
    assert "echo 3 > nr_regions/max; echo 3 > nr_regions/min" in lines
    assert f"echo {0x20000} > 1/start; echo {0x21000} > 1/end" in lines
    assert any(line.endswith("echo 54 > pid_target") for line in lines)
    assert f"echo {damon.INTERVAL} > intervals/sample_us" in lines
    assert lines.index(f"echo on > {FOLDER}/0/state") == len(lines) - 2


@pytest.mark.parametrize("starts", [STARTS[:2], (*STARTS, STARTS[0]), (*STARTS, STARTS[2])])
def test_regions_that_damon_refuses_are_not_asked_for(starts: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="rising"):
        damon.script(54, starts, 0x1000)


def test_it_is_asleep_before_anything_else_happens_and_gone_at_the_end() -> None:
    host = Host()
    with damon.sampling(host, 54, STARTS, 0x1000, 1.0) as finish:
        assert host.looks == 0
        finish()
        assert host.commands[-1] == f"echo off > {FOLDER}/0/state"
    assert host.commands[-1].endswith(f"echo 0 > {FOLDER}/nr_kdamonds")


def test_it_asks_about_every_page_all_the_time_on_a_cpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    host = Host()
    monkeypatch.setattr(damon, "leave_last", lambda vm, shell: 7)
    vm = Guest.start(FakeShell(FakeProcess([GUEST])))
    with damon.asking(vm, host):
        setup, pinned = host.commands
        assert pinned == "taskset -pc 7 61"
        assert f"echo {damon.BUSY_INTERVAL} > intervals/sample_us" in setup
        assert "echo 4096 > nr_regions/min" in setup
        first = 0xFFFFABE00000
        assert f"echo {first} > 0/start; echo {first + 4096} > 0/end" in setup
    assert host.commands[-1].endswith(f"echo 0 > {FOLDER}/nr_kdamonds")


def test_it_is_gone_after_a_failure_too() -> None:
    host = Host()
    with pytest.raises(InfraError, match="first"), damon.sampling(host, 54, STARTS, 4096, 1.0):
        raise InfraError("first")
    assert host.commands[-1].endswith(f"echo 0 > {FOLDER}/nr_kdamonds")


@pytest.mark.parametrize("kdamonds", ["", "1"])
def test_without_a_damon_of_our_own_nothing_is_proven(kdamonds: str) -> None:
    host = Host(kdamonds=kdamonds)
    with pytest.raises(Unproven, match="no free DAMON"):
        damon.sampling(host, 54, STARTS, 4096, 1.0).__enter__()
    assert not host.commands


def test_a_damon_that_takes_no_samples_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damon, "PATIENCE", 0.0)
    with (
        pytest.raises(Unproven, match="did not take its samples"),
        damon.sampling(Host(looks=9), 54, STARTS, 4096, 1.0),
    ):
        pass
