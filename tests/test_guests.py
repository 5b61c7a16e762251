# SPDX-License-Identifier: GPL-2.0-only
"""harness.guests against saved and spoiled replies; no host, no KVM."""

from __future__ import annotations

import pytest
from fake_guest import EXITS, READY, Answer, FakeProcess, FakeShell, start

from harness.errors import InfraError
from harness.guest_errors import GuestDataLost
from harness.guest_line import GRACE
from harness.guest_replies import Entries, Harvest, RaceReply, Slot
from harness.guests import PROGRAM, Guest


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
    harvest = "ok vcpu=1 entries=4 others=1 strange=0 full=0 entered=0 count=3 dirty=7,64-65"
    full = "ok vcpu=1 entries=600 others=3 strange=1 full=2 entered=4 count=2 dirty=8-9"
    touched = f"ok vcpu=1 pages=3 {EXITS}"
    process = FakeProcess([READY, touched, harvest, full, "ok harvested=605 reset=604"])
    shell = FakeShell(process)
    guest = Guest.start(shell, vcpus=2, ring=512)
    assert " ".join(shell.argv[1:]).startswith("--backing anon --pages 4096 --ring 512 --vcpus 2")
    guest.touch_in_order([65, 7, 64], write=True, vcpu=1)
    assert guest.harvest(1, 5) == Harvest(4, 1, 0, 0, 0, frozenset({7, 64, 65}))
    # Beyond what was asked for comes what was harvested when the ring was full.
    full_ring = guest.harvest(1, 8)
    assert full_ring == Harvest(600, 3, 1, 2, 4, frozenset({8, 9}))
    # Of 596 entries for two pages.
    assert full_ring.doubled == 594
    assert guest.reset_rings() == (605, 604)
    assert process.sent == ["touch write 1 65,7,64", "harvest 1 5", "harvest 1 8", "reset-rings"]


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


def test_pages_are_dropped_while_they_are_written() -> None:
    guest, process = start("ok pages=3", "ok pages=2")
    guest.write_dropped([4, 5, 7], writer=0, reader=1)
    with pytest.raises(InfraError, match="another number of pages"):
        guest.write_dropped([4, 5, 7], writer=0, reader=1)
    assert process.sent == ["write-dropped 0 1 4-5,7"] * 2


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


def test_a_slot_is_moved_and_back_by_one_command() -> None:
    guest, process = start("ok")
    guest.move_slot()
    assert process.sent == ["move-slot"]


def test_a_slot_beyond_all_addresses_is_told_by_its_error() -> None:
    guest, process = start("ok before=0 across=14 beyond=14 moved=22")
    assert guest.slot_beyond() == (0, 14, 14, 22)
    assert process.sent == ["slot-beyond"]


def test_memory_is_moved_looked_at_and_moved_back() -> None:
    guest, process = start("ok pages=3", "ok pages=3", "ok pages=3", "ok pages=2", "error data x y")
    guest.move("leave", [4, 5, 6])
    guest.look_at_moved()
    guest.move_back()
    with pytest.raises(InfraError, match="another number"):
        guest.move("away", [4, 5, 6])
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
    guest, process = start("ok pages=3", "ok pages=4096")
    guest.lock(True, [4, 5, 7])
    guest.lock(False)
    assert process.sent == ["lock on 4-5,7", "lock off 0-4095"]


def test_pages_are_protected_by_userfaultfd_and_set_free() -> None:
    guest, process = start("ok pages=3", "ok pages=3")
    guest.uffd_protect(True, [4, 5, 7])
    guest.uffd_protect(False, [4, 5, 7])
    assert process.sent == ["uffd-protect on 4-5,7", "uffd-protect off 4-5,7"]


def test_a_scan_tells_which_pages_were_written() -> None:
    guest, process = start("ok", "ok count=3 pages=4-5,7")
    guest.protect_written()
    assert guest.scan_written() == {4, 5, 7}
    assert process.sent == ["pagemap-scan protect", "pagemap-scan get"]


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


def test_dirty_log() -> None:
    guest, process = start("ok", "ok count=2 dirty=3-4", "ok")
    guest.dirty_log(True)
    assert guest.dirty() == {3, 4}
    guest.dirty_log(False)
    assert process.sent == ["dirty-log on", "dirty", "dirty-log off"]


def test_spin() -> None:
    guest, process = start(
        "ok vcpu=0 cpu=1 tid=97",
        f"ok vcpu=0 touches=77831 {EXITS}",
        "ok",
        f"ok vcpu=0 touches=77900 {EXITS}",
        f"ok vcpu=0 touches=77901 {EXITS}",
        f"ok vcpu=0 touches=77999 {EXITS}",
    )
    assert guest.pin(0, 1, fifo=True) == 97
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


def test_advise_and_verify() -> None:
    guest, process = start("ok pages=3", "ok pages=2", "ok pages=2")
    guest.advise("pageout", [1, 2, 3])
    guest.verify([8, 9])
    with pytest.raises(InfraError, match="another number"):
        guest.verify([8])
    assert process.sent == ["advise pageout 1-3", "verify 8-9", "verify 8"]


def test_pin_must_be_confirmed() -> None:
    guest, _ = start("ok vcpu=0 cpu=0 tid=97")
    with pytest.raises(InfraError, match="another vCPU or CPU"):
        guest.pin(0, 1)


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


def test_churn_counts_its_vms() -> None:
    guest, process = start("ok asked=192 made=192", "ok asked=191 made=191", "ok asked=192 made=0")
    assert guest.churn(192) == 192
    assert process.sent == ["churn 192 idle"]
    for _ in range(2):
        with pytest.raises(InfraError, match="VMs"):
            guest.churn(192)


def test_churn_of_vms_that_run_makes_all() -> None:
    guest, process = start("ok asked=9 made=9", "ok asked=9 made=9")
    assert guest.churn(9, "run") == guest.churn(9, "slots") == 9
    assert process.sent == ["churn 9 run", "churn 9 slots"]


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
