# SPDX-License-Identifier: GPL-2.0-only
"""What tells two reports of the kernel apart: its kind, and the functions that led to it.

A bug that strikes a hundred times is one finding, and one that the base kernel has as well is not
the series'. Addresses, offsets, process ids and line numbers differ between two strikes of one bug,
and between two builds; the names of the innermost functions do not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from harness.observe.klog import MAX_LINE, Kind, Splat, stamped

# Functions of the key: enough to tell the callers of a helper apart, and few enough that two
# system calls with one bug below them are one.
KEY_FRAMES = 4
SUSPECTS = 12

# " f+0x1/0x2", " f+0x1/0x2 [module]", in 7.3 " f+0x1/0x2 (P)"; "kvm [1]:  [<addr>] f+0x1/0x2"
_FRAME = re.compile(
    r"(?:kvm \[[0-9]{1,10}\]:)?\s+(?:\[<[0-9a-f]{1,16}>\]\s+)?"
    r"(?P<name>[A-Za-z_][\w.$]{0,200})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
    r"(?: \[(?P<module>[\w-]{1,64})[^\]]{0,64}\])?(?: \([A-Z]{1,8}\))?\s*$"
)
# Any function with an offset, wherever it stands: pc, lr, "at f+0x1/0x2", "in f+0x1/0x2".
_SYMBOL = re.compile(r"\b(?P<name>[A-Za-z_][\w.$]{0,200})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}")
_TRACE = re.compile(r"Call trace:|kvm \[[0-9]{1,10}\]: nVHE call trace:")
_PC = re.compile(r"pc : ")
# What a compiler appends to the name of a copy of a function. One build has it, another has not.
_CLONE = re.compile(r"(?:\.(?:isra|constprop|part|cold|lto_priv|llvm)(?:\.[0-9]+)*)+$")
# What prints the report, or waits on behalf of what is to blame: not where the bug is.
_NOISE = re.compile(
    r"dump_backtrace|show_stack|show_regs|__show_regs|dump_stack(?:_lvl)?|panic|vpanic|nmi_panic|die"
    r"|print_report|k[ac]san_\w+|__kasan_\w+|__[at]san_\w+|__hwasan_\w+|check_memory_region"
    r"|kfence_\w+|ubsan_\w+|__ubsan_\w+"
    r"|print_\w+_bug(?:_\w+)?|print_\w*(?:inversion|usage|recursion|deadlock|dependency)\w*"
    r"|check_noncircular|check_prev_add|validate_chain|mark_lock\w*|register_lock_class"
    r"|__?lock_(?:acquire|release)\w*|lock_(?:acquire|release)|lockdep_\w+|debug_check_no_\w+"
    r"|__might_(?:resched|sleep|fault)|__cant_sleep|__schedule_bug"
    r"|__warn\w*|warn_slowpath_\w+|bad_page\w*|free_page_is_bad_report|print_bad_pte"
    r"|object_err|(?:__)?slab_err|check_(?:object|slab|pad_bytes|bytes_and_report)|slab_pad_check"
    r"|(?:alloc|free)_(?:debug|consistency)_\w+|free_to_partial_list|on_freelist"
    r"|debug_print_object|refcount_warn_saturate|__list_(?:add|del_entry)_valid\w*"
    r"|__switch_to|(?:__)?schedule|schedule_(?:timeout|preempt_disabled)\w*|preempt_schedule\w*"
    r"|_raw_(?:spin|read|write)_\w+|(?:__)?mutex_(?:un)?lock\w*|(?:down|up)_(?:read|write)\w*"
    r"|arch_counter_\w+|ktime_get\w*|__?delay|__(?:const_)?udelay"
    r"|__report_bad_irq|note_interrupt|csd_lock_wait_toolong|__csd_lock_wait"
    r"|arm64_serror_panic|do_serror|el1h_64_error(?:_handler)?"
    r"|__kvm_nvhe_hyp_panic|__kvm_nvhe___host_exit|nvhe_hyp_panic_handler"
)
_NUMBERS = re.compile(r"\b(?:0x)?[0-9a-f]*[0-9][0-9a-f]*\b")
# kernel/panic.c:print_tainted(): a letter or a blank for each flag; then the release, or nothing.
_TAINT = re.compile(r"\bTainted: ([A-Z][A-Z ]{0,40}?)\s*(?= [0-9]|$)")
# Where in the source a WARN() or BUG() stands: CONFIG_DEBUG_BUGVERBOSE. What UBSAN says has the
# folder of the build before it (kernel/sandbox.py).
_SITE = re.compile(r"(?:/src/|\b)(?P<site>[\w./+-]{1,200}\.[chS]:[0-9]{1,7})\b")
_SITED = frozenset({Kind.WARN, Kind.ODEBUG, Kind.REFCOUNT, Kind.LIST, Kind.BUG, Kind.UBSAN})
_MODULES = "Modules linked in:"


@dataclass(frozen=True)
class Finding:
    """Reports that have one cause, as far as their traces tell: the first, and how many."""

    splat: Splat
    key: str
    """Equal for reports of one cause, in this log and in another kernel's."""
    frames: tuple[str, ...]
    """The innermost functions, without what printed the report."""
    site: str = ""
    """File and line of the WARN() or BUG(), or of what UBSAN found, where the report has them.

    Another build's differ.
    """
    count: int = 1


