# SPDX-License-Identifier: GPL-2.0-only
"""One object that bounds a wait and everything waited for inside it."""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.errors import DeadlineExceeded


class Deadline:
    """A point in monotonic time that is handed down to every wait below it.

    `seconds` is the budget from now. `clock` is replaced by tests.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._end = self._start + seconds

    @property
    def budget(self) -> float:
        """Seconds that this deadline was given in all."""
        return self._end - self._start

    def elapsed(self) -> float:
        """Seconds since the deadline was made."""
        return self._clock() - self._start

    def remaining(self) -> float:
        """Seconds left, never negative."""
        return max(0.0, self._end - self._clock())

    def expired(self) -> bool:
        """Whether no time is left."""
        return self._clock() >= self._end

    def check(self, what: str) -> None:
        """Raise DeadlineExceeded, naming `what` was waited for, if no time is left."""
        if self.expired():
            raise self.exceeded(what)

    def exceeded(self, what: str) -> DeadlineExceeded:
        """The error for a wait for `what` that this deadline ended."""
        return DeadlineExceeded(f"gave up waiting for {what} after {self.budget:.0f} s")

    def within(self, seconds: float) -> Deadline:
        """A deadline of `seconds` from now that ends no later than this one."""
        return Deadline(min(seconds, self.remaining()), self._clock)
