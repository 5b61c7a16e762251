# SPDX-License-Identifier: GPL-2.0-only
"""harness.guests against saved and spoiled replies; no host, no KVM."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_guest import EXITS, READY, Answer, FakeProcess, FakeShell, start

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, Hung, InfraError
from harness.guest_line import GRACE
from harness.guest_replies import (
    Entries,
    GuestBroke,
    GuestDataLost,
    GuestHung,
    GuestNoMemory,
    GuestSlow,
    Harvest,
    IdleBitmapShort,
    PagesMoved,
    RaceReply,
    Slot,
)
from harness.guests import PROGRAM, Guest

FLAGS = (
    "locked=0 referenced=132 uptodate=4096 dirty=4096 lru=4096 active=0 writeback=0 reclaim=0 "
    "mmap=4096 anon=4096 swapcache=0 swapbacked=4096 compound_head=0 compound_tail=0 huge=0 "
    "unevictable=0 thp=0 zero_page=0 idle=12"
)

DUMP = "---[_Guest_IPA_]---|0x0000000080000000-0x0000000081000000__________16M_3___R___X_AF____|"


def test_skew_is_passed_on() -> None:
    shell = FakeShell(FakeProcess([READY]))
    Guest.start(shell, vcpus=2, skew=3)
    assert " ".join(shell.argv[1:]).startswith("--backing anon --pages 4096 --skew 3 --vcpus 2")


def test_it_can_be_in_a_cgroup_from_the_first() -> None:
    shell = FakeShell(FakeProcess([READY]))
    Guest.start(shell, vcpus=2, cgroup="/sys/fs/cgroup/a b")
    join, _, program, *options = shell.argv[2:]
    assert shell.argv[:2] == ["sh", "-c"]
    assert join == "echo $$ > '/sys/fs/cgroup/a b'/cgroup.procs && exec \"$@\""
    assert (program, options[:2]) == (PROGRAM, ["--backing", "anon"])


def test_the_ipa_can_be_skewed_too_and_the_memory_a_file() -> None:
    shell = FakeShell(FakeProcess([READY.replace("backing=anon", "backing=file")]))
    Guest.start(shell, vcpus=2, backing="file", file="/run/disk/memory", ipa_skew=3)
    assert " ".join(shell.argv[1:]).startswith(
        "--backing file --pages 4096 --file /run/disk/memory --ipa-skew 3 --vcpus 2"
    )


def test_the_slot_can_be_far_and_a_second_one_is_told_of() -> None:
    shell = FakeShell(FakeProcess([f"{READY} second_vmfd=9 second_ipa=0x300000000"]))
    guest = Guest.start(shell, vcpus=2, far=True, second="vm")
    assert " ".join(shell.argv[1:]).startswith(
        "--backing anon --pages 4096 --far --second vm --vcpus 2"
    )
    assert (guest.vm_dir, guest.second_dir) == ("54-4", "54-9")
    assert guest.second_slot == Slot(ipa=0x300000000, pages=4096)


def test_the_addresses_can_be_wide_and_the_dirty_log_manual() -> None:
    process = FakeProcess([READY, "ok pages=3", "ok pages=2"])
    shell = FakeShell(process)
    guest = Guest.start(shell, vcpus=2, wide=True, manual_log="set")
    assert " ".join(shell.argv[1:]).startswith(
        "--backing anon --pages 4096 --wide --manual-log set --vcpus 2"
    )
    guest.clear_log({64, 65, 190})
    assert process.sent == ["clear-log 64-65,190"]
    with pytest.raises(InfraError, match="another number of pages"):
        guest.clear_log({1})


def test_dirty_rings_are_harvested_in_order_and_reset() -> None:
    harvest = "ok vcpu=1 entries=4 others=1 strange=0 full=0 count=3 dirty=7,64-65"
    full = "ok vcpu=1 entries=600 others=3 strange=1 full=2 count=2 dirty=8-9"
    touched = f"ok vcpu=1 pages=3 {EXITS}"
    process = FakeProcess([READY, touched, harvest, full, "ok harvested=605 reset=604"])
    shell = FakeShell(process)
    guest = Guest.start(shell, vcpus=2, ring=512)
    assert " ".join(shell.argv[1:]).startswith("--backing anon --pages 4096 --ring 512 --vcpus 2")
    guest.touch_in_order([65, 7, 64], write=True, vcpu=1)
    assert guest.harvest(1, 5) == Harvest(4, 1, 0, 0, frozenset({7, 64, 65}))
    # Beyond what was asked for comes what was harvested when the ring was full.
    full_ring = guest.harvest(1, 8)
    assert full_ring == Harvest(600, 3, 1, 2, frozenset({8, 9}))
    # Of 596 entries for two pages.
    assert full_ring.doubled == 594
    assert guest.reset_rings() == (605, 604)
    assert process.sent == ["touch write 1 65,7,64", "harvest 1 5", "harvest 1 8", "reset-rings"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("ok vcpu=0 entries=2 others=1 strange=0 full=0 count=1 dirty=7", "another vCPU"),
        ("ok vcpu=1 entries=2 others=1 strange=0 full=0 count=2 dirty=7", "not the set's size"),
        ("ok vcpu=1 entries=2 others=1 strange=1 full=0 count=1 dirty=7", "more pages than"),
        ("ok vcpu=1 entries=9 others=1 strange=0 full=0 count=1 dirty=7", "than asked for"),
    ],
)
def test_a_harvest_that_cannot_be_is_refused(answer: str, why: str) -> None:
    guest, _ = start(answer)
    with pytest.raises(InfraError, match=why):
        guest.harvest(1, 8)


def test_touches_begin_with_something_else() -> None:
    touched, other = f"ok vcpu=1 pages=2 {EXITS}", f"ok vcpu=0 pages=2 {EXITS}"
    guest, process = start(touched, touched, other)
    assert guest.touch_aging([4, 9], write=True, pause=150, vcpu=1).pages == 2
    assert guest.touch_both([7], [4, 5], writer=0, reader=1, pause=30).vcpu == 1
    # The reply must be of the reader.
    with pytest.raises(InfraError, match="not what was asked"):
        guest.touch_both([7], [4, 5], writer=0, reader=1, pause=30)
    both = "touch-both 0 7 1 4-5 30"
    assert process.sent == ["touch-aging write 1 4,9 150", both, both]


def test_there_is_no_second_slot_unless_it_was_asked_for() -> None:
    guest, _ = start()
    for name in ("second_dir", "second_slot"):
        with pytest.raises(ValueError, match="one memslot"):
            getattr(guest, name)
    with pytest.raises(InfraError, match="fields"):
        Guest.start(FakeShell(FakeProcess([READY])), vcpus=2, second="slot")
    with pytest.raises(InfraError, match="fields"):
        start(greeting=f"{READY} second_vmfd=9 second_ipa=0x300000000")


def test_a_slot_is_made_read_only_and_tells_what_it_refused() -> None:
    guest, process = start("ok", "ok count=3 pages=4-5,7", "ok")
    guest.readonly(True)
    assert guest.refused() == {4, 5, 7}
    guest.readonly(False)
    assert process.sent == ["readonly on", "refused", "readonly off"]


def test_mprotect_is_confirmed() -> None:
    guest, process = start("ok pages=3", "ok count=2 pages=4-5", "ok pages=2")
    guest.mprotect([4, 5, 6], write=False)
    assert guest.refused() == {4, 5}
    with pytest.raises(InfraError, match="another number"):
        guest.mprotect([4, 5, 6], write=True)
    assert process.sent == ["mprotect read 4-6", "refused", "mprotect write 4-6"]


def test_memory_is_taken_and_put_back() -> None:
    guest, process = start("ok pages=3", "ok pages=3", "ok pages=2")
    guest.take([4, 5, 6])
    guest.replace([4, 5, 6])
    with pytest.raises(InfraError, match="another number"):
        guest.take([4, 5, 6])
    assert process.sent == ["take 4-6", "replace 4-6", "take 4-6"]


def test_memory_is_moved_looked_at_and_moved_back() -> None:
    guest, process = start("ok pages=3", "ok pages=3", "ok pages=3", "ok pages=2", "error data x y")
    guest.move([4, 5, 6], leave=True)
    guest.look_at_moved()
    guest.move_back()
    with pytest.raises(InfraError, match="another number"):
        guest.move([4, 5, 6], leave=False)
    with pytest.raises(GuestDataLost):
        guest.look_at_moved()
    moves = ["move leave 4-6", "moved look", "moved back", "move away 4-6", "moved look"]
    assert process.sent == moves


def test_a_reset_is_one_of_all_vcpus() -> None:
    guest, process = start("ok vcpus=2", "ok vcpus=1")
    guest.reset()
    with pytest.raises(InfraError, match="another number of vCPUs"):
        guest.reset()
    assert process.sent == ["reset", "reset"]


def test_memory_is_locked_and_let_go_of() -> None:
    guest, process = start("ok", "ok")
    guest.lock(True)
    guest.lock(False)
    assert process.sent == ["lock on", "lock off"]


def test_the_slot_can_be_at_address_0() -> None:
    shell = FakeShell(FakeProcess([READY.replace("slot_ipa=0x80000000", "slot_ipa=0x0")]))
    guest = Guest.start(shell, vcpus=2, low=True)
    assert " ".join(shell.argv[1:]).startswith("--backing anon --pages 4096 --low --vcpus 2")
    assert guest.slot == Slot(ipa=0, pages=4096)


def test_a_snapshot_tells_that_it_has_all_pages() -> None:
    guest, process = start("ok", "ok pages=4096", "ok pages=9", "error data page=3 x", "ok")
    guest.snapshot()
    guest.look_at_snapshot()
    with pytest.raises(InfraError, match="another number"):
        guest.look_at_snapshot()
    with pytest.raises(GuestDataLost, match="page=3"):
        guest.look_at_snapshot()
    guest.drop_snapshot()
    assert process.sent == ["snapshot take", *["snapshot look"] * 3, "snapshot drop"]


def test_replace_is_confirmed() -> None:
    guest, process = start("ok pages=512", "ok pages=511")
    guest.replace(range(512))
    with pytest.raises(InfraError, match="another number"):
        guest.replace(range(512))
    assert process.sent == ["replace 0-511"] * 2


def test_refused_pages_are_counted() -> None:
    guest, _ = start("ok count=2 pages=4-5,7")
    with pytest.raises(InfraError, match="count is not"):
        guest.refused()


def test_start_gives_the_machine() -> None:
    process = FakeProcess([READY])
    shell = FakeShell(process)
    guest = Guest.start(shell, pages=4096, vcpus=2, timeout=7.5)
    assert " ".join(shell.argv) == (
        "/var/lib/kvm-harness/work/kvm-guest --backing anon --pages 4096 --vcpus 2 --timeout 7.5"
    )
    assert guest.vm_dir == "54-4"
    assert guest.slot == Slot(ipa=0x80000000, pages=4096)
    assert guest.greeting.payload_ipa == 0x400000000
    assert process.budgets == [pytest.approx(7.5 + GRACE)]


def test_a_slow_kernel_gets_more_of_every_limit() -> None:
    process = FakeProcess([READY])
    shell = FakeShell(process)
    Guest.start(shell, pages=4096, vcpus=2, timeout=7.5, slowdown=2)
    assert shell.argv[-1] == "15"
    assert process.budgets == [pytest.approx(2 * (7.5 + GRACE))]


@pytest.mark.parametrize(
    "greeting",
    [
        "",
        "ready",
        READY.replace("protocol=1", "protocol=2"),
        READY.replace("page_size=4096", "page_size=16384"),
        READY.replace("pid=54", "pid=../../proc"),
        READY.replace("pid=54", "pid=054"),
        READY.replace("vmfd=4 ", ""),
        READY.replace("0x80000000", "2147483648"),
        READY.replace(" pages=4096", " pages=4095"),
        READY.replace("backing=anon", "backing=thp"),
        READY[:-1] + "\u00b2",
        READY + " more=1",
        READY.replace(" ", "  ", 1),
        "Starting dropbear",
        EOFError(),
        "error fatal /dev/kvm is missing: the running kernel has no KVM, or no EL2 to run it in",
        "error usage --pages; kvm-guest [--backing ...]",
    ],
)
def test_a_bad_greeting_ends_the_program(greeting: Answer) -> None:
    process = FakeProcess([greeting])
    with pytest.raises(InfraError):
        Guest.start(FakeShell(process), vcpus=2)
    assert process.closed == 1


def test_missing_kvm_is_said_as_the_program_says_it() -> None:
    with pytest.raises(InfraError, match=r"/dev/kvm is missing: the running kernel has no KVM"):
        start(greeting="error fatal /dev/kvm is missing: the running kernel has no KVM")


def test_touch_sends_ranges_and_returns_exits() -> None:
    guest, process = start(f"ok vcpu=1 pages=4 {EXITS}")
    reply = guest.touch([9, 3, 2, 1], write=True, vcpu=1)
    assert process.sent == ["touch write 1 1-3,9"]
    assert (reply.vcpu, reply.pages, reply.exits.exits, reply.exits.mmio_exit_user) == (1, 4, 3, 1)


def test_pages_are_planted_then_run_or_walked_through() -> None:
    guest, process = start(
        "ok pages=3", f"ok vcpu=1 pages=2 {EXITS}", f"ok vcpu=0 pages=1 {EXITS}", "ok pages=2"
    )
    guest.plant({3, 4, 5})
    assert guest.fetch({4, 5}, vcpu=1).pages == 2
    assert guest.walk({3}).exits.exits == 3
    assert process.sent == ["plant 3-5", "touch fetch 1 4-5", "touch walk 0 3"]
    with pytest.raises(InfraError, match="another number of pages"):
        guest.plant({3})


def test_a_cpu_sets_flags_in_pages_that_are_tables() -> None:
    touched = f"ok vcpu=0 pages=2 {EXITS}"
    guest, process = start(
        "ok hafdbs=2", touched, touched, "ok pages=3 young=3-5 dirty=4", "ok hafdbs=16"
    )
    assert guest.hafdbs() == 2
    assert guest.set_af({3, 5}).pages == 2
    assert guest.set_dirty({3, 4}).pages == 2
    assert guest.entries({5, 4, 3}) == Entries(frozenset({3, 4, 5}), frozenset({4}))
    assert process.sent == ["hafdbs", "touch set-af 0 3,5", "touch set-dirty 0 3-4", "entries 3-5"]
    with pytest.raises(InfraError, match="a field of four bits"):
        guest.hafdbs()


@pytest.mark.parametrize(
    ("reply", "error", "match"),
    [
        ("ok pages=2 young=3 dirty=-", InfraError, "another number of pages"),
        ("ok pages=1 young=3-4 dirty=-", InfraError, "not asked for"),
        ("ok pages=1 young=3 dirty=9", InfraError, "not asked for"),
        ("error data page=3 has 0x0 for the entry 0x1", GuestDataLost, "page=3 has 0x0"),
    ],
)
def test_entries_are_of_the_pages_that_were_asked_for(
    reply: str, error: type[Exception], match: str
) -> None:
    guest, _ = start(reply)
    with pytest.raises(error, match=match):
        guest.entries({3})


def test_touch_of_nothing() -> None:
    guest, process = start(f"ok vcpu=0 pages=0 {EXITS}")
    assert guest.touch([], write=False).pages == 0
    assert process.sent == ["touch read 0 -"]


def test_populate_must_reach_every_page() -> None:
    guest, _ = start(f"ok vcpu=0 pages=4096 {EXITS}", f"ok vcpu=0 pages=4095 {EXITS}")
    assert guest.populate().pages == 4096
    with pytest.raises(InfraError, match=r"populate.*not what was asked"):
        guest.populate()


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


def test_hung() -> None:
    guest, _ = start("error hung vcpu=1 pc=0x400001094 page=17 touches=16")
    with pytest.raises(GuestHung) as caught:
        guest.touch(range(32), write=False, vcpu=1)
    hung = caught.value
    assert (hung.vcpu, hung.pc, hung.page, hung.touches) == (1, 0x400001094, 17, 16)
    assert "touch read 1 0-31" in str(hung)


def test_hung_inside_the_kernel_has_no_pc() -> None:
    guest, _ = start("error hung vcpu=0 pc=unknown page=17 touches=16")
    with pytest.raises(GuestHung) as caught:
        guest.populate()
    assert caught.value.pc is None


def test_a_malformed_hung_is_not_a_hang() -> None:
    guest, _ = start("error hung vcpu=0 pc=somewhere page=17 touches=16")
    with pytest.raises(InfraError, match="pc is no address") as caught:
        guest.populate()
    assert not isinstance(caught.value, GuestHung)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("vcpu=0 exception esr=0x86000010 elr=0x400001094 far=0x0 page=3", GuestBroke),
        ("vcpu=0 KVM_RUN: Bad address (errno 14) page=3", GuestBroke),
        ("vcpu=0 KVM_RUN ended with exit_reason=17 page=3", GuestBroke),
        ("vcpu=0 KVM_RUN: Cannot allocate memory (errno 12) page=3", GuestNoMemory),
        ("the vCPU of a second VM did not start: exit_reason=17", GuestBroke),
        (
            "the vCPU of a second VM did not read all pages: esr=0x92000010 elr=0x0 far=0x0",
            GuestBroke,
        ),
        ("the vCPU of a second VM did not start: No such device (errno 6)", GuestBroke),
        (
            "the vCPU of a second VM did not start: Cannot allocate memory (errno 12)",
            GuestNoMemory,
        ),
    ],
)
def test_a_vcpu_that_cannot_go_on_is_the_kernels_affair(text: str, kind: type[InfraError]) -> None:
    guest, _ = start(f"error guest {text}")
    with pytest.raises(InfraError, match=re.escape(text)) as caught:
        guest.fetch({3})
    assert type(caught.value) is kind


def test_a_short_write_to_page_idle_is_the_kernels_affair() -> None:
    guest, _ = start("error short /sys/kernel/mm/page_idle/bitmap: 0 of 8 bytes at word 4096")
    with pytest.raises(IdleBitmapShort, match="0 of 8 bytes"):
        guest.idle_mark()


def test_lost_data_and_moved_pages_have_errors_of_their_own() -> None:
    guest, _ = start(
        "error data page=1 expected=0x100000001 got=0x0", "error moved count=3 pages=5-6,9"
    )
    with pytest.raises(GuestDataLost, match="page=1"):
        guest.verify(range(8))
    with pytest.raises(PagesMoved) as caught:
        guest.idle_read()
    assert caught.value.pages == {5, 6, 9}


def test_an_error_leaves_the_guest_usable() -> None:
    guest, _ = start("error usage vcpu 0 is spinning", "ok")
    with pytest.raises(InfraError, match="vcpu 0 is spinning"):
        guest.populate()
    guest.drain()


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


def test_dirty_log() -> None:
    guest, process = start("ok", "ok count=2 dirty=3-4", "ok")
    guest.dirty_log(True)
    assert guest.dirty() == {3, 4}
    guest.dirty_log(False)
    assert process.sent == ["dirty-log on", "dirty", "dirty-log off"]


def test_spin() -> None:
    guest, process = start(
        "ok vcpu=0 cpu=1",
        f"ok vcpu=0 touches=77831 {EXITS}",
        "ok",
        f"ok vcpu=0 touches=77900 {EXITS}",
        f"ok vcpu=0 touches=77901 {EXITS}",
        f"ok vcpu=0 touches=77999 {EXITS}",
    )
    guest.pin(0, 1, fifo=True)
    assert guest.spin([5], write=False).touches == 77831
    guest.flush()
    assert guest.spin_wait(2).touches == 77900
    assert guest.spin_count().touches == 77901
    assert guest.spin_stop().touches == 77999
    assert process.sent == [
        "pin 0 1 fifo",
        "spin read 0 5",
        "flush",
        "spin-wait 0 2",
        "spin-count 0",
        "spin-stop 0",
    ]


def test_stage2_gives_the_text_of_the_dump() -> None:
    guest, process = start(f"ok dump={DUMP}")
    assert guest.stage2() == (
        "---[ Guest IPA ]---\n0x0000000080000000-0x0000000081000000          16M 3   R   X AF    \n"
    )
    assert process.sent == ["stage2"]


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
    seen = guest.mark_then_flush(vcpu=1)
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
    seen = guest.idle_then_flush(vcpu=1)
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
        guest.mark_then_flush(vcpu=1)


def test_an_error_in_one_exchange_is_that_of_its_command() -> None:
    guest, _ = start(";".join([*MARK_THEN_FLUSH[:4], "error system KVM_SET_USER_MEMORY_REGION: x"]))
    with pytest.raises(InfraError, match="'flush': error system KVM_SET_USER_MEMORY_REGION"):
        guest.mark_then_flush(vcpu=1)


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
    seen = guest.take_away(7, aged=aged, vcpu=1)
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
        guest.take_away(7, aged=True, vcpu=1)


def test_write_then_log_is_one_exchange() -> None:
    touched = f"ok vcpu=0 pages=4096 {EXITS}"
    guest, process = start(f"{touched};{touched};ok")
    guest.write_then_log()
    assert process.sent == ["touch write 0 0-4095;touch write 0 0-4095;dirty-log on"]


def test_advise_and_verify() -> None:
    guest, process = start("ok pages=3", "ok pages=2", "ok pages=2")
    guest.advise("pageout", [1, 2, 3])
    guest.verify([8, 9])
    with pytest.raises(InfraError, match="another number"):
        guest.verify([8])
    assert process.sent == ["advise pageout 1-3", "verify 8-9", "verify 8"]


def test_pin_must_be_confirmed() -> None:
    guest, _ = start("ok vcpu=0 cpu=0")
    with pytest.raises(InfraError, match="another vCPU or CPU"):
        guest.pin(0, 1)


def test_a_line_is_in_the_transcript_before_it_is_acted_on(tmp_path: Path) -> None:
    transcript = tmp_path / "guest.txt"
    guest, process = start("ok", "garbage", EOFError(), transcript=transcript)
    guest.drain()
    with pytest.raises(InfraError):
        guest.flush()
    seen: list[str] = []
    process.send = lambda line: seen.append(transcript.read_text())  # type: ignore[method-assign]
    with pytest.raises(InfraError):
        guest.flags()
    lines = [f"< {READY}", "> drain", "< ok", "> flush", "< garbage", "> flags"]
    assert seen == ["\n".join(lines) + "\n"]
    assert transcript.read_text().splitlines() == [*lines, "! end of output"]


def test_the_end_of_the_program_is_told_with_its_errors() -> None:
    guest, process = start(EOFError())
    with pytest.raises(InfraError, match=r"ended instead of .*'drain'.*: Segmentation fault"):
        guest.drain()
    with pytest.raises(InfraError, match="cannot be asked 'flush', since it ended"):
        guest.flush()
    assert process.sent == ["drain"]


def test_no_answer_in_time() -> None:
    guest, process = start(DeadlineExceeded("inner"))
    with pytest.raises(DeadlineExceeded, match=r"kvm-guest's reply to 'drain' after 30 s"):
        guest.drain()
    with pytest.raises(InfraError, match="never came"):
        guest.flush()
    assert process.sent == ["drain"]


def test_a_dead_host_is_passed_on() -> None:
    guest, _ = start(HostDied("panic", "Kernel panic"))
    with pytest.raises(HostDied, match="Kernel panic"):
        guest.drain()


def test_an_outer_deadline_bounds_each_exchange() -> None:
    process = FakeProcess([READY, "ok"])
    guest = Guest.start(FakeShell(process), vcpus=2, deadline=Deadline(5, clock=lambda: 100.0))
    guest.drain()
    assert process.budgets == [5, 5]


def test_leaving_the_context_ends_the_program() -> None:
    guest, process = start()
    with pytest.raises(ZeroDivisionError), guest:
        raise ZeroDivisionError
    assert process.closed == 1
    with pytest.raises(InfraError, match="it was closed"):
        guest.drain()


RACED = (
    "ok rounds=32 cpus=2 touches=900 least=200 found=30 passes=70 acts=33 acts_us=5100 "
    "slowest_us=800 dropped=290 paged_out=20 logged=0 emulated=0 vms=0 split=4 collapsed=3"
)


def test_a_race_tells_what_it_did() -> None:
    guest, process = start(RACED, RACED)
    race = guest.race(7, rounds=32, agers=2)
    assert process.sent == ["race 7 32 2 page-idle unmap"]
    assert race == RaceReply(32, 2, 900, 200, 30, 70, 33, 5100, 800, 290, 20, 0, 0, 0, 4, 3)
    guest.race(8, rounds=32, agers=4, ager="walk", opponent="dirty-log")
    assert process.sent[1:] == ["race 8 32 4 walk dirty-log"]


def test_a_race_that_ended_early_is_no_race() -> None:
    guest, _ = start(RACED)
    with pytest.raises(InfraError, match="rounds"):
        guest.race(7, rounds=33, agers=2)


@pytest.mark.parametrize(
    "text",
    [
        *(
            f"{word} vcpu=1 page=5 expected=0x100000508 got=0x0"
            for word in ("stale", "lost", "wrong", "apart")
        ),
        "unlogged page=5",
        "reached vcpu=1 page=5 writes=3-9 exits=4-9",
        "barred vcpu=1 exits=1",
    ],
)
def test_what_must_not_be_seen_in_a_race_is_lost_data(text: str) -> None:
    guest, _ = start(f"error data {text}")
    with pytest.raises(GuestDataLost, match=text.split()[0]):
        guest.race(7, rounds=32, agers=2)


def test_a_race_that_is_only_slow_is_no_hang() -> None:
    guest, _ = start("error slow a race against vms was not over in 40 s, but no vCPU hung")
    with pytest.raises(GuestSlow, match="no vCPU hung"):
        guest.race(7, rounds=32, agers=2)
    # Neither a death of the host nor data that is lost, for which a series would be blamed.
    assert not issubclass(GuestSlow, Hung | DeadlineExceeded | GuestDataLost)


def test_churn_counts_its_vms() -> None:
    guest, process = start("ok asked=192 made=192", "ok asked=191 made=191", "ok asked=192 made=0")
    assert guest.churn(192) == 192
    assert process.sent == ["churn 192 idle"]
    for _ in range(2):
        with pytest.raises(InfraError, match="VMs"):
            guest.churn(192)


def test_a_crowd_is_of_all_its_vms() -> None:
    guest, process = start("ok asked=192 made=192", "ok asked=192 made=191")
    guest.crowd(192)
    assert process.sent == ["crowd 192"]
    with pytest.raises(InfraError, match="191 of 192 VMs"):
        guest.crowd(192)


def test_churn_of_vms_that_cannot_be_makes_none_or_all() -> None:
    guest, process = start("ok asked=9 made=0", "ok asked=9 made=9", "ok asked=9 made=5")
    assert [guest.churn(9, "too-large") for _ in range(2)] == [0, 9]
    assert process.sent == ["churn 9 too-large"] * 2
    with pytest.raises(InfraError, match="5 of 9 VMs made"):
        guest.churn(9, "too-large")


def test_whether_a_protected_vm_was_made() -> None:
    guest, process = start("ok made=1", "ok made=0", "ok made=2")
    assert guest.makes_protected()
    assert process.sent == ["protected-vm"]
    assert not guest.makes_protected()
    with pytest.raises(InfraError, match="neither made nor refused"):
        guest.makes_protected()
