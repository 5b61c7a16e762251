# SPDX-License-Identifier: GPL-2.0-only
"""harness.guest_replies: what keeps to the protocol is a value, all else is refused."""

from __future__ import annotations

import pytest
from fake_guest import EXITS, start

from harness.errors import InfraError

FLAGS = (
    "locked=0 referenced=132 uptodate=4096 dirty=4096 lru=4096 active=0 writeback=0 reclaim=0 "
    "mmap=4096 anon=4096 swapcache=0 swapbacked=4096 compound_head=0 compound_tail=0 huge=0 "
    "unevictable=0 thp=0 zero_page=0 idle=12"
)

DUMP = "---[_Guest_IPA_]---|0x0000000080000000-0x0000000081000000__________16M_3___R___X_AF____|"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "ok",
        "okay vcpu=1 pages=3",
        f"ok vcpu=0 pages=3 {EXITS}",
        f"ok vcpu=1 pages=2 {EXITS}",
        f"ok pages=3 vcpu=1 {EXITS}",
        f"ok vcpu=1 pages=3 {EXITS}"[:-1],
        f"ok vcpu=1 pages=-3 {EXITS}",
        f"ok vcpu=1 pages=3 {EXITS}".replace("exits=3", "exits=" + "9" * 40),
        f"ok vcpu=1 pages=3 {EXITS}".replace("exits=3", "exits=\u0663"),
        f"ok vcpu=1 pages=3 {EXITS} and=more",
        "error",
        "error unheard-of kind",
    ],
)
def test_a_malformed_reply_names_command_and_reply(reply: str) -> None:
    guest, _ = start(reply)
    with pytest.raises(InfraError, match=r"touch read 1 0-2.*malformed") as caught:
        guest.touch(range(3), write=False, vcpu=1)
    assert repr(reply) in str(caught.value)
    assert type(caught.value) is InfraError


def test_a_long_malformed_reply_is_cut_short_in_the_error() -> None:
    guest, _ = start("ok " + "x" * 1_000_000)
    with pytest.raises(InfraError) as caught:
        guest.drain()
    assert len(str(caught.value)) < 1000


def test_idle_mark_and_read() -> None:
    guest, process = start(
        "ok marked=4090 absent=4 unmarked=0,7", "ok count=4092 idle=2,5-4095", "ok count=0 idle=-"
    )
    mark = guest.idle_mark()
    assert (mark.marked, mark.absent, mark.unmarked) == (4090, 4, frozenset({0, 7}))
    assert guest.idle_read() == {2, *range(5, 4096)}
    assert guest.idle_read() == frozenset()
    assert process.sent == ["idle-mark", "idle-read", "idle-read"]


@pytest.mark.parametrize(
    "reply",
    [
        "ok count=2 idle=4095-4096",
        "ok count=2 idle=0-99999999999999999",
        "ok count=2 idle=1,0",
        "ok count=3 idle=0-1,1-2",
        "ok count=2 idle=0,1",
        "ok count=2 idle=0-1,",
        "ok count=2 idle=1-0",
        "ok count=2 idle=0--1",
        "ok count=1 idle=0-1",
        "ok count=0 idle=",
        "ok count=2 idle=\u0660-1",
    ],
)
def test_sets_of_pages_are_bounded_and_in_shortest_form(reply: str) -> None:
    guest, _ = start(reply)
    with pytest.raises(InfraError, match=r"idle-read.*malformed"):
        guest.idle_read()


def test_counts_of_idle_mark_must_add_up() -> None:
    guest, _ = start("ok marked=4090 absent=4 unmarked=0")
    with pytest.raises(InfraError, match="add up"):
        guest.idle_mark()


def test_pfns() -> None:
    guest, _ = start("ok present=5 map=0+2:100,2+1:77,4094+2:3")
    assert guest.pfns() == {0: 100, 1: 101, 2: 77, 4094: 3, 4095: 4}


@pytest.mark.parametrize(
    "text",
    [
        "present=1 map=-",
        "present=2 map=0+1:100",
        "present=2 map=4095+2:100",
        "present=99999999 map=0+99999999:1",
        "present=2 map=1+1:100,0+1:101",
        "present=2 map=0+1:100,0+1:101",
        "present=0 map=0+0:1",
        "present=1 map=0+1",
    ],
)
def test_bad_pfns(text: str) -> None:
    guest, _ = start(f"ok {text}")
    with pytest.raises(InfraError, match=r"pfns.*malformed"):
        guest.pfns()


def test_flags() -> None:
    guest, _ = start(f"ok present=4096 {FLAGS}", f"ok present=4095 {FLAGS}")
    flags = guest.flags()
    assert (flags["present"], flags["lru"], flags["thp"], flags["idle"]) == (4096, 4096, 0, 12)
    with pytest.raises(InfraError, match="too large"):
        guest.flags()


def test_flagged() -> None:
    guest, process = start("ok count=3 pages=1,4-5", "ok count=1 pages=1,4-5")
    assert guest.flagged("referenced") == {1, 4, 5}
    with pytest.raises(InfraError, match="set's size"):
        guest.flagged("idle")
    assert process.sent == ["flagged referenced", "flagged idle"]
    with pytest.raises(ValueError, match="nonesuch"):
        guest.flagged("nonesuch")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("vcpu=0 entries=2 others=1 strange=0 full=0 entered=0 count=1 dirty=7", "another vCPU"),
        ("vcpu=1 entries=2 others=1 strange=0 full=0 entered=0 count=2 dirty=7", "the set's size"),
        ("vcpu=1 entries=2 others=1 strange=1 full=0 entered=0 count=1 dirty=7", "more pages than"),
        ("vcpu=1 entries=9 others=1 strange=0 full=0 entered=0 count=1 dirty=7", "than asked for"),
    ],
)
def test_a_harvest_that_cannot_be_is_refused(answer: str, why: str) -> None:
    guest, _ = start(f"ok {answer}")
    with pytest.raises(InfraError, match=why):
        guest.harvest(1, 8)


def test_stage2_gives_the_text_of_the_dump() -> None:
    guest, process = start(f"ok dump={DUMP}")
    assert guest.stage2() == (
        "---[ Guest IPA ]---\n0x0000000080000000-0x0000000081000000          16M 3   R   X AF    \n"
    )
    assert process.sent == ["stage2"]
