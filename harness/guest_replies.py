# SPDX-License-Identifier: GPL-2.0-only
"""What kvm-guest answers, as values.

The host is lost territory: every reply is held to the form and the bounds that
docs/guest-protocol.md gives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import NoReturn

from harness.errors import InfraError
from harness.ranges import format_ranges, parse_ranges

PROTOCOL = 1
PAGE_SIZE = 4096

_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
_HEX = re.compile(r"0x[0-9a-f]{1,16}", re.ASCII)
_WORD = re.compile(r"[a-z]{1,16}", re.ASCII)
# Pages that follow each other, and so do their PFNs: the first, how many, the first's PFN.
_RUN = re.compile(r"([0-9]{1,8})\+([0-9]{1,8}):([0-9]{1,17})", re.ASCII)
FLAGS = (
    *("locked", "referenced", "uptodate", "dirty", "lru", "active", "writeback", "reclaim"),
    *("mmap", "anon", "swapcache", "swapbacked", "compound_head", "compound_tail", "huge"),
    *("unevictable", "thp", "zero_page", "idle"),
)
_GREETING = (
    *("protocol", "pid", "vmfd", "page_size", "slot_ipa", "slot_hva", "pages"),
    *("payload_ipa", "payload_pages", "vcpus", "backing"),
)
_SECOND = ("second_vmfd", "second_ipa")


@dataclass(frozen=True)
class Slot:
    """The memslot of the tested pages: its guest physical address and its 4 KiB pages."""

    ipa: int
    pages: int


@dataclass(frozen=True)
class Greeting:
    """The machine that kvm-guest made; addresses in bytes, `payload_pages` of 4 KiB.

    `second_vmfd` and `second_ipa` are None unless its pages are in two memslots, or VMs.
    """

    pid: int
    vmfd: int
    slot_ipa: int
    slot_hva: int
    pages: int
    payload_ipa: int
    payload_pages: int
    vcpus: int
    backing: str
    second_vmfd: int | None
    second_ipa: int | None


@dataclass(frozen=True)
class Exits:
    """A vCPU's exits by KVM's own counters; `exits` counts them all, whoever handled them."""

    exits: int
    mmio_exit_user: int
    mmio_exit_kernel: int
    signal_exits: int
    hvc_exit_stat: int
    wfe_exit_stat: int
    wfi_exit_stat: int


@dataclass(frozen=True)
class TouchReply:
    """Pages touched, each once, and the vCPU's exits meanwhile."""

    vcpu: int
    pages: int
    exits: Exits


@dataclass(frozen=True)
class Entries:
    """Pages whose entry of the guest's own translation has AF, and those where it is writable."""

    young: frozenset[int]
    dirty: frozenset[int]


@dataclass(frozen=True)
class SpinReply:
    """Touches since the spin began, and the vCPU's exits since then."""

    vcpu: int
    touches: int
    exits: Exits

    @classmethod
    def of(cls, reply: Reply, vcpu: int) -> SpinReply:
        """As a reply tells it; InfraError if that is of another vCPU than `vcpu`."""
        found = cls(reply.number("vcpu"), reply.number("touches"), reply.exits())
        reply.agree(found.vcpu == vcpu, "another vCPU")
        return found


@dataclass(frozen=True)
class IdleMark:
    """What idle_mark() did: pages whose idle flag is set, absent ones, and those passed over.

    `unmarked` are pages that are present but on no LRU list, such as those of hugetlb.
    """

    marked: int
    absent: int
    unmarked: frozenset[int]

    @classmethod
    def of(cls, reply: Reply) -> IdleMark:
        """As a reply tells it; InfraError unless it is of all tested pages."""
        mark = cls(reply.number("marked"), reply.number("absent"), reply.page_set("unmarked"))
        total = mark.marked + mark.absent + len(mark.unmarked)
        reply.agree(total == reply.slot_pages, "the counts do not add up to the slot")
        return mark


@dataclass(frozen=True)
class Harvest:
    """Entries taken from a vCPU's dirty ring, and the tested pages that they name.

    `others` name pages of the payload, `strange` ones a page that no slot has; KVM_RUN ended
    `full` times because the ring was full. Then it was called again before the ring was harvested,
    and the vCPU has entered the guest, and left it, `entered` times all the same.
    """

    entries: int
    others: int
    strange: int
    full: int
    entered: int
    dirty: frozenset[int]

    @classmethod
    def of(cls, reply: Reply) -> Harvest:
        """As a reply tells it; InfraError where its numbers do not agree."""
        dirty = reply.counted_set("dirty")
        taken, others, strange, full, entered = (reply.number(name) for name in HARVEST[1:6])
        found = cls(taken, others, strange, full, entered, dirty)
        reply.agree(found.doubled >= 0, "more pages than entries")
        return found

    @property
    def doubled(self) -> int:
        """The entries for a tested page beyond its first one."""
        return self.entries - self.others - self.strange - len(self.dirty)


@dataclass(frozen=True)
class RaceReply:
    """What a race did, in pages and touches, with repetition.

    `cpus` are those that its threads were on; `least` are the touches of the vCPU that made the
    fewest; `found` counts words that a vCPU found zero after a drop; `passes` are those of all
    agers. `acts` counts the opponent's system calls; `acts_us` is what they took together,
    `slowest_us` the slowest, in microseconds. Pages were dropped, paged out (taken, not only asked
    for), and named by the dirty log; `emulated` accesses ended KVM_RUN since the slot was not
    there; `vms` shared the pages and ended; so many huge pages were `split`, and ranges `collapsed`
    to one again.
    """

    rounds: int
    cpus: int
    touches: int
    least: int
    found: int
    passes: int
    acts: int
    acts_us: int
    slowest_us: int
    dropped: int
    paged_out: int
    logged: int
    emulated: int
    vms: int
    split: int
    collapsed: int


