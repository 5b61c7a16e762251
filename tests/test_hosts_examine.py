# SPDX-License-Identifier: GPL-2.0-only
"""Does the console command show the machine's own console?"""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
from fake_shell import UnaskedShell
from local_shell import LocalShell

from harness.deadline import Deadline
from harness.hosts import console_command, examine, grub_look, probe, watchdog
from harness.hosts.fitness import Finding
from harness.hosts.lease import Place
from harness.hosts.leasing import take
from harness.hosts.machine import MARK
from harness.hosts.protocols import Result
from harness.inventory import PowerCommands, SshHost

PANIC = Path(__file__).parent / "data/observe/klog/panic.console"


@pytest.mark.parametrize(
    ("boot", "root", "asked"), [("grub", True, 1), ("kexec", True, 0), ("grub", False, 0)]
)
def test_what_grub_can_do_is_asked_where_it_is_to_start_kernels(
    boot: Literal["grub", "kexec"],
    root: bool,
    asked: int,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    looks: list[object] = []

    def look(shell: object) -> object:
        looks.append(shell)
        return SimpleNamespace()

    monkeypatch.setattr(examine, "open_shell", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(probe, "survey", lambda *_: SimpleNamespace(root=root, cmdline=""))
    monkeypatch.setattr(examine, "judge", lambda *_: ())
    monkeypatch.setattr(grub_look, "look", look)
    found = Finding("missing", "GRUB", "no grub.cfg")
    monkeypatch.setattr(grub_look, "findings", lambda _: (found,))
    host = SshHost.model_construct(kind="ssh", boot=boot, console=None, initrd=None, power=None)
    assert examine.examine("lab", host).findings == (found,) * asked
    assert len(looks) == asked


@pytest.mark.parametrize(("cmdline", "why", "told"), [("", "x", 1), ("", "", 0), (MARK, "x", 0)])
def test_a_watchdog_that_cannot_be_armed_is_missing(
    cmdline: str, why: str, told: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(examine, "open_shell", lambda *_, **__: contextlib.nullcontext())
    monkeypatch.setattr(probe, "survey", lambda *_: SimpleNamespace(root=True, cmdline=cmdline))
    monkeypatch.setattr(examine, "judge", lambda *_: ())
    monkeypatch.setattr(watchdog, "unfit", lambda _: why)
    host = SshHost.model_construct(
        kind="ssh", boot="kexec", console=None, initrd=None, power=None, watchdog=True
    )
    found = Finding("missing", "watchdog", why)
    assert examine.examine("lab", host).findings == (found,) * told


def test_a_power_switch_needs_its_programs() -> None:
    power = PowerCommands(
        on=("sh", "-c", "x"), off=("/nonesuch", "off"), reset=("no-such-pdu", "reset")
    )
    found = examine.no_power(SshHost.model_construct(kind="ssh", power=power))
    assert [one.mark for one in found] == ["missing"] * 2
    assert "no program /nonesuch" in found[0].words and "no program no-such-pdu" in found[1].words


class Kernel(UnaskedShell):
    """Logs to a file what is written to /dev/kmsg."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        text, _, place = command.removeprefix("echo ").partition(" > ")
        assert place == "/dev/kmsg"
        with self._log.open("a") as log:
            log.write(f"[   99.000000] {text.strip(chr(39))[3:]}\n")
        return Result(command, 0, "", "")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console_command, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(examine, "CONSOLE_SECONDS", 20.0)


def show(path: Path) -> list[str]:
    return ["tail", "-c", "+1", "-f", str(path)]


def test_its_own_console(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    finding = examine.console_shows(Kernel(log), show(log))
    assert (finding.mark, finding.words) == ("ok", "tail shows what the kernel logs")


def test_a_console_that_connects_late_and_replays_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    late = ["sh", "-c", f"sleep 0.5; exec tail -n 0 -f {log}"]
    assert examine.console_shows(Kernel(log), late).mark == "ok"


def test_the_console_of_another_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "CONSOLE_SECONDS", 0.3)
    other = tmp_path / "other"
    other.write_text("other login:\n")
    finding = examine.console_shows(Kernel(tmp_path / "log"), show(other))
    assert finding.mark == "missing"
    assert "tail does not show what the kernel logs: " in finding.words
    assert "its last line was: other login:" in finding.words


@pytest.mark.parametrize("give_up", [0.0, 120.0])
def test_a_command_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, give_up: float
) -> None:
    """Whether it is given up before time is over or not, its words are told."""
    monkeypatch.setattr(console_command, "GIVE_UP_SECONDS", give_up)
    monkeypatch.setattr(examine, "CONSOLE_SECONDS", 1.0)
    argv = ["sh", "-c", "echo 'SOL is busy' >&2; exit 1"]
    finding = examine.console_shows(Kernel(tmp_path / "log"), argv)
    assert finding.mark == "missing"
    assert "SOL is busy" in finding.words


def test_a_console_that_still_shows_a_panic(tmp_path: Path) -> None:
    finding = examine.console_shows(Kernel(tmp_path / "log"), show(PANIC))
    assert finding.mark == "missing"
    assert "Kernel panic" in finding.words


def test_a_machine_that_another_tests_on_is_left_alone(tmp_path: Path) -> None:
    place, log = Place(str(tmp_path / "lease"), str(tmp_path / "motd")), tmp_path / "log"
    argv = ["sh", "-c", f"touch {tmp_path}/started; exec tail -n 0 -f {log}"]

    class Machine(LocalShell):
        def run(
            self, command: str, deadline: Deadline | None = None, *, check: bool = True
        ) -> Result:
            if "/dev/kmsg" in command:
                return Kernel(log).run(command)
            return super().run(command, deadline, check=check)

    log.touch()
    held = take(Machine(), "run-1", place=place)
    finding = examine.console_of(Machine(), argv, place)
    assert finding.mark == "note"
    assert "not tried: " in finding.words
    assert "has it for the run run-1" in finding.words
    assert log.read_text() == ""
    assert not (tmp_path / "started").exists()
    held.release(Machine())
    assert examine.console_of(Machine(), argv, place).mark == "ok"
