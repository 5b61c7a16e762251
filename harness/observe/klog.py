# SPDX-License-Identifier: GPL-2.0-only
"""Find what the kernel's log says went wrong: WARN, BUG, Oops, stalls, lockdep, EL2 panics.

The signatures are those of Linux 6.12 on arm64: kernel/panic.c, lib/bug.c,
arch/arm64/kernel/traps.c, arch/arm64/mm/fault.c, kernel/locking/lockdep.c, kernel/watchdog.c,
kernel/hung_task.c, mm/kasan/report.c, mm/page_alloc.c, mm/page_poison.c,
arch/arm64/kvm/handle_exit.c, and of kernel/rcu/ tree_stall.h, tree_exp.h and tasks.h. Each kind has
a real splat under tests/data/observe.

Only lines with the kernel's timestamp (CONFIG_PRINTK_TIME) can begin a splat: a program that
writes the same words to the console is no kernel. A line that does not *begin* with a signature's
words does not match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

MAX_SPLAT_LINES = 1000
MAX_LINE = 8192


class Kind(StrEnum):
    """What a splat reports."""

    WARN = "warn"
    BUG = "bug"
    OOPS = "oops"
    EXTERNAL_ABORT = "external-abort"
    SERROR = "serror"
    PANIC = "panic"
    HYP_PANIC = "hyp-panic"
    RCU_STALL = "rcu-stall"
    SOFT_LOCKUP = "soft-lockup"
    HUNG_TASK = "hung-task"
    LOCKDEP = "lockdep"
    ATOMIC_SLEEP = "atomic-sleep"
    KASAN = "kasan"
    BAD_PAGE = "bad-page"
    PAGE_POISON = "page-poison"


@dataclass(frozen=True)
class Splat:
    """One report in a kernel log.

    `headline` is the line that names it, without its timestamp; `text` all its lines as they were
    logged; `line` the number of its first line, from 1. `complete` is False if the log ended
    before the report did.
    """

    kind: Kind
    headline: str
    text: str
    line: int
    complete: bool


_STAMP = re.compile(
    r"\[ {0,11}[0-9]{1,11}\.[0-9]{6}\](?:\[ {0,10}[TC][0-9]{1,10}\])? (?P<text>.*)", re.DOTALL
)
_CUT_HERE = "------------[ cut here ]------------"
_RULER = re.compile(r"={20,100}")
_BOOT = "Booting Linux on physical CPU "
_PANIC = "Kernel panic - not syncing: "

# Tried in this order; the first that matches the start of a line names the splat.
_SIGNATURES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (Kind.WARN, re.compile(r"WARNING: CPU: [0-9]{1,5} PID: [0-9]{1,10} at ")),
    (Kind.BUG, re.compile(r"kernel BUG at .{1,300}!")),
    (Kind.OOPS, re.compile(r"Unable to handle kernel ")),
    (Kind.EXTERNAL_ABORT, re.compile(r"Internal error: synchronous external abort: ")),
    (Kind.OOPS, re.compile(r"Internal error: .{1,200}: [0-9a-f]{16} \[#[0-9]{1,6}\]")),
    (Kind.SERROR, re.compile(r"SError Interrupt on CPU[0-9]{1,5}, code 0x")),
    (Kind.HYP_PANIC, re.compile(r"kvm \[[0-9]{1,10}\]: nVHE hyp (?:panic|BUG) at: ")),
    (Kind.PANIC, re.compile(re.escape(_PANIC))),
    (
        Kind.RCU_STALL,
        re.compile(
            r"rcu: INFO: [a-z_]{1,40} (?:self-)?detected (?:expedited )?stalls?"
            r"(?: on CPU|, but suppressed full report)"
        ),
    ),
    # Tasks RCU, whose file has no "rcu: " before its messages.
    (
        Kind.RCU_STALL,
        re.compile(r"INFO: rcu_tasks(?:_[a-z]{1,20})? detected stalls(?: on tasks:|\? )"),
    ),
    (Kind.SOFT_LOCKUP, re.compile(r"watchdog: BUG: soft lockup - CPU#[0-9]{1,5} stuck for ")),
    (Kind.HUNG_TASK, re.compile(r"INFO: task .{1,40} blocked for more than [0-9]{1,10} seconds")),
    (Kind.ATOMIC_SLEEP, re.compile(r"BUG: sleeping function called from invalid context at ")),
    (Kind.ATOMIC_SLEEP, re.compile(r"BUG: scheduling while atomic: ")),
    (Kind.KASAN, re.compile(r"BUG: KASAN: ")),
    (Kind.BAD_PAGE, re.compile(r"BUG: Bad (?:page state|page map|page cache|rss-counter state) ")),
    (Kind.BUG, re.compile(r"BUG: ")),
    (Kind.PAGE_POISON, re.compile(r"pagealloc: (?:single bit error|memory corruption)")),
    # A lock that was never initialised. Lockdep stops with it, as with every report of its own.
    (Kind.LOCKDEP, re.compile(r"INFO: trying to register non-static key\.")),
)
# Lockdep and RCU put a ruler above: "=====", then one of these.
_BELOW_RULER = re.compile(r"WARNING: |\[ BUG: ")

# Stalls that are told without a call trace.
_NO_TRACE = re.compile(r".*(?:, but suppressed full report | detected stalls\? )")

# Reports that end with "---[ end trace" (include/linux/panic.h, oops_exit()).
_TO_END_TRACE = frozenset({Kind.WARN, Kind.BUG, Kind.OOPS, Kind.EXTERNAL_ABORT})
_REGISTERS = r"CPU: |Hardware name: |pstate: |pc : |lr : |sp : |x[0-9]{1,2}\s?: |Code: "
# What may follow the last line of a call trace and still belongs to the report.
_TAIL: dict[Kind, re.Pattern[str]] = {
    Kind.RCU_STALL: re.compile(
        rf"rcu: \t|rcu: [a-z_]+ kthread |rcu: Stack dump |rcu: RCU grace-period |Task dump for CPU "
        r"|task:|\S{16}: [.I][.N] nvcsw: |P[0-9]{1,10}: [.I][.i]"
        r"|\tIPI outstanding to CPU "
        rf"|Sending NMI from CPU |NMI backtrace for cpu |Modules linked in:|{_REGISTERS}"
    ),
    Kind.HYP_PANIC: re.compile(r"kvm \["),
    # What dump_page() says of the page.
    Kind.PAGE_POISON: re.compile(r"page: |memcg:|head: |page_type: |flags: |raw: |page dumped "),
}
_CODE_ONLY = re.compile(r"Code: |irq event stamp: |(?:hard|soft)irqs last ")
_LOCK_HELD = "WARNING: lock held when returning to user space!"
_HELD_BY = re.compile(r"[0-9]{1,5} locks? held by ")
_END_TRACE = "---[ end trace "
_END_PANIC = "---[ end Kernel panic - not syncing: "
_PANIC_DONE = re.compile(r"Memory Limit: |Rebooting in [0-9]{1,10} seconds")


def stamped(line: str) -> str | None:
    """What the kernel printed in a line of its log; None if the line has no timestamp.

    On a console the stamp may follow what a program wrote without a newline.
    """
    match = _STAMP.search(line)
    return None if match is None else match["text"]


def kernel_lines(text: str) -> int:
    """How many lines of a text are the kernel's: 0 means that it is no kernel log at all."""
    return sum(stamped(line) is not None for line in text.split("\n"))


