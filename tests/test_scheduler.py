# SPDX-License-Identifier: GPL-2.0-only
"""What becomes of cells and machines: those that are lost take nothing with them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness import proc, resume, scheduler
from harness.deadline import Deadline
from harness.hosts import aside
from harness.plan import PlannedCell
from harness.records import append, of_cell, read
from harness.results import Cell, Check
from harness.scheduler import _end


def spec(host: str, kind: str) -> Any:
    return SimpleNamespace(machine=host, host=SimpleNamespace(kind=kind))


class Lab:
    """Cells whose processes are over at once, and leave what `ends` has for each machine."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.ends: dict[str, Callable[[Any], None]] = {}
        self.ran: list[tuple[str, str]] = []
        self.said: list[str] = []
        self.cells: dict[str, Cell] = {}
        self.checks: dict[str, tuple[Check, ...]] = {}
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
        monkeypatch.setattr(scheduler, "_start", self._start)
        monkeypatch.setattr(proc, "end", lambda *_, **__: None)

    def _start(self, spec: Any, _: object) -> Any:
        self.ran.append((spec.cell.id, spec.machine))
        spec.folder.mkdir(parents=True, exist_ok=True)
        before = len(read(spec.folder / resume.RECORDS))
        self.ends.get(spec.machine, passes)(spec)
        process = SimpleNamespace(poll=lambda: 0, pid=0)
        log = spec.folder / "log"
        return scheduler._Running(spec, cast(Any, process), Deadline(60), log, before)

    def choices(self, *machines: str, modes: Any = ("vhe", "nvhe")) -> list[list[Any]]:
        kernels: Any = ("base", "patched")
        cells = [PlannedCell("altra", one, mode, "hardware") for mode in modes for one in kernels]
        return [[Spec(cell, one, self.folder / cell.id) for one in machines] for cell in cells]

    def run(self, choices: list[list[Any]], **options: Any) -> None:
        def finished(spec: Any, cell: Cell, checks: tuple[Check, ...]) -> None:
            assert cell.id not in self.cells
            self.cells[cell.id], self.checks[cell.id] = cell, checks

        scheduler.run_cells(
            [first for first, *_ in choices],
            jobs=1,
            finished=finished,
            tick=lambda _: None,
            say=self.said.append,
            others={first.cell.id: more for first, *more in choices},
            **options,
        )


class Spec(SimpleNamespace):
    """What a scheduler must know of a cell."""

    def __init__(self, cell: PlannedCell, machine: str, folder: Path) -> None:
        host = SimpleNamespace(kind="ssh")
        super().__init__(cell=cell, machine=machine, folder=folder, host=host, end_seconds=1.0)

    def model_copy(self, update: object) -> Spec:
        return self

    def record(self, *args: Any, **values: Any) -> Cell:
        made = self.cell.record(*args, **values).model_copy(update={"machine": self.machine})
        return cast(Cell, made)


def say(spec: Any, name: str, **values: Any) -> None:
    given = {"outcome": "pass", "expected": "e", "observed": "o", **values}
    append(spec.folder / resume.RECORDS, Check(cell=spec.cell.id, name=name, **given))


def end(spec: Any, outcome: Any, reason: str = "", lost: str | None = None) -> None:
    made = spec.record(outcome, reason).model_copy(update={"lost": lost})
    append(spec.folder / resume.RECORDS, made)


def passes(spec: Any) -> None:
    _, checks = resume.recorded(spec.folder)
    for name in {"test_a", "test_b"} - {check.name for check in checks}:
        say(spec, name)
    end(spec, "pass")


def burns(spec: Any) -> None:
    """After its first check, in its second."""
    say(spec, "test_a")
    say(spec, "test_b", outcome="error", death="hang", reason="no answer")
    (spec.folder / "console.log").write_text("[    0.000000] Linux version 6\n")
    end(spec, "error", f"{spec.machine} was lost: it burns", "down")


def is_busy(spec: Any) -> None:
    end(spec, "error", f"{spec.machine} was not to be had: in use", "unavailable")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


def test_cells_of_a_lost_machine_go_to_another(lab: Lab) -> None:
    """What it had recorded is kept; the check in which it was lost is made again."""
    lab.ends["a"] = burns
    lab.run(lab.choices("a", "b"))
    assert {cell.outcome for cell in lab.cells.values()} == {"pass"}
    assert {cell.machine for cell in lab.cells.values()} == {"b"}
    moved = lab.cells["altra-vhe-base"]
    assert moved.earlier == ("a: a was lost: it burns",)
    assert {cell.id for cell in lab.cells.values() if cell.earlier} == {moved.id}
    assert [machine for _, machine in lab.ran].count("a") == 1
    found = {check.name: (check.outcome, check.death) for check in lab.checks[moved.id]}
    assert found == {"test_a": ("pass", None), "test_b": ("pass", None)}
    assert len(lab.checks[moved.id]) == 2
    assert (lab.folder / moved.id / "cut-1/console.log").exists()
    assert lab.said == ["altra-vhe-base goes to another machine: a was lost: it burns"]


