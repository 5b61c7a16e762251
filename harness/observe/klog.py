# SPDX-License-Identifier: GPL-2.0-only
"""Cut out of the kernel's log what went wrong: WARN, BUG, Oops, stalls, lockdep, EL2 panics.

What begins a report stands in signatures.py, with the functions that print it; here is where each
ends, after kernel/panic.c, kernel/locking/lockdep.c, kernel/rcu/tree_stall.h, kernel/workqueue.c,
mm/kasan/report.c, lib/ubsan.c, lib/nmi_backtrace.c and arch/arm64/kvm/handle_exit.c. Nearly every
kind has a real splat under tests/data/observe; its README.md says which have not.

Only lines with the kernel's timestamp (CONFIG_PRINTK_TIME) can begin a splat: a program that
writes the same words to the console is no kernel. CONFIG_PRINTK_CALLER adds who printed a line,
and reports that several CPUs print at the same time are told apart by that. Without it nothing
tells whose line it is: such reports are all found, but each of them ends where the next one begins,
is not `complete`, and may hold lines of the other.

What some reports have printed directly above them, such as the page that a VM_BUG_ON_PAGE() is
about, is their beginning, but they are named by the same line as without it.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

from harness.observe.signatures import (
    CUT_HERE,
    PANIC,
    Kind,
    Preface,
    bad_page_frame,
    below_ruler,
    classify,
    corrected,
    has_no_trace,
    injected,
    is_one_line,
    is_ruler,
    message_kind,
    preface,
)

__all__ = [
    "MAX_LINE",
    "MAX_SPLAT_LINES",
    "Follower",
    "Kind",
    "Splat",
    "clock",
    "corrected_errors",
    "kernel_lines",
    "splats",
]

MAX_SPLAT_LINES = 1000
MAX_LINE = 8192
# What stands above a report: two traces of page_owner are most of it.
MAX_PREFACE_LINES = 100
# Callers whose reports may be open at the same time.
MAX_CALLERS = 64


@dataclass(frozen=True)
class Splat:
    """One report in a kernel log.

    `headline` is the line that names it, without its timestamp, and `message` what a WARN() says
    in words; `text` all its lines as they were logged; `line` the number of its first line, from 1.
    `complete` is False if the log ended before the report did, or if another came between.
    """

    kind: Kind
    headline: str
    text: str
    line: int
    complete: bool
    message: str = ""

    @property
    def title(self) -> str:
        """One line that tells what happened."""
        return f"{self.headline}: {self.message}" if self.message else self.headline


_STAMP = re.compile(
    r"\[ {0,11}(?P<clock>[0-9]{1,11}\.[0-9]{6})\]"
    r"(?:\[ {0,10}(?P<caller>[TC][0-9]{1,10})\])? (?P<text>.*)",
    re.DOTALL,
)
_BOOT = "Booting Linux on physical CPU "

_WARNINGS = frozenset({Kind.WARN, Kind.ODEBUG, Kind.REFCOUNT, Kind.LIST})
# Reports that end with "---[ end trace" (kernel/panic.c:print_oops_end_marker(), lib/ubsan.c).
_TO_END_TRACE = _WARNINGS | {Kind.BUG, Kind.OOPS, Kind.EXTERNAL_ABORT, Kind.UBSAN}
# Those that end with the ruler that they began with; UBSAN's did until 6.3.
_TO_RULER = frozenset({Kind.KASAN, Kind.KFENCE})
_RULED = re.compile(r"BUG: KCSAN: |BUG: KMSAN: |UBSAN: ")
# Those of which a panic is the end.
_THEN_PANIC = frozenset({Kind.HYP_PANIC, Kind.SERROR, Kind.BAD_MODE, Kind.STACK_OVERFLOW})
_REGISTERS = r"CPU: |Hardware name: |Tainted: |pstate: |pc : |lr : |sp : |x[0-9]{1,2}\s?: |Code: "
_NMI = r"Sending NMI from CPU |NMI backtrace for cpu |Modules linked in:"
# What may follow the last line of a call trace and still belongs to the report.
_TAIL: dict[Kind, re.Pattern[str]] = {
    Kind.RCU_STALL: re.compile(
        rf"rcu: \t|rcu: [a-z_]+ kthread |rcu: Stack dump |rcu: RCU grace-period |Task dump for CPU "
        r"|task:|\S{16}: [.I][.N] nvcsw: |P[0-9]{1,10}: [.I][.i]"
        r"|\tIPI outstanding to CPU "
        rf"|{_NMI}|{_REGISTERS}"
    ),
    Kind.SOFT_LOCKUP: re.compile(rf"{_NMI}|{_REGISTERS}"),
    Kind.HARD_LOCKUP: re.compile(rf"{_NMI}|{_REGISTERS}"),
    # 7.3 also shows who holds what the task waits for.
    Kind.HUNG_TASK: re.compile(r"INFO: task .{1,60} (?:is )?blocked on an? |task:"),
    # show_all_workqueues() and show_cpu_pools_hogs()
    Kind.WORKQUEUE: re.compile(
        r"Showing (?:busy workqueues|backtraces of running workers)|workqueue \S|pool [0-9]{1,10}:"
        r"|  pwq [0-9]|    (?:in-flight|pending|inactive):|task:"
    ),
    Kind.IRQ: re.compile(rf"handlers:|\[<|Disabling IRQ #|{_REGISTERS}"),
    Kind.CSD_LOCK: re.compile(rf"(?:smp: )?\s?csd: |{_NMI}|task:|Task dump for |{_REGISTERS}"),
    Kind.HARDWARE: re.compile(r"\{[0-9]{1,10}\}\[Hardware Error\]: (?!Hardware error from )"),
    Kind.MEMORY_FAILURE: re.compile(r"Memory failure: "),
    Kind.HYP_PANIC: re.compile(r"kvm \["),
    Kind.SERROR: re.compile(_REGISTERS),
    Kind.BAD_MODE: re.compile(_REGISTERS),
    Kind.STACK_OVERFLOW: re.compile(rf"ESR: |FAR: |(?:Task|IRQ|Overflow) stack: |{_REGISTERS}"),
    # The words that follow a trace where SLUB goes on by itself (slab_fix()).
    Kind.SLAB: re.compile(r"FIX \S{1,200}: "),
    # What dump_page() says of the page.
    Kind.PAGE_POISON: re.compile(r"page: |memcg:|head: |page_type: |flags: |raw: |page dumped "),
}
_CODE_ONLY = re.compile(r"Code: |irq event stamp: |(?:hard|soft)irqs last ")
# What shows that a trace is going to come.
_SIGN = re.compile(rf"Call trace:|{_REGISTERS}|Modules linked in:|[0-9]{{1,5}} locks? held by ")
# How many lines a report that need not have a trace may have before it.
_PATIENCE = 12
# What follows the heading of a warning and is no message of its own.
_NO_MESSAGE = re.compile(rf"{_REGISTERS}|Modules linked in:|Call trace:|\s*$")
_SECTION = re.compile(r"\{[0-9]{1,10}\}\[Hardware Error\]: +section_type: (.{1,100})")
# Of these every line is known, whether or not a trace is among them.
_LISTED = frozenset({Kind.WORKQUEUE, Kind.HARDWARE, Kind.MEMORY_FAILURE}) | _THEN_PANIC
_LOCK_HELD = "WARNING: lock held when returning to user space!"
_HELD_BY = re.compile(r"[0-9]{1,5} locks? held by ")
_END_TRACE = "---[ end trace "
_END_PANIC = "---[ end Kernel panic - not syncing: "
_PANIC_DONE = re.compile(r"Memory Limit: |Rebooting in [0-9]{1,10} seconds")
_NMI_BACKTRACE = "NMI backtrace for cpu "
# Lines that are kept in case that the beginning of a report is lost.
_RECENT = 80


def stamped(line: str) -> str | None:
    """What the kernel printed in a line of its log; None if the line has no timestamp.

    On a console the stamp may follow what a program wrote without a newline.
    """
    match = _STAMP.search(line)
    return None if match is None else match["text"]


def clock(text: str) -> float:
    """Seconds of the kernel's own clock at the last line that it printed, 0 if it printed none."""
    stamps = (_STAMP.search(line) for line in reversed(text.split("\n")))
    return next((float(stamp["clock"]) for stamp in stamps if stamp), 0.0)


