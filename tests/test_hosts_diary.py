# SPDX-License-Identifier: GPL-2.0-only
"""What was done to a machine is written as it is done, or it is told that it was not."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.hosts.diary import Diary


def test_each_line_has_its_time(tmp_path: Path) -> None:
    say = Diary(tmp_path / "machine.txt")
    say("lease taken")
    say("kexec\x1b ordered")
    say.check()
    lines = (tmp_path / "machine.txt").read_text().splitlines()
    assert len(lines) == 2
    assert lines[0].split(None, 1)[1] == "lease taken"
    assert "\x1b" not in lines[1]


def test_a_full_disk_ends_nothing_and_is_told() -> None:
    say = Diary(Path("/dev/full"))
    say("reboot ordered")
    with pytest.raises(InfraError, match=r"not all told: .*No space left"):
        say.check()
