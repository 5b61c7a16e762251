# SPDX-License-Identifier: GPL-2.0-only
"""Which cell is next, and on which machine; what is told of cells that were spread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from harness.cell import BOOTED, Booted
from harness.plan import PlannedCell
from harness.records import write_atomically
from harness.results import Cell, CpuAf
from harness.spread import Spread, began, notes, taken

MODES: Any = ("vhe", "nvhe", "protected")


def spec(cell: PlannedCell, machine: str, kind: str = "ssh") -> Any:
    host = SimpleNamespace(kind=kind)
    return SimpleNamespace(cell=cell, machine=machine, host=host, folder=Path(cell.id))


def cells(place: str, *modes: str) -> list[PlannedCell]:
    kernels: Any = ("base", "patched")
    return [
        PlannedCell(place, kernel, mode, "hardware")
        for mode in MODES
        if mode in (modes or MODES)
        for kernel in kernels
    ]


def group(*machines: str, modes: Sequence[str] = ()) -> list[list[Any]]:
    """The cells of the group "altra", each with all its machines."""
    return [[spec(cell, one) for one in machines] for cell in cells("altra", *modes)]


def played(spread: Spread, lose: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """Cells with their machines, in the order in which they end: all that run end at once.

    `lose` has machines by the id of the cell in which each is lost.
    """
    ended = []
    while spread.waiting:
        running: list[Any] = []
        for stranded, _ in spread.stranded():
            ended.append((stranded.cell.id, ""))
        while (found := spread.take(running)) is not None:
            assert found.machine not in {one.machine for one in running}
            running.append(found)
        for one in running:
            if (lose or {}).get(one.cell.id) == one.machine:
                spread.lose(one.machine, f"{one.machine} is lost")
                if spread.elsewhere(one):
                    spread.again(one.folder)
                    continue
            ended.append((one.cell.id, one.machine))
    return ended


def test_one_machine_runs_all_in_their_order() -> None:
    spread = Spread(group("a"), jobs=8)
    assert played(spread) == [(cell.id, "a") for cell in cells("altra")]


def test_two_machines_run_at_the_same_time_and_what_is_compared_stays_together() -> None:
    found = played(Spread(group("a", "b"), jobs=1))
    assert found == [
        ("altra-vhe-base", "a"),
        ("altra-nvhe-base", "b"),
        ("altra-vhe-patched", "a"),
        ("altra-nvhe-patched", "b"),
        ("altra-protected-base", "a"),
        ("altra-protected-patched", "a"),
    ]


def test_more_machines_than_modes_are_not_all_used() -> None:
    found = played(Spread(group("a", "b", "c", "d"), jobs=1))
    assert {machine for _, machine in found} == {"a", "b", "c"}
    assert len(found) == 6


def test_a_member_that_runs_cells_of_its_own_runs_one_at_a_time() -> None:
    own = [[spec(cell, "a")] for cell in cells("a", "vhe")]
    found = played(Spread([*group("a", "b", modes=["vhe"]), *own], jobs=1))
    assert sorted(found) == [
        ("a-vhe-base", "a"),
        ("a-vhe-patched", "a"),
        ("altra-vhe-base", "a"),
        ("altra-vhe-patched", "a"),
    ]


def test_emulated_hosts_are_as_many_as_are_wanted_beside_the_machines_of_the_lab() -> None:
    emulated = [[spec(cell, "n1", "qemu")] for cell in cells("n1")]
    spread = Spread([*emulated, *group("a", "b")], jobs=2)
    running: list[Any] = []
    while (found := spread.take(running)) is not None:
        running.append(found)
    assert [one.machine for one in running] == ["n1", "n1", "a", "b"]


def test_the_cells_of_a_lost_machine_go_to_another_and_none_of_the_others_are_lost() -> None:
    found = played(Spread(group("a", "b"), jobs=1), {"altra-vhe-patched": "a"})
    assert ("altra-vhe-base", "a") in found, "what it had done stays"
    assert dict(found) == {cell.id: "b" for cell in cells("altra")} | {"altra-vhe-base": "a"}
    assert len(found) == 6


def test_cells_that_no_machine_is_left_for_end_with_the_reasons() -> None:
    both = [*group("a"), *([spec(cell, "g")] for cell in cells("grav", "vhe"))]
    spread = Spread(both, jobs=1)
    first = spread.take([])
    assert first.machine == "a"  # type: ignore[union-attr]
    spread.lose("a", "a was lost: it burns")
    stranded = spread.stranded()
    assert [one.cell.id for one, _ in stranded] == [cell.id for cell in cells("altra")[1:]]
    assert {why for _, why in stranded} == {"no machine is left for it: a was lost: it burns"}
    assert [path.name for path in spread.waiting] == ["grav-vhe-base", "grav-vhe-patched"]
    assert spread.stranded() == ()


def test_there_is_nothing_elsewhere_if_no_machine_is_left() -> None:
    spread = Spread(group("a", modes=["vhe"])[:1], jobs=1)
    found = spread.take([])
    spread.lose("a", "x")
    assert found is not None
    assert not spread.elsewhere(found)


def test_a_machine_that_was_lost_before_takes_nothing() -> None:
    spread = Spread(group("a", "b"), jobs=1)
    spread.lose("a", "x")
    assert {machine for _, machine in played(spread)} == {"b"}


def test_a_run_that_goes_on_leaves_cells_where_their_base_has_run() -> None:
    done = record("altra-vhe-base", "base", "b")
    rest = group("a", "b", modes=["vhe"])[1:]
    assert played(Spread(rest, jobs=1, has=taken([done]))) == [("altra-vhe-patched", "b")]
    lost = Spread(rest, jobs=1, has=taken([done]))
    lost.lose("b", "x")
    assert played(lost) == [("altra-vhe-patched", "a")]


def record(name: str, kernel: Any, machine: str, midr: str = "0x1", **values: Any) -> Cell:
    af = CpuAf(cpus="0", midr=midr, model="", expected="hardware", why="")
    return Cell(
        id=name, host="altra", machine=machine, kernel=kernel, kvm_mode="vhe",
        af_mode="hardware", af_cpus=(af,), outcome="pass", **values,
    )  # fmt: skip


def test_what_ran_apart_is_told() -> None:
    base, patched = record("b", "base", "a1"), record("p", "patched", "a1")
    assert notes([base, patched]) == ("cells of altra by machine: a1 (2)",)
    elsewhere = record("p", "patched", "a2", midr="0x2", earlier=("a1: it burns\nand more",))
    assert notes([base, elsewhere]) == (
        "cells of altra by machine: a1 (1), a2 (1)",
        "machines of altra have different CPUs: 0x1, 0x2",
        "p ran on a2 and is compared with b, which ran on a1",
        "p ended on a2 after it had begun on a1: it burns",
    )


def test_of_hosts_without_a_group_nothing_is_told() -> None:
    assert notes([record("b", "base", "altra"), record("p", "patched", "")]) == ()


def test_a_run_that_goes_on_knows_where_a_cell_had_begun(tmp_path: Path) -> None:
    cell = PlannedCell("altra", "base", "vhe", "hardware")
    spec: Any = SimpleNamespace(cell=cell, folder=tmp_path)
    assert began([spec]) == {}
    proven: Any = {"build_id": "ab", "boot_id": "cd", "kvm_line": "kvm", "boot_seconds": 1.0}
    write_atomically(tmp_path / BOOTED, Booted(**proven, machine="altra2"))
    assert began([spec]) == {("altra", "vhe"): "altra2"}
