# SPDX-License-Identifier: GPL-2.0-only
"""A lost connection is found again or its machine said to be dead; no machine needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import ConnectionCut, DeadlineExceeded, HostDied, InfraError
from harness.hosts.protocols import Process, Result
from harness.hosts.recovery import NotBack
from harness.hosts.ssh import SshShell
from harness.hosts.watched import WatchedShell
from harness.hosts.way_back import _both


class Program:
    """Ends well, or with what its connection ends with; `error` may be an EOFError."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def receive(self, deadline: Deadline) -> str:
        if self.error is not None:
            raise self.error
        return "line"

    def wait(self, deadline: Deadline) -> int:
        self.receive(deadline)
        return 0

    def close(self) -> None:
        pass


class Connection(UnaskedShell):
    def __init__(self, error: InfraError | None = None, *, connected: bool = True) -> None:
        self.error, self.connected = error, connected

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if self.error is not None:
            raise self.error
        return Result(command, 0, "new\n", "")

    def start(self, argv: Sequence[str]) -> Process:
        """What is started gets on if the connection still stands."""
        return cast(Process, Program(None if self.connected else self.error))

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        self.run("put")


def watched(first: Connection, then: Connection | InfraError) -> tuple[WatchedShell, list[str]]:
    asked: list[str] = []

    def again(trouble: Exception) -> SshShell:
        asked.append(str(trouble))
        if isinstance(then, InfraError):
            raise then
        return cast(SshShell, then)

    return WatchedShell(cast(SshShell, first), again), asked


def test_one_who_used_a_connection_that_broke_is_told_and_the_next_has_a_new_one() -> None:
    shell, asked = watched(Connection(InfraError("cut"), connected=False), Connection())
    with pytest.raises(ConnectionCut, match="cut; the machine can be reached again"):
        shell.put(Path("x"), "/x")
    assert shell.run("true").stdout == "new\n"
    assert asked == ["cut"]


def test_a_machine_that_is_gone_is_a_death() -> None:
    gone = HostDied("gone", "another boot")
    shell, _ = watched(Connection(InfraError("cut"), connected=False), gone)
    with pytest.raises(HostDied, match="another boot"):
        shell.run("true")


@pytest.mark.parametrize(
    ("error", "connected"),
    [
        (InfraError("exited 1"), True),
        (DeadlineExceeded("too long"), True),
        (HostDied("panic", "on the console"), False),
    ],
)
def test_other_troubles_are_as_they_are(error: InfraError, connected: bool) -> None:
    shell, asked = watched(Connection(error, connected=connected), Connection())
    with pytest.raises(type(error), match=str(error)):
        shell.run("true")
    assert asked == []


def test_silence_is_no_hang_before_another_connection_was_tried() -> None:
    """Nobody is told of a network that is cut: the answer does not come in time, that is all."""
    silent = DeadlineExceeded("too long")
    shell, asked = watched(Connection(silent, connected=False), Connection())
    with pytest.raises(ConnectionCut, match="too long; the machine can be reached again"):
        shell.run("true")
    assert shell.run("true").stdout == "new\n"
    assert asked == ["too long"]
    gone, _ = watched(Connection(silent, connected=False), HostDied("hang", "silent"))
    with pytest.raises(HostDied, match="silent"):
        gone.run("true")


@pytest.mark.parametrize("error", [DeadlineExceeded("too long"), EOFError("ended")])
def test_a_program_goes_with_its_connection(error: Exception) -> None:
    connection = Connection()
    shell, asked = watched(connection, Connection())
    program = shell.start(["kvm-guest"])
    assert program.receive(Deadline(1)) == "line"
    cast(Any, program)._inner.error = error
    with pytest.raises(type(error)):
        program.receive(Deadline(1))
    assert asked == [], "the connection stands, so it is the program's"
    connection.connected, connection.error = False, InfraError("cut")
    for _ in range(2):
        with pytest.raises(ConnectionCut, match=str(error)):
            program.receive(Deadline(1))
    assert asked == [str(error)], "the second time there was another already"


def test_what_a_machine_that_stays_away_makes_of_a_failure() -> None:
    """Silence proves nothing against a kernel whose machine stays silent after a reset."""
    away = NotBack("no answer")
    assert _both(None, away) is away
    told = _both(HostDied("panic", "oops"), away)
    assert isinstance(told, HostDied) and (told.kind, str(told)) == ("panic", "oops; no answer")
    for silent in (HostDied("hang", "silent"), InfraError("silent")):
        told = _both(silent, away)
        assert not isinstance(told, HostDied) and str(told) == "silent; no answer"
    stop = KeyboardInterrupt()
    assert _both(stop, away) is stop
