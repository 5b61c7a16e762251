# SPDX-License-Identifier: GPL-2.0-only
"""What a trip into another kernel does to a machine, step by step; no machine needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from fake_machine import GOOD, Ours, World, machine
from fake_shell import UnaskedShell

from harness.hosts.kexec import IMAGE, _load, _tidy, _Trip
from harness.hosts.leasing import LeaseLost
from harness.hosts.protocols import Boot
from harness.hosts.tenancy import Tenancy


def lost() -> Tenancy:
    return cast(Tenancy, Ours(LeaseLost("it is x's")))


class Copied(UnaskedShell):
    """Takes a file, and is asked to load no kernel."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, command: str, *_: Any, **__: Any) -> Any:
        assert command.startswith("mkdir ")

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.done.append(remote)


def test_what_is_anothers_is_not_tidied_up(tmp_path: Path) -> None:
    """FakeShell fails the test on any command."""
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    with pytest.raises(LeaseLost):
        _tidy(machine(World([GOOD])), lost(), _Trip(GOOD), wanted, cast(Any, None), frozenset())


def test_no_kernel_is_loaded_on_it(tmp_path: Path) -> None:
    shell, wanted = Copied(), Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    with pytest.raises(LeaseLost):
        _load(shell, lost(), machine(World([GOOD])).host, wanted, "")
    assert shell.done == [IMAGE]
