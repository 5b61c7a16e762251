# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels tell what is no difference, and what becomes of those that cannot be had."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from harness import prepare
from harness.cost import neutral
from harness.errors import InfraError, UsageError
from harness.progress import Progress

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
