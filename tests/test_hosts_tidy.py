# SPDX-License-Identifier: GPL-2.0-only
"""What a cell put on a machine is removed, unless it is another's; no machine needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from fake_machine import GOOD, Ours, World, machine

from harness.hosts import gate, pstore, tidy
from harness.hosts.leasing import LeaseLost
from harness.hosts.protocols import Boot
from harness.hosts.tenancy import Tenancy
from harness.hosts.tidy import LEFT, PSTORE


def test_what_is_anothers_is_not_tidied_up(tmp_path: Path) -> None:
    """FakeShell fails the test on any command."""
    wanted = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0)
    lost = cast(Tenancy, Ours(LeaseLost("it is x's")))
    with pytest.raises(LeaseLost):
        tidy.tidy(machine(World([GOOD])), lost, wanted, cast(Any, None), frozenset())


def recorded(monkeypatch: pytest.MonkeyPatch, done: list[str]) -> None:
    """What clear(), gate and pstore do to a machine is written down instead."""
    monkeypatch.setattr(tidy, "clear", lambda _: done.append("clear"))

    def collect(_: object, before: frozenset[str], folder: Path) -> None:
        done.append(f"crashes but {sorted(before)} to {folder.name}")

    def dismiss(*given: object) -> tuple[str, ...]:
        done.append(f"health, {given[-1]}")
        return ("1 GiB is gone",)

    monkeypatch.setattr(pstore, "collect", collect)
    monkeypatch.setattr(gate, "dismiss", dismiss)


def test_a_machine_is_tidied_up_and_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    recorded(monkeypatch, done)
    wanted, ours = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0), cast(Tenancy, Ours())
    before = cast(Any, None)
    tidy.tidy(machine(World([GOOD])), ours, wanted, before, frozenset({"/old"}))
    assert done == ["clear", f"crashes but ['/old'] to {PSTORE}", "health, ()"]
    assert (tmp_path / LEFT).read_text() == "1 GiB is gone\n"


def test_what_the_kernel_of_the_cell_said_of_the_machine_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    recorded(monkeypatch, done)
    bad = "Memory failure: 0x41a: recovery action for dirty LRU page: Recovered"
    (tmp_path / "console.log").write_text(f"[    1.000000] {bad}\r\n")
    wanted, ours = Boot(tmp_path, (), {}, tmp_path, "run-1", 1.0), cast(Tenancy, Ours())
    tidy.tidy(machine(World([GOOD])), ours, wanted, cast(Any, None), frozenset())
    assert done[-1] == f"health, {(bad,)}"