def kernel_lines(text: str) -> int:
    """How many lines of a text are the kernel's: 0 means that it is no kernel log at all."""
    return sum(stamped(line) is not None for line in text.split("\n"))


def corrected_errors(text: str) -> int:
    """How many errors of the machine a log tells of that were corrected: no reports."""
    return sum(corrected(said) for line in text.split("\n") if (said := stamped(line.rstrip("\r"))))


@dataclass
class _Log:
    """What all callers' reports of one log share."""

    done: list[Splat] = field(default_factory=list)
    number: int = 0
    panic_line: str | None = None
    panic_ended: bool = False
    injected: set[str] = field(default_factory=set)
    """Pages that a program has made bad: that they are is nobody's fault."""


class _Scanner:
    """Takes the lines of one caller one by one and cuts the splats out of them."""

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._recent: deque[tuple[int, str]] = deque(maxlen=_RECENT)
        self._reset()

    @property
    def open(self) -> bool:
        """Whether a splat has begun and not ended."""
        return self._open

    @property
    def waiting(self) -> bool:
        """Whether something was printed that belongs to a splat, if that comes next."""
        return bool(self._above)

    def _reset(self) -> None:
        self._open = False
        self._preface: Preface | None = None
        self._above: list[tuple[int, str]] = []
        self._heading = 0
        self._kind: Kind | None = None
        self._headline = self._message = ""
        self._lines: list[str] = []
        # Lines without a stamp: dmesg(1) prints the second line of a message so. They count
        # only if more of the splat follows; a program's output after its end does not.
        self._foreign: list[str] = []
        self._start = self._after_name = 0
        self._ruler = self._sign = False
        self._in_trace = self._trace_done = self._whole = False

    def foreign(self, line: str) -> None:
        """A line that has no timestamp."""
        if self._open and len(self._lines) + len(self._foreign) < MAX_SPLAT_LINES:
            self._foreign.append(line)
        elif self._above and len(self._above) < MAX_PREFACE_LINES:
            # Of a message of several lines, which a VM_BUG_ON_MM() has.
            self._above.append((self._log.number, line))

    def line(self, text: str, line: str) -> None:
        """The next line: what the kernel printed in it, and as it was logged."""
        if self._open and self._continues(text, line):
            return
        self._begin(text, line)

    def close(self) -> None:
        """The log has ended."""
        self._finish(complete=self._ended())

    def _ended(self) -> bool:
        """Whether the open splat lacks nothing, if no line of it follows."""
        if self._kind in (None, Kind.PANIC) or self._kind in _TO_END_TRACE or self._to_ruler():
            return self._whole
        if self._may_be_bare() and not self._sign:
            return True
        if self._kind in _THEN_PANIC:
            return False
        return self._trace_done or self._in_trace

    def _begin(self, text: str, line: str) -> None:
        ruler = is_ruler(text)
        kind = self._kind_of(text)
        if text.startswith(_BOOT):
            self._log.panic_ended = self._log.panic_ended or self._log.panic_line is not None
        if not ruler and text != CUT_HERE and kind is None:
            self._put_above(text, line)
            self._begin_headless(text, line)
            return
        self._recent.clear()
        if self._preface is None or not self._preface.report.match(text):
            self._above = []
        self._open, self._ruler, self._start = True, ruler, self._log.number
        if self._above:
            self._start, self._heading = self._above[0][0], len(self._above)
            self._lines = [above for _, above in self._above]
        self._preface, self._above = None, []
        self._keep(line)
        if kind is not None:
            self._name(kind, text)

    def _kind_of(self, text: str) -> Kind | None:
        """What a line begins to report, if that is not what a program has asked for."""
        if (pfn := injected(text)) is not None:
            self._log.injected.add(pfn)
        return None if bad_page_frame(text) in self._log.injected else classify(text)

    def _put_above(self, text: str, line: str) -> None:
        """Keep a line that belongs to the report that comes next, if that does; drop others."""
        begun = preface(text)
        if self._preface is None or len(self._above) >= MAX_PREFACE_LINES:
            more = False
        elif begun is not None:
            # A dump may have two lines at its head: "page does not match folio".
            more = begun is self._preface and len(self._above) == 1
        else:
            more = self._preface.more.match(text) is not None
        if not more:
            self._preface, self._above = begun, []
        if self._preface is not None:
            self._above.append((self._log.number, line))

    def _begin_headless(self, text: str, line: str) -> None:
        """A line between reports. The end of one, if none has begun, is what is left of it."""
        if self._log.done:
            return
        self._recent.append((self._log.number, line))
        if text.startswith(_END_TRACE):
            self._open, self._kind, self._start = True, Kind.HEADLESS, self._recent[0][0]
            self._headline = "a report whose beginning is lost"
            self._lines = [kept for _, kept in self._recent]
            self._recent.clear()
            self._finish(complete=False)

    def _name(self, kind: Kind, text: str) -> None:
        self._kind, self._headline = kind, text
        self._specialise()
        if text.startswith(PANIC) and self._log.panic_line is None:
            self._log.panic_line = text
        if is_one_line(text):
            self._finish(complete=True)
        elif kind in _LISTED or (kind is Kind.RCU_STALL and has_no_trace(text)):
            self._trace_done = True

    def _specialise(self) -> None:
        """What a warning is about, if its message says that."""
        if self._kind is Kind.WARN and self._message:
            self._kind = message_kind(self._message) or self._kind

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
            if self._may_be_bare() and not self._sign and not self._to_ruler():
                self._lines = self._lines[: self._heading + 1]
            text = "\n".join(self._lines)
            self._log.done.append(Splat(kind, headline, text, self._start, complete, self._message))
            if self._headline.startswith(PANIC):
                self._log.panic_ended = True
        self._reset()

    def _continues(self, text: str, line: str) -> bool:
        """Whether a line belongs to the open splat; if not, that one is closed."""
        if self._kind is None:
            return self._names_it(text, line)
        if text.startswith(_BOOT):
            self._finish(complete=self._ended())
            return False
        if self._to_ruler():
            self._keep(line)
            if is_ruler(text):
                self._finish(complete=True)
            return True
        if self._starts_another(text):
            self._finish(complete=self._kind in _THEN_PANIC or self._ended())
            return False
        if text.startswith((_END_TRACE, _END_PANIC)):
            self._keep(line)
            self._finish(complete=True)
            return True
        return self._follows_trace(text, line)

    def _may_be_bare(self) -> bool:
        """Whether the open splat may be one line without a trace, as far as its heading tells."""
        return self._kind is Kind.REPORT or (self._kind is Kind.LOCKDEP and not self._ruler)

    def _to_ruler(self) -> bool:
        """Whether the open splat ends with a ruler, whatever stands before that."""
        ruled = self._ruler and _RULED.match(self._headline) is not None
        return ruled or self._kind in _TO_RULER

    def _names_it(self, text: str, line: str) -> bool:
        """A line below a ruler or "cut here", before the line that names the splat."""
        if self._ruler:
            kind = below_ruler(text)
            if kind is None:
                self._reset()
                return False
        else:
            kind = classify(text)
            if text == CUT_HERE or text.startswith(_END_TRACE):
                self._finish(complete=False)
                return False
            if kind is None:
                # arch/arm64 has the words of a WARN() printed first (__warn_printk()).
                self._message = self._message or text.strip()
        self._keep(line)
        if kind is not None:
            self._name(kind, text)
        return True

    def _starts_another(self, text: str) -> bool:
        if self._kind is Kind.SLAB and not self._trace_done and not is_ruler(text):
            # Its trace may be that of a WARN() (slab_err(), object_err()).
            return text != CUT_HERE and classify(text) not in (None, Kind.WARN)
        if text == CUT_HERE or is_ruler(text):
            return True
        kind = classify(text)
        if kind is None or kind is self._kind is Kind.MEMORY_FAILURE:
            return False
        if text.startswith("Internal error: ") and self._kind in (Kind.OOPS, Kind.BUG):
            return any("Internal error: " in line for line in self._lines)
        return True

    def _follows_trace(self, text: str, line: str) -> bool:
        assert self._kind is not None
        self._after_name += 1
        if self._kind in _WARNINGS and self._after_name == 1 and not self._message:
            # 7.3 has them printed by __warn(), below its heading.
            self._message = "" if _NO_MESSAGE.match(text) else text.strip()
            self._specialise()
        if self._kind is Kind.HARDWARE and not self._message and (what := _SECTION.match(text)):
            self._message = what[1]
        self._sign = self._sign or _SIGN.match(text) is not None
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
        if self._may_be_bare() and not self._sign and self._after_name > _PATIENCE:
            self._finish(complete=True)
            return False
        self._keep(line)
        if self._kind is Kind.PANIC and _PANIC_DONE.match(text):
            self._whole = self._log.panic_ended = True
        return True

    def _lists_held_locks(self, text: str) -> bool:
        """The one lockdep report without a call trace ends with its list of locks."""
        return self._headline == _LOCK_HELD and _HELD_BY.match(text) is not None