def _classify(text: str) -> Kind | None:
    return next((kind for kind, pattern in _SIGNATURES if pattern.match(text)), None)


class _Scanner:
    """Takes the lines of a log one by one and cuts the splats out of them."""

    def __init__(self) -> None:
        self.done: list[Splat] = []
        self.panic_line: str | None = None
        self.panic_ended = False
        self._number = 0
        self._reset()

    def _reset(self) -> None:
        self._open = False
        self._kind: Kind | None = None
        self._headline = ""
        self._lines: list[str] = []
        # Lines without a stamp: dmesg(1) prints the second line of a message so. They count
        # only if more of the splat follows; a program's output after its end does not.
        self._foreign: list[str] = []
        self._start = 0
        self._ruler = False
        self._in_trace = self._trace_done = self._whole = False

    def line(self, line: str) -> None:
        """The next line, without its end."""
        self._number += 1
        text = stamped(line)
        if text is None:
            if self._open and len(self._lines) + len(self._foreign) < MAX_SPLAT_LINES:
                self._foreign.append(line)
            return
        if self._open and self._continues(text, line):
            return
        self._begin(text, line)

    def close(self) -> None:
        """The log has ended."""
        self._finish(complete=self._ended())

    def _ended(self) -> bool:
        """Whether the open splat lacks nothing, if no line of it follows."""
        if self._kind in _TO_END_TRACE or self._kind in (None, Kind.PANIC, Kind.KASAN):
            return self._whole
        return self._trace_done or self._in_trace

    def _begin(self, text: str, line: str) -> None:
        ruler = _RULER.fullmatch(text) is not None
        kind = _classify(text)
        if text.startswith(_BOOT):
            self.panic_ended = self.panic_ended or self.panic_line is not None
        if not ruler and text != _CUT_HERE and kind is None:
            return
        self._open, self._ruler, self._start = True, ruler, self._number
        self._keep(line)
        if kind is not None:
            self._name(kind, text)

    def _name(self, kind: Kind, text: str) -> None:
        self._kind, self._headline = kind, text
        if text.startswith(_PANIC) and self.panic_line is None:
            self.panic_line = text
        if text.startswith("BUG: Bad rss-counter state "):
            self._finish(complete=True)
        elif kind is Kind.RCU_STALL and _NO_TRACE.match(text):
            self._trace_done = True

    def _keep(self, line: str) -> None:
        self._lines += [*self._foreign, line]
        self._foreign = []
        if len(self._lines) >= MAX_SPLAT_LINES:
            self._finish(complete=False)

    def _finish(self, *, complete: bool) -> None:
        """Close the open splat, if there is one that has a name or stands below "cut here"."""
        if self._open and not (self._ruler and self._kind is None):
            kind = self._kind or Kind.WARN
            headline = self._headline or (stamped(self._lines[-1]) or self._lines[-1])
            text = "\n".join(self._lines)
            self.done.append(Splat(kind, headline, text, self._start, complete))
            if self._headline.startswith(_PANIC):
                self.panic_ended = True
        self._reset()

    def _continues(self, text: str, line: str) -> bool:
        """Whether a line belongs to the open splat; if not, that one is closed."""
        if self._kind is None:
            return self._names_it(text, line)
        if text.startswith(_BOOT):
            self._finish(complete=self._ended())
            return False
        if self._kind is Kind.KASAN:
            self._keep(line)
            if _RULER.fullmatch(text):
                self._finish(complete=True)
            return True
        if self._starts_another(text):
            then_panics = self._kind in (Kind.HYP_PANIC, Kind.SERROR)
            self._finish(complete=then_panics or self._ended())
            return False
        if text.startswith((_END_TRACE, _END_PANIC)):
            self._keep(line)
            self._finish(complete=True)
            return True
        return self._follows_trace(text, line)

    def _names_it(self, text: str, line: str) -> bool:
        """A line below a ruler or "cut here", before the line that names the splat."""
        kind = _classify(text)
        if self._ruler:
            if kind is None and _BELOW_RULER.match(text):
                kind = Kind.LOCKDEP
            if kind is None:
                self._reset()
                return False
        elif text == _CUT_HERE or text.startswith(_END_TRACE):
            self._finish(complete=False)
            return False
        self._keep(line)
        if kind is not None:
            self._name(kind, text)
        return True

    def _starts_another(self, text: str) -> bool:
        if text == _CUT_HERE or _RULER.fullmatch(text):
            return True
        kind = _classify(text)
        if kind is None:
            return False
        if text.startswith("Internal error: ") and self._kind in (Kind.OOPS, Kind.BUG):
            return any("Internal error: " in line for line in self._lines)
        return True

    def _follows_trace(self, text: str, line: str) -> bool:
        assert self._kind is not None
        if text == "Call trace:" or self._lists_held_locks(text):
            self._in_trace = True
        elif self._in_trace and not text.startswith(" "):
            self._in_trace, self._trace_done = False, True
        free = self._kind in _TO_END_TRACE or self._kind is Kind.PANIC
        if self._trace_done and not self._in_trace and not free:
            tail = _TAIL.get(self._kind, _CODE_ONLY)
            if not tail.match(text) and not _CODE_ONLY.match(text):
                self._finish(complete=True)
                return False
        self._keep(line)
        if self._kind is Kind.PANIC and _PANIC_DONE.match(text):
            self._whole = self.panic_ended = True
        return True

    def _lists_held_locks(self, text: str) -> bool:
        """The one lockdep report without a call trace ends with its list of locks."""
        return self._headline == _LOCK_HELD and _HELD_BY.match(text) is not None


