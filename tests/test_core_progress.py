# SPDX-License-Identifier: GPL-2.0-only
"""Stages are told with their time, rarely in a plain log, and literally."""

from __future__ import annotations

import io
import re
import time
from typing import Any

import pytest
from rich.console import Console

from harness.progress import Progress


def plain() -> tuple[Progress, io.StringIO]:
    out = io.StringIO()
    return Progress(Console(file=out, width=40, highlight=False)), out


def test_a_stage() -> None:
    progress, out = plain()
    with progress.stage("building"):
        pass
    first, last = out.getvalue().splitlines()
    assert first == "[00:00] building ..."
    assert re.fullmatch(r"\[00:00\] building: done in 0\.\d s", last)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_a_stage_that_fails_is_not_done(kind: type[BaseException]) -> None:
    progress, out = plain()
    with pytest.raises(kind), progress.stage("building"):
        raise kind
    assert "building: stopped after" in out.getvalue()
    assert "done" not in out.getvalue()


def test_a_plain_log_repeats_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress, out = plain()
    with progress.stage("building"):
        for second in range(65):
            clock[0] = 100.0 + second
            progress.now(f"at {second}")
    assert re.findall(r"at \d+", out.getvalue()) == ["at 30", "at 60"]
    assert "[01:00] at 60" in out.getvalue()
    assert "done in 64.0 s" in out.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_words_of_others_are_literal(terminal: bool) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=200, force_terminal=terminal, highlight=False))
    hostile = "[bold]x[/] \x1b[2J\r\n[00:00] all well"
    with progress.stage(hostile):
        progress.now(hostile)
        progress.say(hostile)
    text = out.getvalue()
    assert "\x1b[2J" not in text
    assert text.count(r"[bold]x[/] \x1b[2J") >= 3
    assert not [line for line in text.splitlines() if line.startswith("[00:00] all well")]


def test_long_lines_are_not_broken() -> None:
    progress, out = plain()
    progress.say("/a/long/path" * 20)
    assert "/a/long/path" * 20 in out.getvalue()


def test_a_terminal_shows_what_goes_on() -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, width=80, force_terminal=True, highlight=False))
    with progress.stage("building"):
        progress.now("step 7 of 9 [bold]x[/bold]\n(mmu.c)")
        assert progress._status is not None
        line: Any = progress._status.status
        assert line.__rich__().plain == "[00:00] step 7 of 9 [bold]x[/bold] (mmu.c)"
    assert progress._status is None
