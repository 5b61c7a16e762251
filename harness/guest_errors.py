# SPDX-License-Identifier: GPL-2.0-only
"""What kvm-guest says when it cannot do what it was asked: its errors as exceptions."""

from __future__ import annotations

import errno
from typing import NoReturn

from harness.errors import Hung, InfraError
from harness.guest_replies import Reply, shorten
from harness.observe import page_idle


class GuestHung(Hung):
    """A vCPU made no end of a command in time and was stopped.

    `pc` is its program counter, None if it could not even be made to leave KVM_RUN; `page` is
    the page that it was at, `touches` how many it had finished.
    """

    def __init__(self, message: str, vcpu: int, pc: int | None, page: int, touches: int) -> None:
        super().__init__(message)
        self.vcpu = vcpu
        self.pc = pc
        self.page = page
        self.touches = touches


class GuestSlow(InfraError):
    """A race was not over in time although every vCPU got on: a busy machine, not a hang."""


class GuestDataLost(InfraError):
    """A tested page does not hold what the guest last wrote to it."""


class GuestBroke(InfraError):
    """A vCPU could not go on: its payload took an exception, or KVM_RUN failed or ended strangely.

    The payload gives no cause for that, so it is KVM that failed it; but for lack of memory:
    GuestNoMemory.
    """


class GuestNoMemory(InfraError):
    """KVM_RUN of a vCPU ended with ENOMEM: no fault of KVM's, unless the host has plenty of memory.

    pKVM has no other word for memory that cannot be given to the hypervisor (map_donated_memory(),
    arch/arm64/kvm/hyp/nvhe/pkvm.c).
    """


class IdleBitmapShort(InfraError):
    """page_idle's bitmap took or gave less than whole words, so other pages than those meant.

    Documentation/admin-guide/mm/idle_page_tracking.rst knows no such answer: the kernel is wrong.
    """


class PagesMoved(InfraError):
    """Tested pages changed their PFN between idle_mark() and idle_read(); `pages` says which."""

    def __init__(self, message: str, pages: frozenset[int]) -> None:
        super().__init__(message)
        self.pages = pages


def raise_error(reply: Reply) -> NoReturn:
    """Turn a reply that begins with "error" into the exception that it stands for.

    Unproven where the kernel has no page_idle: nothing failed there.
    """
    page_idle.require(reply.text)
    kind = reply.text.split(" ", 2)[1] if reply.text.count(" ") >= 2 else ""
    message = f"kvm-guest: {shorten(reply.command)!r}: {shorten(reply.text)}"
    if kind == "hung":
        reply.expect(("error", "hung"), ("vcpu", "pc", "page", "touches"))
        pc = None if reply.raw("pc") == "unknown" else reply.address("pc")
        raise GuestHung(
            message, reply.number("vcpu"), pc, reply.number("page"), reply.number("touches")
        )
    if kind == "moved":
        reply.expect(("error", "moved"), ("count", "pages"))
        raise PagesMoved(message, reply.page_set("pages"))
    if kind == "data":
        raise GuestDataLost(message)
    if kind == "short":
        raise IdleBitmapShort(message)
    if kind == "slow":
        raise GuestSlow(message)
    if kind == "guest":
        no_memory = f"(errno {errno.ENOMEM})" in reply.text
        raise GuestNoMemory(message) if no_memory else GuestBroke(message)
    if kind in ("usage", "system", "fatal"):
        raise InfraError(message)
    reply.bad("no known kind of error")
