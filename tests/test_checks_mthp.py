# SPDX-License-Identifier: GPL-2.0-only
"""The settings of folios that are smaller than a huge page, and what counts them."""

from __future__ import annotations

import pytest
from fake_shell import UnaskedShell

from harness.checks.mthp import FOLDER, folios_by_advice, swapped_out_whole
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Result
from harness.observe.unproven import Unproven

SMALL, HUGE = f"{FOLDER}/hugepages-64kB/enabled", f"{FOLDER}/hugepages-2048kB/enabled"
SWAPPED = f"{FOLDER}/hugepages-64kB/stats/swpout"


class Files(UnaskedShell):
    """A host of which these files alone can be read, by `cat`, and written."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files
        self.written: list[tuple[str, str]] = []

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        text = self.files.get(command.removeprefix("cat "))
        assert command.startswith("cat ") and not check
        return Result(command, int(text is None), text or "", "")

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        self.written.append((path, text))


def test_the_settings_are_made_and_put_back() -> None:
    shell = Files(
        {SMALL: "always inherit madvise [never]\n", HUGE: "always [inherit] madvise never\n"}
    )
    with pytest.raises(ZeroDivisionError), folios_by_advice(shell):
        assert shell.written == [(HUGE, "never\n"), (SMALL, "madvise\n")]
        raise ZeroDivisionError
    assert shell.written[2:] == [(SMALL, "never\n"), (HUGE, "inherit\n")]


class Refused(Files):
    """One that refuses to have the one file as it was."""

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        super().write(path, text, deadline)
        if (path, text) == (SMALL, "never\n"):
            raise InfraError("refused")


def test_one_setting_is_put_back_where_the_other_cannot_be() -> None:
    shell = Refused({SMALL: "always [never]\n", HUGE: "[inherit] never\n"})
    with pytest.raises(InfraError, match="refused"), folios_by_advice(shell):
        pass
    assert shell.written[-1] == (HUGE, "inherit\n")


def test_a_kernel_without_such_folios_is_skipped_and_left_alone() -> None:
    shell = Files({HUGE: "always [inherit] madvise never\n"})
    with pytest.raises(pytest.skip.Exception, match="64 KiB"), folios_by_advice(shell):
        pass
    assert not shell.written


def test_what_is_not_counted_is_unproven() -> None:
    assert swapped_out_whole(Files({SWAPPED: "17\n"})) == 17
    with pytest.raises(Unproven, match="does not count"):
        swapped_out_whole(Files({}))
