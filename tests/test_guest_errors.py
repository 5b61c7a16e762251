# SPDX-License-Identifier: GPL-2.0-only
"""harness.guest_errors: each error of kvm-guest is the exception that it stands for."""

from __future__ import annotations

import re

import pytest
from fake_guest import start

from harness.errors import DeadlineExceeded, Hung, InfraError
from harness.guest_errors import (
    GuestBroke,
    GuestDataLost,
    GuestHung,
    GuestNoMemory,
    GuestSlow,
    IdleBitmapShort,
    PagesMoved,
)


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
