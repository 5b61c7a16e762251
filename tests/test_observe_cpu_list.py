# SPDX-License-Identifier: GPL-2.0-only
"""CPUs by their numbers, which need not follow each other."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.checks.cpus import NOHZ_FULL, free_cpu
from harness.deadline import Deadline
from harness.hosts.protocols import Result
from harness.observe.cpu_list import allowed, last, parse, usable
from harness.observe.errors import ObserveError
from harness.observe.unproven import Unproven

STATUS = "Name:\tcat\nCpus_allowed:\tf0f\nCpus_allowed_list:\t{}\nMems_allowed_list:\t0\n"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0\n", (0,)),
        ("0-3,8-11\n", (0, 1, 2, 3, 8, 9, 10, 11)),
        ("79", (79,)),
        # nohz_full where no CPU is
        ("\n", ()),
        ("(null)\n", ()),
    ],
)
def test_a_list(text: str, cpus: tuple[int, ...]) -> None:
    assert parse(text, "x") == cpus


@pytest.mark.parametrize(
    "text", ["-", "0-", "0,", ",0", "0 1", "3-0", "0-999999999", "a", "0-3\n8", "\N{DIGIT ONE}٣"]
)
def test_nonsense_is_none(text: str) -> None:
    with pytest.raises(ObserveError, match="online:1: not a list of CPUs"):
        parse(text, "online")


def test_where_a_task_may_run() -> None:
    assert allowed(STATUS.format("0-1,8")) == (0, 1, 8)
    for text in ("", "Cpus_allowed_list:\t\n", "Name:\tCpus_allowed_list:\t3\n"):
        with pytest.raises(ObserveError, match="names no CPU"):
            allowed(text)


def test_a_shell_of_this_machine() -> None:
    """Also one that is on one of its CPUs alone."""
    here = os.sched_getaffinity(0)
    found = usable(LocalShell())
    assert set(found) >= here and found == tuple(sorted(found))
    try:
        os.sched_setaffinity(0, {min(here)})
        assert usable(LocalShell()) == found
        assert last(LocalShell()) == found[-1]
    finally:
        os.sched_setaffinity(0, here)


class Host(UnaskedShell):
    def __init__(self, tickless: str, cpus: str) -> None:
        self._answers = {f"cat {NOHZ_FULL}": f"{tickless}\n"}
        self._status = STATUS.format(cpus)

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        return Result(command, 0, self._answers.get(command, self._status), "")


CELL: Any = SimpleNamespace(tickless=True)


def test_the_free_cpu_is_one_that_can_be_used() -> None:
    assert free_cpu(Host("11", "0-3,8-11"), CELL) == 11
    assert free_cpu(Host("3,11", "0-3"), CELL) == 3
    for tickless in ("", "(null)"):
        with pytest.raises(Unproven, match="has no CPU without a tick"):
            free_cpu(Host(tickless, "0-3"), CELL)
    with pytest.raises(Unproven, match="no CPU without a tick can be used, of 4-5"):
        free_cpu(Host("4-5", "0-3"), CELL)
