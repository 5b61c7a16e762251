# SPDX-License-Identifier: GPL-2.0-only
"""linux-guest-vmm, built with the controller's own compiler, with a shell script for QEMU."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import INTERRUPTIBLE

from harness.paths import PROJECT

# Sends back what comes on the console, and what comes to its monitor.
ECHO = """
echo from stderr >&2
(while read -r line <&3; do printf 'heard %s\\r\\n' "$line" >&3; done) &
while read -r line <&4; do [ "$line" = quit ] && break; echo "{$line}" >&4; done
kill $!
exit 7
"""

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler for the controller")
    target = tmp_path_factory.mktemp("guests") / "linux-guest-vmm"
    source = PROJECT / "guests/linux-guest/vmm.c"
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE"]
    subprocess.run([compiler, *options, "-o", str(target), str(source)], check=True, timeout=60)
    return target


@pytest.fixture
def start(program: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*argv: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*INTERRUPTIBLE, program, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait(10)
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()


def tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n")


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def child_of(greeting: str) -> int:
    head, _, pid = greeting.rpartition("pid=")
    assert head == "ready protocol=1 "
    return int(pid)


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped has."""
    for _ in range(200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_carries_lines_both_ways_and_tells_how_it_ended(start: Start) -> None:
    process = start("sh", "-c", ECHO)
    child_of(hear(process))
    assert hear(process) == "stderr from stderr"
    tell(process, "console touch  read")
    assert hear(process) == "console heard touch  read"
    tell(process, "qmp 1")
    assert hear(process) == "qmp {1}"
    tell(process, "qmp quit")
    assert hear(process) == "end status=7"
    assert process.wait(10) == 0


def test_tells_when_time_is_over(start: Start) -> None:
    """Only the last alarm that was set rings, and it rings once."""
    process = start("sh", "-c", ECHO)
    hear(process), hear(process)
    tell(process, "alarm 1 60000")
    tell(process, "alarm 2 1")
    assert hear(process) == "alarm 2"
    tell(process, "qmp x")
    assert hear(process) == "qmp {x}"


def test_what_it_does_not_know(start: Start) -> None:
    process = start("sh", "-c", ECHO)
    hear(process), hear(process)
    for line in ("", "console", "ping", "alarm soon"):
        tell(process, line)
        assert hear(process).startswith("error ")


def test_the_end_of_its_input_ends_all(start: Start) -> None:
    process = start("sleep", "600")
    pid = child_of(hear(process))
    assert process.stdin is not None
    process.stdin.close()
    assert hear(process) == "end signal=9"
    assert process.wait(10) == 0
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_its_own_death_ends_all(signum: signal.Signals, start: Start) -> None:
    process = start("sleep", "600")
    pid = child_of(hear(process))
    os.kill(process.pid, signum)
    process.wait(10)
    assert gone(pid)


def test_it_does_not_wait_for_one_that_does_not_read(start: Start) -> None:
    process = start("sleep", "600")
    hear(process)
    line = "console " + "x" * 100_000
    for _ in range(100):
        tell(process, line)
    assert hear(process).startswith("error console does not take a line")


def test_a_program_that_does_not_exist(start: Start, program: Path) -> None:
    process = start("/absent/qemu")
    hear(process)
    assert hear(process) == "stderr linux-guest-vmm: /absent/qemu: No such file or directory"
    assert hear(process) == "end status=1"
    assert subprocess.run([program], capture_output=True, timeout=20).returncode == 2