class _Demultiplexer:
    """Takes the lines of a log one by one and gives each to the scanner of who printed it.

    Where CONFIG_PRINTK_CALLER is off, that is one for all.
    """

    def __init__(self) -> None:
        self.log = _Log()
        self._last = _Scanner(self.log)
        self._scanners: dict[str, _Scanner] = {"": self._last}

    def line(self, line: str) -> None:
        """The next line, without its end."""
        self.log.number += 1
        stamp = _STAMP.search(line)
        if stamp is None:
            self._last.foreign(line)
            return
        text = stamp["text"]
        if text.startswith(_BOOT):
            self._close_others()
        self._last = self._scanner(stamp["caller"] or "", text)
        self._last.line(text, line)

    def close(self) -> None:
        """The log has ended."""
        for scanner in self._scanners.values():
            scanner.close()

    def _close_others(self) -> None:
        """The machine starts again: what any caller had begun has ended."""
        for caller, scanner in list(self._scanners.items()):
            if caller:
                scanner.close()
                del self._scanners[caller]

    def _scanner(self, caller: str, text: str) -> _Scanner:
        known = self._scanners.get(caller)
        if known is not None and (known.open or known.waiting or not caller):
            return known
        if text.startswith(_NMI_BACKTRACE) and self._last.open:
            # What a CPU prints because another one asked for it is a part of that one's report.
            known = self._last
        if known is None or not (known.open or known.waiting):
            known = _Scanner(self.log)
        self._scanners.pop(caller, None)
        self._scanners[caller] = known
        if len(self._scanners) > MAX_CALLERS:
            self._forget()
        return known

    def _forget(self) -> None:
        """Close the report of the caller that has been there for the longest time."""
        oldest = next(caller for caller in self._scanners if caller)
        self._scanners.pop(oldest).close()


def splats(text: str) -> tuple[Splat, ...]:
    """All reports in a kernel log (dmesg or a console), in the order in which they begin."""
    scanner = _Demultiplexer()
    for line in text.removesuffix("\n").split("\n"):
        scanner.line(line.rstrip("\r").replace("\0", "")[:MAX_LINE])
    scanner.close()
    return tuple(sorted(scanner.log.done, key=lambda splat: splat.line))


class Follower:
    """Follows a console that comes in pieces, while the machine behind it runs.

    `panic_line` is set as soon as the first line of a panic has come; `panic_ended` once its
    trace is there, so that whoever ends the machine waits for the whole trace (but not for
    ever: a machine may die within it).
    """

    def __init__(self) -> None:
        self._scanner = _Demultiplexer()
        self._pending = b""
        self._told = 0

    @property
    def panic_line(self) -> str | None:
        """The first line of the first panic, without its timestamp."""
        return self._scanner.log.panic_line

    @property
    def panic_ended(self) -> bool:
        """Whether all of that panic's trace has come."""
        return self._scanner.log.panic_ended

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
        new = tuple(self._scanner.log.done[self._told :])
        self._told += len(new)
        return new