def _texts(splat: Splat) -> list[str]:
    """What the kernel printed, line by line; of dmesg's padded lines all that stands in them."""
    lines = splat.text.split("\n")
    return [line if (text := stamped(line)) is None else text for line in lines]


def suspects(splat: Splat) -> tuple[str, ...]:
    """The functions in whose lines a reader is interested, by their names in System.map."""
    texts = _texts(splat)
    named = next((at for at, text in enumerate(texts) if text == splat.headline), 0)
    # What stands above the report itself, such as who had the page that it is about, comes last.
    turned = (*texts[named:], *texts[:named])
    said = (match["name"] for text in turned for match in _SYMBOL.finditer(text))
    # The innermost first, then lr and what lockdep names as holders, then who called.
    called = trace(splat)
    names = dict.fromkeys((*called[:KEY_FRAMES], *said, *called))
    return tuple(name for name in names if not _NOISE.fullmatch(name))[:SUSPECTS]


def trace(splat: Splat) -> tuple[str, ...]:
    """The functions of a report's first call trace, innermost first; () if it has none."""
    found: list[str] = []
    within = False
    for text in _texts(splat):
        if _TRACE.match(text):
            within = True
        elif within:
            if (frame := _FRAME.match(text[:MAX_LINE])) is None:
                break
            found.append(frame["name"])
    return tuple(found)


def frames(splat: Splat) -> tuple[str, ...]:
    """The innermost functions of a report, without those that print it and without suffixes.

    Where there is no trace, it is the function that was running, or one that the report names.
    """
    names = trace(splat)
    if splat.kind is Kind.HYP_PANIC:
        # Its trace begins with what EL2 does on a panic.
        names = (*(match["name"] for match in _SYMBOL.finditer(splat.headline)), *names)
    if not names:
        texts = _texts(splat)
        running = [text for text in texts if _PC.match(text)] or [splat.headline]
        names = tuple(match["name"] for text in running[:1] for match in _SYMBOL.finditer(text))
    bare = [_CLONE.sub("", name) for name in names]
    kept = [name for name in bare if not _NOISE.fullmatch(name)]
    return tuple((kept or bare)[:KEY_FRAMES])


def key(splat: Splat) -> str:
    """What is the same for two reports of one cause: kind and frames, else the words alone."""
    innermost = frames(splat)
    if innermost:
        return f"{splat.kind}: {' < '.join(innermost)}"
    return f"{splat.kind}: {_NUMBERS.sub('N', splat.title)[:200]}"


def distinct(splats: Iterable[Splat]) -> tuple[Finding, ...]:
    """One finding for each cause, in the order in which they first struck.

    Two warnings in one function are two. Of reports with one cause a complete one is shown rather
    than one that was cut; what is left of one that was cut counts as one of a cause that is known,
    if nothing in it speaks against that.
    """
    found: dict[tuple[str, str], Finding] = {}
    for splat in sorted(splats, key=lambda one: not one.complete):
        name = _known(splat, found) or (key(splat), site(splat))
        if name not in found:
            found[name] = Finding(splat, name[0], frames(splat), name[1])
            continue
        found[name] = replace(found[name], count=found[name].count + 1)
    return tuple(sorted(found.values(), key=lambda finding: finding.splat.line))


def _known(splat: Splat, found: Mapping[tuple[str, str], Finding]) -> tuple[str, str] | None:
    """The complete finding of which a report that was cut has kind, site and first functions."""
    innermost, where = frames(splat), site(splat)
    if splat.complete or not innermost:
        return None
    for name, finding in found.items():
        alike = finding.splat.kind is splat.kind and finding.site == where
        if alike and finding.splat.complete and finding.frames[: len(innermost)] == innermost:
            return name
    return None


def site(splat: Splat) -> str:
    """File and line of the WARN() or BUG(), or of what UBSAN reports, "" if it does not say."""
    match = _SITE.search(splat.headline) if splat.kind in _SITED else None
    return match["site"] if match else ""


def merge(one: Iterable[Finding], other: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of two views of one log, such as console and dmesg: none counts twice."""
    found = {(finding.key, finding.site): finding for finding in one}
    for finding in other:
        name = (finding.key, finding.site)
        before = found.setdefault(name, finding)
        if finding.count > before.count:
            found[name] = replace(before, count=finding.count)
    return tuple(found.values())


def counted(count: int) -> str:
    """How many reports, in words."""
    return "1 report" if count == 1 else f"{count} distinct reports"


def taint(splat: Splat) -> str:
    """The letters of the kernel's taint when it reported, "" if it had none or did not say."""
    for text in _texts(splat):
        if (match := _TAINT.search(text)) is not None:
            return "".join((match[1] or match[2]).split())
    return ""


def modules(splat: Splat) -> tuple[str, ...]:
    """The modules that a report lists as loaded."""
    for text in _texts(splat):
        if text.startswith(_MODULES):
            words = text.removeprefix(_MODULES).split("[last unloaded")[0].split()
            return tuple(word.split("(")[0] for word in words)
    return ()
