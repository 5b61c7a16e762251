# SPDX-License-Identifier: GPL-2.0-only
"""What a person sees while a run goes on: which stage, what it waits for, how long it took.

A live line on a terminal, plain lines elsewhere.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.status import Status
from rich.text import Text

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
        with self.console.status(_Line(name, self._elapsed)) as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def now(self, text: str) -> None:
        """What the stage is doing at this moment: replaces the live line, or is said rarely."""
        with self._lock:
            if self._status is not None:
                self._status.update(_Line(text, self._elapsed))
            elif time.monotonic() - self._said >= PLAIN_SECONDS:
                self._print(text)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._say(text)

    def _say(self, text: str) -> None:
        with self._lock:
            self._print(text)

    def _elapsed(self) -> str:
        seconds = int(time.monotonic() - self._started)
        return f"[{seconds // 60:02d}:{seconds % 60:02d}]"

    def _print(self, text: str) -> None:
        self._said = time.monotonic()
        self.console.print(
            f"{self._elapsed()} {printable(text)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


class _Line:
    """The live line; rich asks for it several times a second, so its clock goes on by itself."""

    def __init__(self, text: str, elapsed: Callable[[], str]) -> None:
        self._text = printable(text, indent="").replace("\n", " ")
        self._elapsed = elapsed

    def __rich__(self) -> Text:
        return Text(f"{self._elapsed()} {self._text}")
