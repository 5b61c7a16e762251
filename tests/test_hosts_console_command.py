# SPDX-License-Identifier: GPL-2.0-only
"""The console of a machine of the lab, by real programs that behave as such commands do."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import proc
from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.hosts import console_command as module
from harness.hosts.console import Console
from harness.hosts.console_command import recorded, recording

PANIC = Path(__file__).parent / "data/observe/klog/panic.console"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def wait_until(what: Callable[[], bool]) -> None:
    deadline = Deadline(20)
    while not what():
        deadline.check("the test's condition")
        time.sleep(0.01)


def until_given_up(console: Console) -> InfraError:
    deadline = Deadline(20)
    while True:
        try:
            console.check()
        except InfraError as exc:
            return exc
        deadline.check("the console to be given up")
        time.sleep(0.01)


def test_what_is_shown_is_on_disk_without_a_newline(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with recorded(shell("printf 'half a li'; sleep 60"), log) as console:
        wait_until(lambda: log.read_bytes() == b"half a li")
        console.wait_for("half a li", Deadline(20))
        console.check()


def test_it_goes_on_in_another_file(tmp_path: Path) -> None:
    """Not a byte is lost or in both, however the command is timed."""
    one, other = tmp_path / "one.log", tmp_path / "other.log"
    count = "i=0; while [ $i -lt 2000 ]; do echo $i; i=$((i+1)); done; sleep 60"
    with recording(shell(count), one) as made:
        wait_until(lambda: one.stat().st_size > 100)
        made.switch(other)
        wait_until(lambda: other.read_bytes().endswith(b"1999\n") or one.stat().st_size > 8888)
    both = one.read_bytes() + other.read_bytes()
    assert both == b"".join(b"%d\n" % number for number in range(2000))


def test_every_byte_as_it_is(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with recorded(shell(r"printf 'a\r\nb\n\001\033\377\004\003 c'; sleep 60"), log):
        wait_until(lambda: log.read_bytes().endswith(b"c"))
    assert log.read_bytes() == b"a\r\nb\n\x01\x1b\xff\x04\x03 c"


def test_it_has_a_terminal_and_its_input_has_no_end(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    script = "[ -t 0 ] && [ -t 1 ] && echo terminal; read line; echo 'input ended'"
    with recorded(shell(script), log) as console:
        console.wait_for("terminal", Deadline(20))
    assert log.read_bytes() == b"terminal\n"


def test_a_log_that_is_there_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("before\n")
    with recorded(shell("echo after; sleep 60"), log) as console:
        console.wait_for("after", Deadline(20))
    assert log.read_text() == "before\nafter\n"


def test_it_is_started_again_when_it_ends(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    script = f"cd {tmp_path}; echo x >> starts; echo start $(wc -l < starts); " + (
        "[ $(wc -l < starts) -lt 3 ] && exit 7; sleep 60"
    )
    with recorded(shell(script), log) as console:
        console.wait_for("start 3", Deadline(20))
        console.check()
    assert log.read_text() == "start 1\nstart 2\nstart 3\n"
    errors = (tmp_path / "console.log.err").read_text()
    assert errors == "[ended with 7 after 8 bytes]\n[ended with 7 after 16 bytes]\n"


def test_it_is_not_started_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.5)
    script = f"echo x >> {tmp_path}/starts; echo 'no such session' >&2; exit 3"
    with recorded(shell(script), tmp_path / "console.log") as console:
        error = until_given_up(console)
    starts = len((tmp_path / "starts").read_text().split())
    assert starts > 1
    assert f"`sh`: it ended {starts} times in a row in " in str(error)
    assert "no such session" in str(error)
    assert not isinstance(error, HostDied)


def test_ends_that_are_far_between_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SOON_SECONDS", 0.0)
    monkeypatch.setattr(module, "GIVE_UP_SECONDS", 0.0)
    starts = tmp_path / "starts"
    with recorded(shell(f"echo x >> {starts}"), tmp_path / "console.log") as console:
        wait_until(lambda: starts.exists() and len(starts.read_text()) > 20)
        console.check()


def test_a_controller_that_is_away_for_a_minute_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not asked each second meanwhile: the pauses get longer, up to a limit."""
    pauses: list[float] = []

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            return super().wait(0.001)

    monkeypatch.setattr(module, "PAUSE_SECONDS", 1.0)
    recording = module.Recording(shell("exit 1"), tmp_path / "console.log")
    recording.stop = Stop()
    thread = threading.Thread(target=recording.run)
    thread.start()
    wait_until(lambda: len(pauses) > 7)
    recording.stop.set()
    thread.join()
    assert pauses[:7] == [1, 2, 4, 8, 16, 16, 16]
    assert recording.ended() is None


def test_a_mistake_in_recording_does_not_stay_unsaid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mistaken(*args: object, **options: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr(proc, "spawn", mistaken)
    with recorded(["true"], tmp_path / "console.log") as console:
        assert "ValueError('a mistake')" in str(until_given_up(console))


def test_no_such_command(tmp_path: Path) -> None:
    with recorded(["no-such-program"], tmp_path / "console.log") as console:
        assert "no-such-program is missing" in str(until_given_up(console))


def test_one_that_never_stops_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIMIT", 1 << 20)
    with recorded(["yes"], tmp_path / "console.log") as console:
        assert "it wrote more than 1 MiB" in str(until_given_up(console))
    assert (tmp_path / "console.log").stat().st_size <= 1 << 20


def test_a_panic_is_seen(tmp_path: Path) -> None:
    with recorded(shell(f"cat {PANIC}; sleep 60"), tmp_path / "console.log") as console:
        error = until_given_up(console)
    assert isinstance(error, HostDied)
    assert error.kind == "panic"
    assert (tmp_path / "console.log").read_bytes() == PANIC.read_bytes()


def test_it_is_interrupted_before_it_is_told_to_end(tmp_path: Path) -> None:
    """ipmitool gives its session back at SIGINT alone. Python catches one that sh may not."""
    said, log = tmp_path / "said", tmp_path / "console.log"
    script = (
        "import signal, sys, time\n"
        f"told = lambda number, _: sys.exit(print(number, file=open({str(said)!r}, 'w')))\n"
        "for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, told)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with recorded([sys.executable, "-c", script], log):
        wait_until(lambda: b"ready" in log.read_bytes())
    assert said.read_text() == f"{int(signal.SIGINT)}\n"


def test_nothing_is_left_of_it(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    with recorded(shell("sleep 1000 & echo $! $$ there; wait"), log) as console:
        console.wait_for("there", Deadline(20))
    for pid in log.read_text().split()[:2]:
        wait_until(lambda pid=pid: not alive(int(pid)))  # type: ignore[misc]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie, which only its new parent can reap, does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