def test_a_cell_that_took_two_machines_down_goes_to_no_third(lab: Lab) -> None:
    lab.ends = {"a": burns, "b": burns}
    lab.run(lab.choices("a", "b", "c", modes=["vhe"]))
    assert lab.ran == [
        ("altra-vhe-base", "a"),
        ("altra-vhe-base", "b"),
        ("altra-vhe-patched", "c"),
    ]
    cell = lab.cells["altra-vhe-base"]
    assert (cell.outcome, cell.lost, cell.machine) == ("error", "down", "b")
    assert cell.reason == "b was lost: it burns"
    assert cell.earlier == ("a: a was lost: it burns",)
    (silent,) = [check for check in lab.checks[cell.id] if check.name == "test_b"]
    assert (silent.outcome, silent.death) == ("error", None), "nothing against the kernel"
    assert lab.cells["altra-vhe-patched"].outcome == "pass"


def test_a_second_machine_that_leaves_no_record_is_not_judged_by_the_first(lab: Lab) -> None:
    lab.ends = {"a": burns, "b": lambda spec: None}
    lab.run(lab.choices("a", "b", "c", modes=["vhe"]))
    cell = lab.cells["altra-vhe-base"]
    assert (cell.outcome, cell.lost, cell.machine) == ("error", None, "b")
    assert "without a verdict" in cell.reason
    assert cell.earlier == ("a: a was lost: it burns",)
    assert [machine for _, machine in lab.ran] == ["a", "b", "b"]


def test_machines_that_are_not_to_be_had_do_not_count_against_a_cell(lab: Lab) -> None:
    lab.ends = {"a": is_busy, "b": is_busy, "c": is_busy}
    lab.run(lab.choices("a", "b", "c", "d", modes=["vhe"]))
    assert {cell.outcome for cell in lab.cells.values()} == {"pass"}
    assert {cell.machine for cell in lab.cells.values()} == {"d"}


def test_a_machine_without_another_like_it_is_asked_again_for_each_cell(lab: Lab) -> None:
    """Somebody's work on it may be over by then."""
    asked: list[str] = []

    def is_busy_first(spec: Any) -> None:
        asked.append(spec.cell.id)
        (is_busy if len(asked) == 1 else passes)(spec)

    lab.ends["a"] = is_busy_first
    lab.run(lab.choices("a", modes=["vhe"]))
    assert asked == ["altra-vhe-base", "altra-vhe-patched"]
    assert lab.cells["altra-vhe-base"].reason == "a was not to be had: in use"
    assert lab.cells["altra-vhe-patched"].outcome == "pass"


def test_with_no_machine_left_the_others_results_are_kept(lab: Lab) -> None:
    """A machine of no group is lost alone."""
    lab.ends["a"] = burns
    other = [[Spec(PlannedCell("g", "base", "vhe", "software"), "g", lab.folder / "g-vhe-base")]]
    lab.run([*lab.choices("a"), *other])
    assert lab.cells["g-vhe-base"].outcome == "pass"
    assert [one for one in lab.ran if one[1] == "a"] == [("altra-vhe-base", "a")]
    first = lab.cells.pop("altra-vhe-base")
    assert (first.machine, first.lost) == ("a", "down")
    del lab.cells["g-vhe-base"]
    why = "no machine is left for it: a was lost: it burns"
    assert [(one.reason, one.machine, one.lost) for one in lab.cells.values()] == [
        (why, "", "unavailable")
    ] * 3
    on_disk = of_cell(lab.folder / "altra-nvhe-base" / resume.RECORDS)
    assert on_disk.cell == lab.cells["altra-nvhe-base"]


def test_a_machine_that_a_cell_left_sick_runs_no_other(lab: Lab) -> None:
    """The cell's own result stands."""

    def passes_and_leaves_it_sick(spec: Any) -> None:
        passes(spec)
        aside.set_aside(spec.machine, ("its disk is full",))

    lab.ends["a"] = passes_and_leaves_it_sick
    lab.run(lab.choices("a", "b", modes=["vhe"]))
    assert [machine for _, machine in lab.ran] == ["a", "b"]
    assert {cell.outcome for cell in lab.cells.values()} == {"pass"}


def test_what_is_left_for_a_machine_that_is_sick_ends_with_the_reason(lab: Lab) -> None:
    def passes_and_leaves_it_sick(spec: Any) -> None:
        passes(spec)
        aside.set_aside(spec.machine, ("its disk is full",))

    lab.ends["a"] = passes_and_leaves_it_sick
    lab.run(lab.choices("a", modes=["vhe"]))
    assert lab.cells["altra-vhe-base"].outcome == "pass"
    assert re.fullmatch(
        "no machine is left for it: a was set aside since .*: its disk is full",
        lab.cells["altra-vhe-patched"].reason,
    )


def test_a_run_that_goes_on_takes_up_a_cell_that_had_lost_its_machine(lab: Lab) -> None:
    ((here, there),) = lab.choices("a", "b", modes=["vhe"])[:1]
    here.folder.mkdir()
    burns(here)
    cell, checks = resume.recorded(here.folder)
    assert cell is None
    assert [check.name for check in checks] == ["test_a"]
    burns(there)
    cell, _ = resume.recorded(here.folder)
    assert cell is not None
    assert cell.machine == "b"


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
