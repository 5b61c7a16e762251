# SPDX-License-Identifier: GPL-2.0-only
"""What recordings tell of a check, apart from what the check asserts.

A recording that lost events, or cannot see a function, proves nothing. But what was done while it
recorded was done, and where that went wrong it is a failure, whatever the recording is worth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from harness.observe.unproven import Unproven

Result = TypeVar("Result")


class Evidence:
    """Takes what recordings do not tell until all is asserted: then prove() says so.

    `unseen` is the first such reason, "" as long as there is none.
    """

    def __init__(self) -> None:
        self.unseen = ""

    def read(self, tell: Callable[[], Result], nothing: Result) -> Result:
        """What a recording tells; `nothing` in its place where that is Unproven."""
        try:
            return tell()
        except Unproven as exc:
            self.unseen = self.unseen or exc.reason
            return nothing

    def prove(self, missing: str = "") -> None:
        """Unproven if a recording did not tell, or by what else is `missing`, if it is not ""."""
        if reason := self.unseen or missing:
            raise Unproven(reason)
