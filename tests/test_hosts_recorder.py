# SPDX-License-Identifier: GPL-2.0-only
"""What is asked of a host is written down first; after a wait that ran out nothing is asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.hosts.protocols import Result
from harness.hosts.recorder import LONGEST, Journal, RecordedShell


class Inner:
    """A shell, and a program of it, that end as they are told to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.error: Exception | None = None
        self.asked = 0

    def _ask(self) -> str:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.path.read_text()

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        return Result(command, 0, self._ask(), "")

    def start(self, argv: list[str]) -> Inner:
        return self

    def send(self, line: str) -> None:
        self._ask()

    def receive(self, deadline: Deadline) -> str:
        self._ask()
        return "ok"


def shell(folder: Path) -> tuple[Any, Inner, Path]:
    path = folder / "commands.jsonl"
    inner = Inner(path)
    host: Any = inner
    return RecordedShell(host, Journal(path)), inner, path


def test_a_command_is_on_disk_before_it_is_given(tmp_path: Path) -> None:
    recorded, _, _ = shell(tmp_path)
    assert '"run": "uname -r"' in recorded.run("uname -r").stdout


def test_lines_of_programs_are_kept_in_order(tmp_path: Path) -> None:
    recorded, _, path = shell(tmp_path)
    program = recorded.start(["kvm-guest", "--pages", "4"])
    program.send("populate")
    program.receive(Deadline(1))
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("program") for record in records] == [0, 0, 0]
    assert records[0]["start"] == ["kvm-guest", "--pages", "4"]
    assert records[1]["send"] == "populate"
    assert records[2]["received"] == "ok"


def test_what_a_command_says_is_kept_unless_it_is_long_or_kept_elsewhere(tmp_path: Path) -> None:
    _, inner, path = shell(tmp_path)
    host: Any = inner
    recorded = RecordedShell(host, Journal(path), own=lambda command: command == "ours")
    inner._ask = lambda: "two\nlines\n"  # type: ignore[method-assign]
    recorded.run("theirs")
    recorded.run("ours")
    inner._ask = lambda: "x" * LONGEST  # type: ignore[method-assign]
    recorded.run("much")
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("run", record.get("output")) for record in records] == [
        *("theirs", "two\nlines\n", "ours", "much")
    ]


def test_where_a_check_begins_is_on_disk_before_its_first_command(tmp_path: Path) -> None:
    recorded, _, path = shell(tmp_path)
    recorded.mark("test_x[a]")
    recorded.run("true")
    first, second, _ = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["check"], second["run"]) == ("test_x[a]", "true")


@pytest.mark.parametrize("error", [DeadlineExceeded("gave up"), HostDied("panic", "died")])
def test_nothing_more_is_asked_of_a_host_that_hangs_or_died(
    error: Exception, tmp_path: Path
) -> None:
    recorded, inner, _ = shell(tmp_path)
    program = recorded.start(["kvm-guest"])
    inner.error = error
    with pytest.raises(type(error)):
        recorded.run("true")
    inner.error = None
    with pytest.raises(type(error), match=str(error)):
        recorded.run("true")
    with pytest.raises(type(error), match=str(error)):
        program.send("x")
    assert inner.asked == 1


def test_other_errors_do_not_end_the_conversation(tmp_path: Path) -> None:
    recorded, inner, _ = shell(tmp_path)
    inner.error = InfraError("exited 1")
    with pytest.raises(InfraError):
        recorded.run("false")
    inner.error = None
    recorded.run("true")
    assert inner.asked == 2
