# SPDX-License-Identifier: GPL-2.0-only
"""What a person sees while a run goes on: which stage, what it waits for, how long it took.

A live line on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.status import Status

from harness.printable import printable

# How often a plain log repeats that a long stage still goes on.
PLAIN_SECONDS = 30.0


class Progress:
    """Shows stages one after another. Safe to call from several threads."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lock = threading.Lock()
        self._status: Status | None = None
        self._started = time.monotonic()
        self._said = 0.0
        self.stages: dict[str, float] = {}
        """Seconds that each ended stage took."""

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage from its start to its end, with the time that it took."""
        start = time.monotonic()
        self._say(f"{name} ...")
        try:
            with self._live(name):
                yield
        except BaseException:
            self._say(f"{name}: stopped after {time.monotonic() - start:.1f} s")
            raise
        self.stages[name] = time.monotonic() - start
        self._say(f"{name}: done in {self.stages[name]:.1f} s")

    @contextlib.contextmanager
    def _live(self, name: str) -> Iterator[None]:
        if not self.console.is_terminal:
            yield
            return
        with self.console.status(_one_line(name)) as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def now(self, text: str) -> None:
        """What the stage is doing at this moment: replaces the live line, or is said rarely."""
        with self._lock:
            if self._status is not None:
                self._status.update(_one_line(text))
            elif time.monotonic() - self._said >= PLAIN_SECONDS:
                self._print(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._say(text)

    def _say(self, text: str) -> None:
        with self._lock:
            self._print(text)

    def _print(self, text: str) -> None:
        self._said = time.monotonic()
        elapsed = int(self._said - self._started)
        self.console.print(
            f"[{elapsed // 60:02d}:{elapsed % 60:02d}] {printable(text)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _one_line(text: str) -> str:
    return escape(printable(text, indent="").replace("\n", " "))
