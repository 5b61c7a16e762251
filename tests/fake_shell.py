# SPDX-License-Identifier: GPL-2.0-only
"""A Shell that must not be asked anything; a test's own overrides what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.deadline import Deadline
from harness.hosts.protocols import Process, Result


class UnaskedShell:
    """Fails the test on every call."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        raise AssertionError(f"asked to run {command!r}")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        raise AssertionError(f"asked to read {path}")

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        raise AssertionError(f"asked to write {path}")

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        raise AssertionError(f"asked to put {remote}")

    def start(self, argv: Sequence[str]) -> Process:
        raise AssertionError(f"asked to start {argv}")
