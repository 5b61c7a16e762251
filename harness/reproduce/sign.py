# SPDX-License-Identifier: GPL-2.0-only
"""By what a failure is known again: what only the failing kernel shows, whenever it was tried.

A check ends where it fails, so what it judged last is the last step that both kernels were asked
for alike. But what differs there may be what the series means to change, and the failure may not
have come again: a difference is the failure only if the run wrote down that this step showed it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.reproduce.script import Boot

_UP_TO_NUMBER = re.compile("[0-9]")


@dataclass(frozen=True)
class Sign:
    """What a boot must show for the failure to be seen."""

    kind: Literal["report", "stop", "lines", "none"]
    """A report of the kernel; the host stops in a step; what a step shows; nothing known."""
    step: int = 0
    """Of `stop` and `lines`; 0 is the boot itself."""
    seen: tuple[str, ...] = ()
    """Lines of the step, or titles of reports without their numbers, that are all there."""
    absent: tuple[str, ...] = ()
    """Lines of the step that a kernel without the failure shows, of which none is there."""
    rare: bool = False
    """It is what the run saw, and not each boot that was tried has shown it; none may have."""
    sure: bool = True
    """Whether it is the failure; otherwise a difference of the kernels that may be another one."""


def choose(
    bad: Sequence[Boot],
    good: Sequence[Boot],
    *,
    alike: int,
    titles: Sequence[str] = (),
    errors: Mapping[int, Sequence[str]],
    recorded: Mapping[int, frozenset[str]],
) -> Sign:
    """The sign that tells boots of the failing kernel from boots of another one.

    `alike` is how many steps both were asked for alike in the run. What the run saw: `titles` of
    the kernel's reports by which the check failed, `errors`, replies that were errors, by step
    (steps.errors()), and `recorded`, what the steps showed (steps.shown()).
    """
    always = _all(boot.titles for boot in bad) - _any(boot.titles for boot in good)
    if always:
        return Sign("report", seen=tuple(sorted(always)))
    stopped = {boot.begun for boot in bad}
    if len(stopped) == 1 and not any(b.over for b in bad) and good and all(g.over for g in good):
        return Sign("stop", stopped.pop())
    rare = [Sign("report", seen=(title,)) for title in titles]
    rare += [
        Sign("lines", step, tuple(f"1 {word}" for word in words))
        for step, words in sorted(errors.items(), reverse=True)
    ]
    own = [sign for sign in rare if not any(shows(boot, sign) for boot in good)]
    if own:
        # What came again tells more than what did not.
        best = max(own, key=lambda sign: sum(shows(boot, sign) for boot in bad))
        return replace(best, rare=not all(shows(boot, best) for boot in bad))
    for step in range(min(alike, max((boot.begun for boot in bad), default=0)), 0, -1):
        if not good or not all(step in boot.shown for boot in (*bad, *good)):
            continue
        theirs, others = [b.shown[step] for b in bad], [g.shown[step] for g in good]
        seen, absent = _all(theirs) - _any(others), _all(others) - _any(theirs)
        if seen or absent:
            return _lines(step, seen, absent, recorded.get(step))
    return Sign("none")


def shows(boot: Boot, sign: Sign) -> bool:
    """Whether the failure is seen in a boot; run.sh of a reproducer decides alike."""
    if sign.kind == "report":
        return set(sign.seen) <= boot.titles
    if sign.kind == "stop":
        return not boot.over and boot.begun == sign.step and sign.step not in boot.shown
    if sign.kind == "lines":
        lines = boot.shown.get(sign.step)
        return lines is not None and set(sign.seen) <= lines and not set(sign.absent) & lines
    return False


def _lines(
    step: int, seen: frozenset[str], absent: frozenset[str], recorded: frozenset[str] | None
) -> Sign:
    """The lines of a step that tell; those alone, if there are such, of which either has one.

    A counter that happened to be the same in all boots of one kernel has no such partner. They are
    the failure if that step showed all of them in the run, and there are such.
    """
    both = {_key(line) for line in seen} & {_key(line) for line in absent}
    if both:
        seen = frozenset(line for line in seen if _key(line) in both)
        absent = frozenset(line for line in absent if _key(line) in both)
    sure = bool(seen) and recorded is not None and seen <= recorded
    return Sign("lines", step, tuple(sorted(seen)), tuple(sorted(absent)), sure=sure)


def _key(line: str) -> str:
    """What a line is about: its text, without how often it comes, up to a number."""
    text = line.partition(" ")[2]
    return _UP_TO_NUMBER.split(text, maxsplit=1)[0]


def _all(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    found = list(sets)
    return frozenset.intersection(*found) if found else frozenset()


def _any(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