def splats(text: str) -> tuple[Splat, ...]:
    """All reports in a kernel log (dmesg or a console), in their order."""
    scanner = _Scanner()
    for line in text.removesuffix("\n").split("\n"):
        scanner.line(line.rstrip("\r").replace("\0", "")[:MAX_LINE])
    scanner.close()
    return tuple(scanner.done)


class Follower:
    """Follows a console that comes in pieces, while the machine behind it runs.

    `panic_line` is set as soon as the first line of a panic has come; `panic_ended` once its
    trace is there, so that whoever ends the machine waits for the whole trace (but not for
    ever: a machine may die within it).
    """

    def __init__(self) -> None:
        self._scanner = _Scanner()
        self._pending = b""
        self._told = 0

    @property
    def panic_line(self) -> str | None:
        """The first line of the first panic, without its timestamp."""
        return self._scanner.panic_line

    @property
    def panic_ended(self) -> bool:
        """Whether all of that panic's trace has come."""
        return self._scanner.panic_ended

    def feed(self, piece: bytes) -> tuple[Splat, ...]:
        """The splats that ended within this piece."""
        *lines, self._pending = (self._pending + piece).split(b"\n")
        for line in lines:
            self._line(line)
        while len(self._pending) > MAX_LINE:
            self._line(self._pending[:MAX_LINE])
            self._pending = self._pending[MAX_LINE:]
        return self._new()

    def close(self) -> tuple[Splat, ...]:
        """The console has ended: the splats that were open until now."""
        if self._pending:
            self._line(self._pending)
            self._pending = b""
        self._scanner.close()
        return self._new()

    def _line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r").replace("\0", "")
        self._scanner.line(text[:MAX_LINE])

    def _new(self) -> tuple[Splat, ...]:
        new = tuple(self._scanner.done[self._told :])
        self._told += len(new)
        return new
