# SPDX-License-Identifier: GPL-2.0-only
"""Whether lockdep still watches: real statistics, of before and after a report."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.observe import lockdep
from harness.observe.errors import ObserveError

DATA = Path(__file__).parent / "data" / "observe" / "lockdep"


@pytest.mark.parametrize(("name", "armed"), [("watching.txt", True), ("switched-off.txt", False)])
def test_what_the_kernel_says_of_itself(name: str, armed: bool) -> None:
    assert lockdep.armed((DATA / name).read_text()) is armed


@pytest.mark.parametrize("text", ["", " debug_locks:      2\n", "debug_locks: 1\n"])
def test_what_cannot_be_believed(text: str) -> None:
    with pytest.raises(ObserveError):
        lockdep.armed(text)