MARK = ("marked", "absent", "unmarked")
HARVEST = ("vcpu", "entries", "others", "strange", "full", "entered", "count", "dirty")
RING_MAX = 65536
"""The most entries that a dirty ring can have."""
SPIN_VALUE = ("vcpu", "value")
RACE = tuple(field.name for field in fields(RaceReply))
EXITS = tuple(field.name for field in fields(Exits))
SPIN = ("vcpu", "touches", *EXITS)


class Reply:
    """One reply of a guest with so many tested pages, split into its fields.

    Each look at one is strict.
    """

    def __init__(self, command: str, text: str, pages: int) -> None:
        self.command = command
        self.text = text
        self.slot_pages = pages
        self._values: dict[str, str] = {}

    def bad(self, why: str) -> NoReturn:
        """Raise InfraError for what does not keep to the protocol."""
        command, text = shorten(self.command), shorten(self.text)
        raise InfraError(f"kvm-guest's reply to {command!r} is malformed ({why}): {text!r}")

    def agree(self, agreed: bool, why: str) -> None:
        """Raise InfraError unless its fields agree with each other and with what was asked."""
        if not agreed:
            self.bad(why)

    def expect(self, first: Sequence[str], names: Sequence[str]) -> None:
        """Hold it to the words `first` followed by exactly the fields `names`, in that order."""
        words = self.text.split(" ")
        if words[: len(first)] != list(first) or len(words) != len(first) + len(names):
            self.bad(f"expected {' '.join(first)!r} and {len(names)} fields")
        for name, word in zip(names, words[len(first) :], strict=True):
            key, equals, value = word.partition("=")
            if key != name or not equals or not value:
                self.bad(f"expected {name}=")
            self._values[name] = value

    def number(self, name: str) -> int:
        """A number without sign, in decimal."""
        if not _NUMBER.fullmatch(self._values[name]):
            self.bad(f"{name} is no number")
        return int(self._values[name])

    def address(self, name: str) -> int:
        """An address, in hexadecimal."""
        if not _HEX.fullmatch(self._values[name]):
            self.bad(f"{name} is no address")
        return int(self._values[name], 16)

    def word(self, name: str) -> str:
        """A word of small letters."""
        if not _WORD.fullmatch(self._values[name]):
            self.bad(f"{name} is no word")
        return self._values[name]

    def raw(self, name: str) -> str:
        """A value as it came."""
        return self._values[name]

    def page_set(self, name: str) -> frozenset[int]:
        """A set of pages of the slot in its shortest form; the bound comes before the set."""
        text = self._values[name]
        for part in text.split(",") if text != "-" else ():
            low, dash, high = part.partition("-")
            ends = (low, high) if dash else (low,)
            if not all(_NUMBER.fullmatch(end) and int(end) < self.slot_pages for end in ends):
                self.bad(f"{name} has {part!r}")
        try:
            pages = parse_ranges(text)
        except ValueError as exc:
            self.bad(f"{name}: {exc}")
        if format_ranges(pages) != text:
            self.bad(f"{name} is not in rising order")
        return pages

    def counted_set(self, name: str) -> frozenset[int]:
        """The same, of as many pages as the field "count" says."""
        pages = self.page_set(name)
        self.agree(self.number("count") == len(pages), "count is not the set's size")
        return pages

    def pfns(self, name: str) -> dict[int, int]:
        """PFNs by page, in rising order of the pages."""
        pfns: dict[int, int] = {}
        text = self._values[name]
        for run in text.split(",") if text != "-" else ():
            match = _RUN.fullmatch(run)
            if match is None:
                self.bad(f"{name} has {run!r}")
            page, count, pfn = (int(part) for part in match.groups())
            end = page + count
            if not count or end > self.slot_pages or (pfns and page <= next(reversed(pfns))):
                self.bad(f"{name} has {run!r} out of bounds or order")
            pfns.update(zip(range(page, end), range(pfn, pfn + count), strict=True))
        return pfns

    def dump(self) -> str:
        """A text of lines that was sent as one word; what its lines say is not looked at."""
        return self._values["dump"].replace("_", " ").replace("|", "\n")

    def exits(self) -> Exits:
        """The vCPU's counters of exits."""
        return Exits(*(self.number(name) for name in EXITS))


def shorten(text: str, limit: int = 200) -> str:
    """A text for an error message, cut where it is too long."""
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def parse_greeting(command: str, text: str, *, second: bool) -> Greeting:
    """The first line of the program; InfraError for another protocol or page size.

    `second`: it was asked for a second memslot or VM, and tells of it.
    """
    reply = Reply(command, text, 0)
    reply.expect(("ready",), _GREETING + (_SECOND if second else ()))
    if reply.number("protocol") != PROTOCOL or reply.number("page_size") != PAGE_SIZE:
        reply.bad(f"only protocol {PROTOCOL} and pages of {PAGE_SIZE} bytes are known")
    return Greeting(
        pid=reply.number("pid"),
        vmfd=reply.number("vmfd"),
        slot_ipa=reply.address("slot_ipa"),
        slot_hva=reply.address("slot_hva"),
        pages=reply.number("pages"),
        payload_ipa=reply.address("payload_ipa"),
        payload_pages=reply.number("payload_pages"),
        vcpus=reply.number("vcpus"),
        backing=reply.word("backing"),
        second_vmfd=reply.number("second_vmfd") if second else None,
        second_ipa=reply.address("second_ipa") if second else None,
    )
