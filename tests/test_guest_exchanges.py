# SPDX-License-Identifier: GPL-2.0-only
"""harness.guest_exchanges: several commands are one line, and each reply is of its own."""

from __future__ import annotations

import pytest
from fake_guest import EXITS, start

from harness.errors import InfraError
from harness.guest_exchanges import idle_then_flush, mark_then_flush, take_away, write_then_log


def spin_part(touches: int, exits: int) -> str:
    return f"ok vcpu=1 touches={touches} {EXITS.replace('exits=3', f'exits={exits}', 1)}"


MARK_THEN_FLUSH = (
    spin_part(100, 0),
    "ok marked=4096 absent=0 unmarked=-",
    "ok dump=a_b|",
    spin_part(200, 0),
    "ok",
    spin_part(300, 1),
    "ok dump=c_d|",
)


def test_mark_then_flush_is_one_exchange() -> None:
    guest, process = start(";".join(MARK_THEN_FLUSH))
    seen = mark_then_flush(guest, vcpu=1)
    assert process.sent == [
        "spin-wait 1 1;idle-mark;stage2;spin-wait 1 1;flush;spin-wait 1 1;stage2"
    ]
    assert (seen.marked, seen.flushed) == ("a b\n", "c d\n")
    assert (seen.before.exits.exits, seen.between.exits.exits) == (0, 0)
    assert (seen.after.touches, seen.after.exits.exits) == (300, 1)
    assert seen.mark.marked == 4096


def test_idle_then_flush_is_one_exchange() -> None:
    spin, mark, _, _, flush, last, _ = MARK_THEN_FLUSH
    parts = (spin, mark, "ok count=2 idle=4-5", spin, flush, last, "ok count=1 idle=4")
    guest, process = start(";".join(parts))
    seen = idle_then_flush(guest, vcpu=1)
    assert process.sent == [
        "spin-wait 1 1;idle-mark;idle-read;spin-wait 1 1;flush;spin-wait 1 1;idle-read"
    ]
    assert seen.marked == frozenset({4, 5}) and seen.flushed == frozenset({4})
    assert (seen.between.exits.exits, seen.after.exits.exits) == (0, 1)


@pytest.mark.parametrize("count", [1, 4, 6, 8])
def test_another_number_of_replies_is_malformed(count: int) -> None:
    parts = [*MARK_THEN_FLUSH, "ok"][:count]
    guest, _ = start(";".join(parts))
    with pytest.raises(InfraError, match=f"{count} replies to 7 commands"):
        mark_then_flush(guest, vcpu=1)


def test_an_error_in_one_exchange_is_that_of_its_command() -> None:
    guest, _ = start(";".join([*MARK_THEN_FLUSH[:4], "error system KVM_SET_USER_MEMORY_REGION: x"]))
    with pytest.raises(InfraError, match="'flush': error system KVM_SET_USER_MEMORY_REGION"):
        mark_then_flush(guest, vcpu=1)


TAKEN_AWAY = (
    "ok marked=4096 absent=0 unmarked=-",
    spin_part(100, 0),
    "ok vcpu=1 value=0x100000007",
    "ok pages=1",
    spin_part(200, 2),
    "ok vcpu=1 value=0x0",
)


@pytest.mark.parametrize("aged", [False, True])
def test_take_away_is_one_exchange(aged: bool) -> None:
    guest, process = start(";".join(TAKEN_AWAY[0 if aged else 1 :]))
    seen = take_away(guest, 7, aged=aged, vcpu=1)
    assert process.sent == [
        ("idle-mark;" if aged else "")
        + "spin-wait 1 1;spin-value 1;advise dontneed 7;spin-wait 1 1;spin-value 1"
    ]
    assert (seen.old, seen.new) == (0x100000007, 0)
    assert (seen.before.exits.exits, seen.after.exits.exits) == (0, 2)


@pytest.mark.parametrize(
    ("at", "reply"), [(2, "ok vcpu=0 value=0x1"), (3, "ok pages=0"), (5, "ok vcpu=1 value=0")]
)
def test_take_away_is_held_to_its_form(at: int, reply: str) -> None:
    guest, _ = start(";".join([*TAKEN_AWAY[:at], reply, *TAKEN_AWAY[at + 1 :]]))
    with pytest.raises(InfraError, match="malformed"):
        take_away(guest, 7, aged=True, vcpu=1)


def test_write_then_log_is_one_exchange() -> None:
    touched = f"ok vcpu=0 pages=4096 {EXITS}"
    guest, process = start(f"{touched};{touched};ok")
    write_then_log(guest)
    assert process.sent == ["touch write 0 0-4095;touch write 0 0-4095;dirty-log on"]
