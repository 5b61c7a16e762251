# SPDX-License-Identifier: GPL-2.0-only
"""Several commands to a kvm-guest in one exchange, for what no other process may run in between."""

from __future__ import annotations

from dataclasses import dataclass

from harness.guest_replies import EXITS, MARK, SPIN, SPIN_VALUE, IdleMark, Reply, SpinReply
from harness.guests import Guest
from harness.ranges import format_ranges


@dataclass(frozen=True)
class MarkThenFlush:
    """A spinning vCPU over an idle_mark() and a flush().

    `marked` and `flushed` are the stage-2 dumps after each. If `between.exits` equals
    `before.exits`, the vCPU did not leave the guest from before the mark until after the first
    dump, so whatever is young there was made so without a flush.
    """

    before: SpinReply
    mark: IdleMark
    marked: str
    between: SpinReply
    after: SpinReply
    flushed: str


@dataclass(frozen=True)
class TakenAway:
    """A vCPU that spins with reads on a page, before and after the host takes the page away.

    `old` and `new` are what it read last; `after` and `new` come from a load that began when the
    page was gone. The difference of their exits is what the vCPU noticed of it.
    """

    before: SpinReply
    old: int
    after: SpinReply
    new: int


@dataclass(frozen=True)
class IdleThenFlush:
    """A spinning vCPU over an idle_mark() and a flush(), as MarkThenFlush.

    `marked` and `flushed` are the pages that page_idle found idle after each.
    """

    before: SpinReply
    mark: IdleMark
    marked: frozenset[int]
    between: SpinReply
    after: SpinReply
    flushed: frozenset[int]


def write_then_log(vm: Guest) -> None:
    """Have vCPU 0 write to every tested page, and switch the dirty log on at once.

    One exchange, so that an ager in another process has no time to go over the pages. The
    first round of writes may fault on each page, the second one only makes all of them young.
    """
    write = (f"touch write 0 {format_ranges(range(vm.slot.pages))}", ("vcpu", "pages", *EXITS))
    vm.line.ask_all((write, write, ("dirty-log on", ())))


def log_anew(vm: Guest) -> None:
    """Switch the dirty log off, which leaves pages write-protected, and on again.

    One exchange, so that vCPU 0, which spins with writes, is at its second fault or third when the
    log goes on, and all that it is at began with the log off.
    """
    vm.line.ask_all((("dirty-log off", ()), ("spin-wait 0 1", SPIN), ("dirty-log on", ())))


def mark_then_flush(vm: Guest, vcpu: int = 0) -> MarkThenFlush:
    """What a spinning vCPU's pages look like between Guest.idle_mark() and flush(), and after.

    It is one exchange, so that no other process has to run in between: on a host with nVHE
    or pKVM, QEMU's TCG lets any process that starts or ends invalidate the vCPU's TLB.
    """
    one_touch_on = f"spin-wait {vcpu} 1"
    steps = (
        (one_touch_on, SPIN),
        ("idle-mark", MARK),
        ("stage2", ("dump",)),
        (one_touch_on, SPIN),
        ("flush", ()),
        (one_touch_on, SPIN),
        ("stage2", ("dump",)),
    )
    before, mark, old, between, _, after, young = vm.line.ask_all(steps)
    return MarkThenFlush(
        before=SpinReply.of(before, vcpu),
        mark=IdleMark.of(mark),
        marked=old.dump(),
        between=SpinReply.of(between, vcpu),
        after=SpinReply.of(after, vcpu),
        flushed=young.dump(),
    )


def take_away(vm: Guest, page: int, *, aged: bool, vcpu: int = 0) -> TakenAway:
    """Take the page that a vCPU reads without end from it by MADV_DONTNEED.

    With `aged`, page_idle makes it old just before. One exchange, as mark_then_flush() is.
    """
    one_touch_on = f"spin-wait {vcpu} 1"
    mark = (("idle-mark", MARK),) if aged else ()
    steps = (
        *mark,
        (one_touch_on, SPIN),
        (f"spin-value {vcpu}", SPIN_VALUE),
        (f"advise dontneed {page}", ("pages",)),
        (one_touch_on, SPIN),
        (f"spin-value {vcpu}", SPIN_VALUE),
    )
    before, old, gone, after, new = vm.line.ask_all(steps)[len(mark) :]
    gone.agree(gone.number("pages") == 1, "another number of pages")
    return TakenAway(
        before=SpinReply.of(before, vcpu),
        old=_value(old, vcpu),
        after=SpinReply.of(after, vcpu),
        new=_value(new, vcpu),
    )


def idle_then_flush(vm: Guest, vcpu: int = 0) -> IdleThenFlush:
    """As mark_then_flush(), but by page_idle: for a kernel that does not show stage 2.

    To read page_idle clears AF where it finds it, so the reading after the flush says what was
    touched since the one before it.
    """
    one_touch_on = f"spin-wait {vcpu} 1"
    idle = ("count", "idle")
    steps = (
        (one_touch_on, SPIN),
        ("idle-mark", MARK),
        ("idle-read", idle),
        (one_touch_on, SPIN),
        ("flush", ()),
        (one_touch_on, SPIN),
        ("idle-read", idle),
    )
    before, mark, old, between, _, after, young = vm.line.ask_all(steps)
    return IdleThenFlush(
        before=SpinReply.of(before, vcpu),
        mark=IdleMark.of(mark),
        marked=old.counted_set("idle"),
        between=SpinReply.of(between, vcpu),
        after=SpinReply.of(after, vcpu),
        flushed=young.counted_set("idle"),
    )


def _value(reply: Reply, vcpu: int) -> int:
    reply.agree(reply.number("vcpu") == vcpu, "another vCPU")
    return reply.address("value")
