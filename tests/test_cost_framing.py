# SPDX-License-Identifier: GPL-2.0-only
"""What a program says on a console comes whole, word for word, or not at all."""

from __future__ import annotations

import pytest
from cost_consoles import BASE, framed

from harness.cost.framing import MAX_LINES, Garbled, Gave, texts
from harness.errors import HostDied

LINES = ["begin 1", "pass idle pages=1", "end"]
PANIC = "[    0.9] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b\r\n"


def test_a_saved_console() -> None:
    said = texts(BASE)
    assert (said[0], said[1], said[-1]) == ("begin 1", "release 6.12.117", "end")
    assert len(said) == BASE.count("cost: ")


def test_lines_of_the_kernel_between_do_not_matter() -> None:
    console = framed(LINES).replace("\r\n", "\r\n[    0.1] random: crng init done\r\n")
    assert texts(console) == tuple(LINES)


@pytest.mark.parametrize("at", [0, 1000, len(BASE) // 2, BASE.rindex("cost: ")])
def test_cut_off(at: int) -> None:
    with pytest.raises((HostDied, Garbled)):
        texts(BASE[:at])


def test_off_before_the_end() -> None:
    with pytest.raises(HostDied, match="off before the program had ended, after 2 lines") as caught:
        texts(framed(LINES[:2]) + PANIC)
    assert caught.value.kind == "gone"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda one: one.replace("pages=1", "pages=2"), "line 1 has another checksum"),
        (lambda one: "".join(one.splitlines(True)[::2]), "line 1 is missing"),
        (lambda one: one.replace("pass", "[    0.2] hello\r\npass"), "line 1 has another"),
        (lambda one: one.replace("cost: 1", "[  0.1] cost: 1"), "line 1 is garbled"),
        (lambda one: one.replace("pages=1", "\x1b[2Jpages"), r"garbled: .*\\x1b"),
        (lambda one: one.replace("pages=1", "x" * 400), "line 1 is garbled"),
        (lambda one: one + one, "line 3 is missing"),
    ],
)
def test_garbled(change: object, what: str) -> None:
    assert callable(change)
    with pytest.raises(Garbled, match=what):
        texts(change(framed(LINES)))


def test_bounded() -> None:
    with pytest.raises(Garbled, match="more than"):
        texts(framed(["x"] * (MAX_LINES + 1)))


def test_the_program_gave_up() -> None:
    words = "error fatal perf_event_open of retired instructions: No such file (errno 2)\r\n"
    with pytest.raises(Gave, match="perf_event_open of retired instructions"):
        texts(framed(LINES[:2]) + words)


def test_a_process_of_it_failed() -> None:
    with pytest.raises(Gave, match="failed walk pages=128 status=0x100"):
        texts(framed(["begin 1", "failed walk pages=128 status=0x100", "end"]))
