# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels tell what is no difference, and what becomes of those that cannot be had."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness import inventory, prepare
from harness.cost import measure, neutral, of_run
from harness.cost.options import CostOptions
from harness.errors import InfraError, UsageError
from harness.options import Options
from harness.progress import Progress
from harness.runinput import RunInput
from harness.runrecord import RunRecord

ANY: Any = None


def made(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> tuple[set[str], str]:
    """The names of those that were made, where the first does not apply; and what was said."""
    errors = [error]

    def patched_tree(*_: object) -> str:
        if errors and (first := errors.pop()) is not None:
            raise first
        return "a tree"

    monkeypatch.setattr(prepare, "patched_tree", patched_tree)
    monkeypatch.setattr(prepare, "kernel", lambda label, *_: label)
    out = io.StringIO()
    return set(neutral.kernels(ANY, ANY, Progress(Console(file=out, width=200)))), out.getvalue()


ALL = {"neutral-comment", "neutral-rename", "neutral-reorder", "neutral-helper"}


def test_the_neutral_mutants_of_the_base_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    assert made(monkeypatch) == (ALL, "")


def test_one_that_does_not_apply_is_left_out_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    names, said = made(monkeypatch, UsageError("it does not apply"))
    assert len(names) == 3
    assert "tells nothing of costs here: it does not apply" in said


def test_trouble_of_the_machine_is_no_reason_to_leave_one_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InfraError):
        made(monkeypatch, InfraError("no room on the disk"))


@pytest.mark.parametrize(
    ("made_of_it", "wanted", "notes"),
    [({}, True, (neutral.NONE,)), ({"neutral-comment": ANY}, True, ()), ({}, False, ())],
)
def test_a_run_without_any_says_so(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    made_of_it: dict[str, Any],
    wanted: bool,
    notes: tuple[str, ...],
) -> None:
    """Layouts alone tell what is no difference then, which its figures do not say."""
    monkeypatch.setattr(neutral, "kernels", lambda *_: made_of_it)
    monkeypatch.setattr(measure, "measure", lambda *_, **__: measure.Found())
    monkeypatch.setattr(of_run, "cost_program", lambda *_: None)
    prepared: Any = SimpleNamespace(
        kernels_of=lambda _: {"base": None}, ground=SimpleNamespace(source=None)
    )
    cells: Any = [SimpleNamespace(host="n1", kvm_mode="vhe")]
    options = Options(cost=CostOptions(True, neutral=wanted), jobs=1)
    progress = Progress(Console(quiet=True))
    found = of_run.count(inventory.load(), cells, prepared, None, tmp_path, progress, options)
    assert found.notes == notes
    record = RunRecord(tmp_path, 1, False, [], [], costs=found)
    given = RunInput(schema=1, started="", cwd=tmp_path, options={}, inputs={})
    assert record.write("", given).notes == notes
