# SPDX-License-Identifier: GPL-2.0-only
"""What QEMU is started with for a Linux guest, and what it, its monitor and the guest say."""

from __future__ import annotations

import pytest

from harness.errors import InfraError
from harness.linux_guest.machine import GuestMachine, arguments
from harness.linux_guest.replies import (
    Line,
    format_set,
    parse_fields,
    parse_frames,
    parse_greeting,
    parse_hva,
    parse_line,
    parse_qmp,
)

SMALL = GuestMachine(pages=8, memory_mib=128)


def value_of(words: list[str], option: str) -> list[str]:
    return [words[at + 1] for at, word in enumerate(words) if word == option]


def test_arguments() -> None:
    words = arguments(GuestMachine(vcpus=2, memory_mib=256, pages=64))
    assert words[:2] == ["/var/lib/kvm-harness/work/linux-guest-vmm", "qemu-system-aarch64"]
    assert value_of(words, "-machine") == ["virt,accel=kvm,gic-version=host,memory-backend=ram"]
    assert value_of(words, "-smp") == ["2"]
    assert value_of(words, "-object") == ["memory-backend-memfd,share=on,id=ram,size=256M"]
    assert value_of(words, "-m") == ["256M"]
    (cmdline,) = value_of(words, "-append")
    assert cmdline.split()[-2:] == ["panic=-1", "kvm_harness.pages=64"]
    # Without it a panic would start the guest anew, for ever.
    assert "-no-reboot" in words
    assert value_of(words, "-chardev") == ["socket,id=console,fd=3", "socket,id=monitor,fd=4"]


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        ("console ", Line("console", "")),
        ("console", Line("console", "")),
        ("console [    0.0] a  b ", Line("console", "[    0.0] a  b ")),
        ("end signal=9", Line("end", "signal=9")),
        ("ready protocol=1 pid=88", Line("ready", "protocol=1 pid=88")),
    ],
)
def test_lines(line: str, parsed: Line) -> None:
    assert parse_line(line) == parsed


@pytest.mark.parametrize("line", ["", "consol x", "Segmentation fault"])
def test_lines_that_do_not_exist(line: str) -> None:
    with pytest.raises(InfraError, match="linux-guest-vmm said"):
        parse_line(line)


def test_fields() -> None:
    assert parse_fields("cpu=0 touched=202", ("cpu", "touched")) == {"cpu": 0, "touched": 202}


@pytest.mark.parametrize("text", ["", "cpu=0", "touched=1 cpu=0", "cpu=0  touched=1", "cpu=x"])
def test_other_fields(text: str) -> None:
    with pytest.raises(InfraError, match="the guest said"):
        parse_fields(text, ("cpu", "touched"))


def test_frames_rise_and_fall() -> None:
    assert parse_frames("frames=3+40010,4-40b43,1+40000", SMALL) == (
        *(0x10, 0x11, 0x12),
        *(0xB43, 0xB42, 0xB41, 0xB40),
        0,
    )


@pytest.mark.parametrize(
    "text",
    [
        "frames=",
        "frames=7+40010",  # one is missing
        "frames=9+40010",  # one too many
        "frames=4+40010,4+40012",  # two are told twice
        "frames=8-40006",  # below RAM
        "frames=8+47ffa",  # beyond RAM
        "frames=0+40010,8+40010",
        "frames=8*40010",
        "frames=8+4001g",
    ],
)
def test_frames_that_cannot_be(text: str) -> None:
    with pytest.raises(InfraError):
        parse_frames(text, SMALL)


def test_set_of_pages() -> None:
    assert format_set({0, 5, 7, 8}, 10) == "1a1"
    assert format_set((), 8) == "00"
    with pytest.raises(ValueError, match="not a tested page: 8"):
        format_set({8}, 8)


def test_monitor() -> None:
    assert parse_qmp('{"return": {}, "id": 1}') == {"return": {}, "id": 1}
    for text in ("", "{", "[1]", '"x"'):
        with pytest.raises(InfraError, match="QEMU's monitor said"):
            parse_qmp(text)


def test_address_of_ram() -> None:
    said = "Host virtual address for 0x40000000 (ram) is 0xffffa7fff000\r\n"
    assert parse_hva(said) == 0xFFFFA7FFF000
    with pytest.raises(InfraError, match="does not say where"):
        parse_hva("No memory is mapped at address 0x40000000\r\n")


def greeting(**version: object) -> dict[str, object]:
    return {"QMP": {"version": version, "capabilities": ["oob"]}}


def test_version_of_qemu() -> None:
    numbers = {"micro": 22, "minor": 2, "major": 7}
    package = "Debian 1:7.2+dfsg-7+deb12u18+b3"
    assert parse_greeting(greeting(qemu=numbers, package=package)) == f"7.2.22 ({package})"
    assert parse_greeting(greeting(qemu=numbers, package="")) == "7.2.22"


@pytest.mark.parametrize(
    "message",
    [
        {"QMP": {}},
        {"QMP": 7},
        greeting(qemu={"major": 7, "minor": 2}, package=""),
        greeting(qemu={"major": "x", "minor": 2, "micro": 1}, package=""),
        greeting(qemu={"major": 7, "minor": 2, "micro": 1}, package="x" * 300),
    ],
)
def test_a_greeting_without_a_version(message: dict[str, object]) -> None:
    with pytest.raises(InfraError, match="does not name its version"):
        parse_greeting(message)
