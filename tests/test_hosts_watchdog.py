# SPDX-License-Identifier: GPL-2.0-only
"""A watchdog is fed for as long as the controller lives: a real sh, and a file for the device."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import watchdog


class LocalProcess:
    """A program of this machine, as far as the watchdog needs one."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.ended = False
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n")
        except BrokenPipeError as exc:
            raise InfraError("it is gone") from exc

    def receive(self, deadline: Deadline) -> str:
        assert self._process.stdout is not None
        if line := self._process.stdout.readline():
            return line.rstrip("\n")
        raise EOFError

    def stderr(self) -> str:
        return ""

    def wait(self, deadline: Deadline) -> int:
        return self._process.wait(deadline.remaining())

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=20)
        self.ended = True


class LocalShell(UnaskedShell):
    def __init__(self, device: Path, kind: str) -> None:
        self.device, self.kind = device, kind
        self.process: LocalProcess | None = None

    def start(self, argv: Sequence[str]) -> LocalProcess:
        script = argv[-1].replace(watchdog._PID, f"{self.device}.pid")
        script = script.replace("-c /dev/watchdog", f"{self.kind} {self.device}")
        self.process = LocalProcess([*argv[:-1], script.replace("/dev/watchdog", str(self.device))])
        return self.process


def test_it_is_fed_and_never_stopped(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    shell = LocalShell(device, "-f")
    with watchdog.fed(shell, every=0.01):
        while device.read_text().count(".") < 3:
            pass
    assert shell.process is not None and shell.process.ended
    assert "V" not in device.read_text(), "that letter would stop it"


@pytest.mark.parametrize("kind", ["-c", "-d"])
def test_a_machine_may_have_none(tmp_path: Path, kind: str) -> None:
    device = tmp_path / "watchdog"
    with watchdog.fed(LocalShell(device, kind), every=0.01):
        pass
    assert not device.exists()


def test_one_whose_connection_was_cut_makes_way(tmp_path: Path) -> None:
    device = tmp_path / "watchdog"
    device.touch()
    shell = LocalShell(device, "-f")
    with watchdog.fed(shell, every=0.01):
        first = shell.process
        assert first is not None
        with watchdog.fed(shell, every=0.01):
            assert first.wait(Deadline(20)) == -9
            size = device.stat().st_size
            while device.stat().st_size <= size:
                pass
