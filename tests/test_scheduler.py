# SPDX-License-Identifier: GPL-2.0-only
"""Which cell is next: a machine of the lab runs one at a time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness import proc
from harness.scheduler import _end, _next


def spec(host: str, kind: str) -> Any:
    return SimpleNamespace(cell=SimpleNamespace(host=host), host=SimpleNamespace(kind=kind))


def running(*specs: Any) -> Any:
    return [SimpleNamespace(spec=one) for one in specs]


def test_a_machine_of_the_lab_runs_one_cell_at_a_time() -> None:
    first, second, other = spec("altra", "ssh"), spec("altra", "ssh"), spec("graviton", "ssh")
    assert _next([first, second, other], []) is first
    assert _next([second, other], running(first)) is other
    assert _next([second], running(first, other)) is None
    assert _next([second], running(other)) is second


def test_emulated_hosts_are_as_many_as_are_wanted() -> None:
    one, two = spec("n1", "qemu"), spec("n1", "qemu")
    assert _next([two], running(one)) is two
    assert _next([], running(one)) is None


@pytest.mark.parametrize("kind", ["ssh", "qemu"])
def test_a_machine_is_brought_home_through_another_ctrl_c(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    graces: list[float] = []
    said: list[str] = []

    def end(process: object, grace: float) -> None:
        graces.append(grace)
        if len(graces) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(proc, "end", end)
    cell: Any = SimpleNamespace(spec=spec("altra", kind), process=object())
    cell.spec.end_seconds = 1800.0
    if kind == "qemu":
        with pytest.raises(KeyboardInterrupt):
            _end(cell, said.append)
        return
    _end(cell, said.append)
    assert graces == [1800.0, 1800.0]
    assert said == ["altra is not home yet; Ctrl-C once more leaves it with whatever it runs"]
