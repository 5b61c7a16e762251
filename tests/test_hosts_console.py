# SPDX-License-Identifier: GPL-2.0-only
"""A console that is followed while it is written: panics, hangs, a machine that goes away."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.hosts import console as module
from harness.hosts.console import Console

KLOG = Path(__file__).parent / "data/observe/klog"
PANIC = (KLOG / "panic.console").read_bytes()
PANIC_LINE = b"Kernel panic - not syncing: splat: asked for"
CLEAN = (KLOG / "clean-neoverse-n1-vhe.console").read_bytes()


class Machine:
    """Writes a console's file, and is gone when it is told so."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.gone: InfraError | None = None
        self._out: IO[bytes] = path.open("wb", buffering=0)

    def write(self, data: bytes) -> None:
        self._out.write(data)

    def ended(self) -> InfraError | None:
        return self.gone

    def close(self) -> None:
        self._out.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    one = Machine(tmp_path / "console.log")
    yield one
    one.close()


@pytest.fixture
def console(machine: Machine) -> Iterator[Console]:
    with Console(machine.path, machine.ended) as one:
        yield one


def within(seconds: float, call: Callable[[], None]) -> None:
    """Repeat `call` until it raises, for so long."""
    deadline = Deadline(seconds)
    while not deadline.expired():
        call()
        time.sleep(0.01)


def test_all_is_kept(machine: Machine, console: Console) -> None:
    machine.write(b"one\r\ntwo \xff\x00")
    console.check()
    console.wait_for("two", Deadline(5))
    machine.write(b"three")
    console.wait_for("three", Deadline(5))
    assert console.text() == "one\r\ntwo \ufffd\0three"
    assert machine.path.read_bytes() == b"one\r\ntwo \xff\x00three"


def test_a_text_across_the_borders_of_pieces(machine: Machine, console: Console) -> None:
    for byte in b"noise kvm-harness: host is":
        machine.write(bytes([byte]))
        time.sleep(0.002)
    with pytest.raises(HostDied, match="no 'host is up'"):
        console.wait_for("host is up", Deadline(0.2))
    machine.write(b" u")
    time.sleep(0.12)
    machine.write(b"p")
    console.wait_for("host is up", Deadline(5))


def test_a_text_is_found_though_the_wait_saw_its_beginning(
    machine: Machine, console: Console
) -> None:
    pieces = [b"x" * 1000 + b"host i", b"s u", b"p"]

    def step() -> InfraError | None:
        if pieces:
            machine.write(pieces.pop(0))
            time.sleep(0.06)
        return None

    console._ended = step
    console.wait_for("host is up", Deadline(5))
    assert not pieces


def test_a_boot_without_trouble_is_none(machine: Machine, console: Console) -> None:
    machine.write(CLEAN)
    console.wait_for(CLEAN[-40:].decode().strip().splitlines()[-1].strip(), Deadline(5))
    console.check()


@pytest.mark.parametrize("panic", [PANIC, PANIC.replace(b"\r\n", b"\n")], ids=["crlf", "lf"])
def test_a_panic_ends_a_wait(machine: Machine, console: Console, panic: bytes) -> None:
    machine.write(CLEAN)
    console.check()
    machine.write(panic)
    deadline = Deadline(20)
    with pytest.raises(HostDied, match=PANIC_LINE.decode()) as caught:
        console.wait_for("never", deadline)
    assert not deadline.expired()
    assert caught.value.kind == "panic"
    assert str(machine.path) in str(caught.value)
    assert console.text() == (CLEAN + panic).decode()


def test_the_trace_is_waited_for(machine: Machine, console: Console) -> None:
    """A panic is told only when its last line has come, though the first one tells it all."""
    at = PANIC.index(PANIC_LINE) + len(PANIC_LINE) + 2
    machine.write(PANIC[:at])
    pieces = [PANIC[at : at + 60], PANIC[at + 60 : -5], PANIC[-5:]]

    def slowly() -> InfraError | None:
        if pieces:
            time.sleep(0.1)
            machine.write(pieces.pop(0))
        return None

    console._ended = slowly
    with pytest.raises(HostDied):
        within(5, console.check)
    assert console.text() == PANIC.decode()


def test_a_trace_without_end_is_not_waited_for_long(
    machine: Machine, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TRACE_SECONDS", 0.3)
    machine.write(PANIC[: PANIC.index(PANIC_LINE) + len(PANIC_LINE) + 2])
    with pytest.raises(HostDied, match="Kernel panic"):
        within(20, console.check)


def test_a_machine_that_ends_after_its_panic_died_of_it(machine: Machine, console: Console) -> None:
    machine.write(PANIC)
    machine.gone = HostDied("gone", "switched itself off")
    with pytest.raises(HostDied, match="Kernel panic") as caught:
        console.check()
    assert caught.value.kind == "panic"


def test_a_machine_that_ends_within_the_line_of_its_panic(
    machine: Machine, console: Console
) -> None:
    machine.write(PANIC[: PANIC.index(PANIC_LINE) + len(PANIC_LINE)])
    machine.gone = HostDied("gone", "switched itself off")
    with pytest.raises(HostDied, match="Kernel panic"):
        console.check()


@pytest.mark.parametrize(
    "gone", [HostDied("gone", "switched itself off"), InfraError("QEMU ended with -9")]
)
def test_a_machine_that_goes_away(machine: Machine, console: Console, gone: InfraError) -> None:
    machine.write(CLEAN)
    machine.gone = gone
    deadline = Deadline(20)
    with pytest.raises(type(gone), match=str(gone)):
        console.wait_for("never", deadline)
    assert not deadline.expired()
    assert console.text() == CLEAN.decode()


def test_a_program_that_prints_the_words_of_a_panic_is_no_kernel(
    machine: Machine, console: Console
) -> None:
    machine.write(PANIC_LINE + b"\r\nend\r\n")
    console.wait_for("end", Deadline(5))
    console.check()


def test_a_hang_is_told_with_the_last_line(machine: Machine, console: Console) -> None:
    with pytest.raises(HostDied, match="nothing at all") as caught:
        console.wait_for("up", Deadline(0.1))
    assert caught.value.kind == "hang"
    machine.write(b"first\r\nlast words\r\n\r\n  \r\n")
    console.wait_for("last", Deadline(5))
    with pytest.raises(HostDied, match=r"no 'up' .* its last line was: last words \(/"):
        console.wait_for("up", Deadline(0.1))
