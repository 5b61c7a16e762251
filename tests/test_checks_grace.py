# SPDX-License-Identifier: GPL-2.0-only
"""Grace periods that end at once are as they were when that is over."""

from __future__ import annotations

from typing import Any, cast

import pytest

from harness.checks.grace import expedited
from harness.hosts.protocols import Result
from harness.observe.tracefs import EXPEDITED


class Shell:
    """Has this in the file, None for no such file."""

    def __init__(self, value: str | None) -> None:
        self.value = value

    def run(self, script: str, *, check: bool) -> Result:
        assert (script, check) == (f"cat {EXPEDITED}", False)
        absent = self.value is None
        return Result(script, int(absent), self.value or "", "")

    def write(self, path: str, text: str) -> None:
        assert path == EXPEDITED
        self.value = text


@pytest.mark.parametrize("before", ["0\n", "1\n"])
def test_they_are_as_before_although_the_block_failed(before: str) -> None:
    shell = Shell(before)
    with pytest.raises(AssertionError, match="wrong"), expedited(cast(Any, shell)):
        assert shell.value == "1\n"
        raise AssertionError("wrong")
    assert shell.value == before


def test_a_kernel_that_cannot_is_left_alone() -> None:
    shell = Shell(None)
    with expedited(cast(Any, shell)):
        pass
    assert shell.value is None
