# SPDX-License-Identifier: GPL-2.0-only
"""What kvm-guest did, in nanoseconds of the host's own clock (docs/guest-protocol.md).

Each is one exchange with the guest program, which looks at its clock before and after it.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.guest_replies import EXITS
from harness.guest_words import access
from harness.guests import Guest
from harness.observe.memcg import BATCH
from harness.ranges import format_ranges


def idle_again(vm: Guest) -> int:
    """Nanoseconds in which page_idle ages again the pages that idle_mark() aged."""
    return vm.timed("idle-again", ())[1]


def walk(vm: Guest) -> int:
    """Nanoseconds in which MGLRU makes a generation of the memcg that kvm-guest is in.

    To read debugfs `lru_gen`, which says what the youngest generation is, is among them.
    """
    return vm.timed("walk", ())[1]


def reclaim(vm: Guest, pages: int) -> int:
    """Nanoseconds in which so many pages of that memcg are reclaimed by memory.reclaim."""
    return vm.timed(f"reclaim {pages}", ())[1]


def squeeze(vm: Guest, pages: int) -> int:
    """The same by a memory.high that is so much below what is in use; it is lifted again.

    To read memory.current twice is among them. InfraError if the kernel gave up.
    """
    reply, took = vm.timed(f"squeeze {pages}", ("left", "high"))
    left, high = reply.number("left"), reply.number("high")
    reply.agree(left <= high + BATCH, "the kernel left more than memory.high allows")
    return took


def touch(vm: Guest, pages: Iterable[int], *, write: bool) -> int:
    """Nanoseconds of a touch() by vCPU 0, to tell it of it among them."""
    asked = frozenset(pages)
    command = f"touch {access(write)} 0 {format_ranges(asked)}"
    reply, took = vm.timed(command, ("vcpu", "pages", *EXITS))
    same = (reply.number("vcpu"), reply.number("pages")) == (0, len(asked))
    reply.agree(same, "not what was asked")
    return took
