# SPDX-License-Identifier: GPL-2.0-only
"""The file that says what was done to a machine, line by line as it is done."""

from __future__ import annotations

import time
from pathlib import Path

from harness.errors import InfraError
from harness.printable import printable


class Diary:
    """A full disk must not end what is being done to the machine, least of all its way home.

    So check() tells of that afterwards.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()
        self._failure: OSError | None = None

    def __call__(self, words: str) -> None:
        """Write them, and the seconds since the diary was begun."""
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{time.monotonic() - self._started:8.2f} {printable(words)}\n")
        except OSError as exc:
            self._failure = self._failure or exc

    def check(self) -> None:
        """InfraError if anything could not be written."""
        if self._failure is not None:
            raise InfraError(f"what was done to the machine is not all told: {self._failure}")
