# SPDX-License-Identifier: GPL-2.0-only
"""A cell whose machine is lost says so, and names it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import cell
from harness.errors import HarnessError, HostDied, HostLost, InfraError
from harness.plan import PlannedCell


@pytest.mark.parametrize(
    ("error", "reason", "lost"),
    [
        (HostLost("it burns"), "altra2 was lost: it burns", "down"),
        (HostLost("in use", "unavailable"), "altra2 was not to be had: in use", "unavailable"),
        (HostDied("hang", "no answer"), "no answer", None),
        (InfraError("kexec failed"), "kexec failed", None),
    ],
)
def test_how_a_cell_ended(
    error: HarnessError,
    reason: str,
    lost: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(cell, "_boot_and_check", fail)
    planned = PlannedCell("altra", "base", "vhe", "hardware")
    spec: Any = SimpleNamespace(machine="altra2", record=planned.record, folder=tmp_path)
    found = cell.run_cell(spec)
    assert (found.outcome, found.reason, found.lost) == ("error", reason, lost)
