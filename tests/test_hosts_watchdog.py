# SPDX-License-Identifier: GPL-2.0-only
"""A watchdog is fed for as long as the controller lives: a real sh, and a file for the device."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalProcess

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import watchdog
from harness.hosts.protocols import Result
from harness.inventory import SshHost


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


def test_it_is_told_to_wait_before_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, said = tmp_path / "watchdog", tmp_path / "said"
    device.touch()
    program = tmp_path / "wdctl"
    program.write_text(f'#!/bin/sh\necho "$*" > {said}\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with watchdog.fed(LocalShell(device, "-f"), every=0.01):
        assert said.read_text() == f"--settimeout 60 {device}\n"
        while "." not in device.read_text():
            pass


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


class RunningShell(UnaskedShell):
    """Runs the script that arms it, with files for the parameter and the device."""

    def __init__(self, folder: Path, stop_on_reboot: str, kind: str = "-f") -> None:
        self.device = folder / "watchdog"
        self._names = {
            watchdog._STOP_ON_REBOOT: str(folder / "parameter"),
            watchdog._STATE: str(folder / "state"),
            watchdog._IDENTITY: str(folder / "identity"),
            "-c /dev/watchdog ]": f"{kind} {self.device} ]",
            "> /dev/watchdog": f"> {self.device}",
        }
        (folder / "parameter").write_text(f"{stop_on_reboot}\n")

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        for name, here in self._names.items():
            command = command.replace(name, here)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20)
        return Result(command, done.returncode, done.stdout, done.stderr)


def test_it_is_armed_if_the_kernel_lets_it_run(tmp_path: Path) -> None:
    shell = RunningShell(tmp_path, "0")
    shell.device.touch()
    assert watchdog.unfit(shell) == "" == shell.device.read_text()
    watchdog.arm(shell)
    assert shell.device.read_text() == ".\n"


def test_it_is_stopped_where_there_was_no_jump(tmp_path: Path) -> None:
    shell = RunningShell(tmp_path, "0")
    watchdog.disarm(shell)
    assert not shell.device.exists()
    shell.device.touch()
    watchdog.arm(shell)
    watchdog.disarm(shell)
    assert shell.device.read_text() == "V"


def test_one_that_does_not_let_itself_be_stopped_is_told(tmp_path: Path) -> None:
    shell = RunningShell(tmp_path, "0")
    shell.device.touch()
    (tmp_path / "state").write_text("active\n")
    with pytest.raises(InfraError, match="runs on: it does not let itself be stopped"):
        watchdog.disarm(shell)


def test_one_that_goes_with_its_kernel_is_not_armed(tmp_path: Path) -> None:
    shell = RunningShell(tmp_path, "0")
    shell.device.touch()
    (tmp_path / "identity").write_text("Software Watchdog\n")
    with pytest.raises(InfraError, match="it is softdog"):
        watchdog.arm(shell)
    assert shell.device.read_text() == ""


def test_one_that_its_driver_stopped_again_is_not_armed(tmp_path: Path) -> None:
    shell = RunningShell(tmp_path, "0")
    shell.device.touch()
    (tmp_path / "state").write_text("active\n")
    watchdog.arm(shell)
    (tmp_path / "state").write_text("inactive\n")
    with pytest.raises(InfraError, match="it does not stay armed"):
        watchdog.arm(shell)


@pytest.mark.parametrize(
    ("stop_on_reboot", "kind", "words"),
    [("-1", "-f", r"needs watchdog\.stop_on_reboot=0"), ("0", "-c", "there is no /dev/watchdog")],
)
def test_one_that_would_not_run_on_is_not_armed(
    stop_on_reboot: str, kind: str, words: str, tmp_path: Path
) -> None:
    shell = RunningShell(tmp_path, stop_on_reboot, kind)
    with pytest.raises(InfraError, match=words):
        watchdog.arm(shell)
    assert re.search(words, watchdog.unfit(shell))
    assert not shell.device.exists()


def test_a_kernel_that_cannot_feed_what_was_armed_is_an_error(tmp_path: Path) -> None:
    shell = LocalShell(tmp_path / "watchdog", "-c")
    with pytest.raises(InfraError, match="no driver for it"), watchdog.fed(shell, armed=True):
        pass


def test_it_is_for_a_jump_by_kexec_alone() -> None:
    given = {"kind": "ssh", "address": "a", "agent": True, "af": "hardware", "kvm_modes": ["vhe"]}
    assert SshHost.model_validate({**given, "watchdog": True}).watchdog
    with pytest.raises(ValueError, match="goes with `boot: kexec`"):
        SshHost.model_validate({**given, "watchdog": True, "boot": "grub"})
