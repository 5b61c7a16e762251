# SPDX-License-Identifier: GPL-2.0-only
"""kvm-harness cost --mutants, with what is counted given: what is caught, missed, or no number."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from harness import prepare
from harness.cost import neutral
from harness.cost.measure import Found
from harness.cost.mutants import NAME, Mutants
from harness.cost.options import CostOptions
from harness.errors import InfraError, UsageError
from harness.hosts import qemu
from harness.mutants import table
from harness.progress import Progress
from harness.report.text import EMULATION
from harness.results import Effect, Figure

COSTS = {name: one for name, one in table.load().mutants.items() if one.metric}
Ends = Mapping[str, Found | InfraError]


def found(metric: str | None, verdict: Effect = "worse") -> Found:
    one = Figure(
        metric=metric or "", what="", unit="", host="n1", kvm_mode="vhe", af_mode="hardware",
        base=(1340.21,), patched=(1788.21,), verdict=verdict,
    )  # fmt: skip
    return Found((one,))


@pytest.fixture
def tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, Mapping[str, list[str]]]]:
    """Tries all mutants that cost: the verdict, and the fields of each one's row.

    Each is caught unless another end is given for it.
    """

    def run(ends: Ends, expression: str | None = None) -> tuple[str, Mapping[str, list[str]]]:
        def count(self: Mutants, name: str, *_: Any) -> Found:
            end = ends.get(name, found(COSTS[name].metric))
            if isinstance(end, InfraError):
                raise end
            return end

        tree = SimpleNamespace(description="a tree", version="6.12.117")
        monkeypatch.setattr(Mutants, "_count", count)
        monkeypatch.setattr(qemu, "check_qemu", lambda: None)
        monkeypatch.setattr(prepare, "ground", lambda *_: SimpleNamespace(source=tree))
        monkeypatch.setattr(prepare, "kernel", lambda *_: None)
        monkeypatch.setattr(neutral, "kernels", lambda *_: {})
        mutants = Mutants(Progress(Console(quiet=True)), output=tmp_path)
        verdict = mutants.execute(CostOptions(True), jobs=1, expression=expression)
        text = (mutants.folder / NAME).read_text()
        assert EMULATION in " ".join(text.split())
        rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| `")]
        return verdict, {row[0].strip("`"): row[1:] for row in rows}

    return run


def test_all_are_caught(tried: Callable[..., tuple[str, Mapping[str, list[str]]]]) -> None:
    verdict, rows = tried({})
    assert verdict == "pass"
    assert rows.keys() == COSTS.keys()
    breaks, on, place, word, worse, others = rows["second-walk"]
    assert (breaks, on) == (COSTS["second-walk"].breaks, "base")
    assert re.fullmatch(r"[a-z0-9]+-(vhe|nvhe|protected)", place)
    assert (word, worse, others) == ("caught", "cost-notifier 1340.21 -> 1788.21", "")


@pytest.mark.parametrize(
    "end", [found("cost-notifier", "same"), found("cost-notifier", "better"), found("cost-idle")]
)
def test_one_that_its_own_cost_does_not_show_is_missed(
    tried: Callable[..., tuple[str, Mapping[str, list[str]]]], end: Found
) -> None:
    verdict, rows = tried({"second-walk": end, "idle-asks-twice": InfraError("no")})
    assert verdict == "fail"
    assert rows["second-walk"][3] == "**missed**"
    assert rows.keys() == COSTS.keys()


def test_one_that_is_no_number_keeps_no_other_from_being_tried(
    tried: Callable[..., tuple[str, Mapping[str, list[str]]]],
) -> None:
    verdict, rows = tried({next(iter(COSTS)): InfraError("no room\n| x")})
    assert verdict == "error"
    assert [row[3] for row in rows.values()] == [
        r"**error**: no room \| x",
        *["caught"] * (len(COSTS) - 1),
    ]


def test_only_mutants_that_cost_are_tried(
    tried: Callable[..., tuple[str, Mapping[str, list[str]]]],
) -> None:
    assert tried({}, "second-walk")[1].keys() == {"second-walk", "lockless-second-walk"}
    with pytest.raises(UsageError, match="no mutant that names a cost"):
        tried({}, "neutral-rename")
