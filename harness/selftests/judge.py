# SPDX-License-Identifier: GPL-2.0-only
"""From what a selftest left to a test point of KTAP, and from KTAP to an outcome: pure functions.

Many KVM selftests print no TAP. They say how they ended by their exit status, and why by the text
of TEST_ASSERT (lib/assert.c).
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from harness.selftests import ktap
from harness.selftests.table import Selftest

KSFT_SKIP = 4  # tools/testing/selftests/kselftest.h
_ASSERTION = re.compile(
    r"^==== Test Assertion Failure ====\n"
    r"\s*(?P<where>\S+:\d+): (?P<what>[^\n]*)\n"
    r"\s*pid=\d+ tid=\d+ errno=\d+ - (?P<errno>[^\n]*)\n"
    r"(?P<rest>(?:[^\n]*\n?)*)",
    re.MULTILINE,
)
# What addr2line would have printed of the stack, or that there is none.
_STACK = re.compile(r"\s+\d+\t|\s*\(stack trace empty\)|sh: .*addr2line")
_SKIPPING = re.compile(r"^(?P<why>.*?)[,;]? (?:- )?skipping test$", re.MULTILINE)

Outcome = Literal["pass", "fail", "skip", "unproven", "hung"]


@dataclass(frozen=True)
class Ended:
    """How one run of a selftest ended. `status` is the shell's, None if its time ran out."""

    output: str
    status: int | None
    seconds: float
    left: bool = False
    """Whether processes of its were still there when it had ended."""


def point(
    test: Selftest, name: str, ended: Ended, allowed: float, *, emulated: bool = False
) -> ktap.Point:
    """The test point of one run, with all of its output as its diagnostics.

    A failure that is the emulator's is one that is expected on an emulated host (XFAIL); how many
    parts had passed before is told with it.
    """
    ok, directive, detail = _result(test, ended, allowed)
    excuse = test.emulated if emulated else None
    if not ok and not directive and excuse and re.search(excuse.pattern, ended.output):
        passed = len(re.findall(excuse.part, ended.output)) - 1
        directive, detail = "XFAIL", f"{passed} parts passed, not {excuse.parts}: {excuse.why}"
    return ktap.Point(None, ok, name, directive, detail, tuple(ended.output.splitlines()))


def skipped(name: str, why: str) -> ktap.Point:
    """The test point of a selftest that was not run."""
    return ktap.Point(None, True, name, "SKIP", _one_line(why))


def broken(name: str, why: str) -> ktap.Point:
    """The test point of a selftest that does not compile."""
    return ktap.Point(None, False, name, "", f"does not compile: {_one_line(why)}")


def unbuilt(name: str, why: str) -> ktap.Point:
    """The test point of one that does not compile without the series either."""
    return ktap.Point(None, False, name, "ERROR", f"does not compile: {_one_line(why)}")


def _result(test: Selftest, ended: Ended, allowed: float) -> tuple[bool, str, str]:
    if ended.status is None:
        return False, "TIMEOUT", f"{allowed:.0f} seconds"
    why = assertion(ended.output)
    # A failed assertion ends with KSFT_SKIP where errno was EACCES. We are root: nothing is denied.
    if ended.status == KSFT_SKIP and why is None:
        return True, "SKIP", _why_skipped(ended.output)
    if ended.status != 0 or why is not None:
        return False, "", why or exit_words(ended.status)
    if ended.left:
        return False, "", "it left processes behind"
    if not re.search(test.shown, ended.output):
        return False, "ERROR", f"it exited with 0, but its output lacks {test.shown!r}"
    return True, "", f"{ended.seconds:.1f} s"


def assertion(output: str) -> str | None:
    """The first failed assertion, in one line and without what differs from run to run (pids)."""
    found = _ASSERTION.search(output)
    if found is None:
        return "an assertion" if "==== Test Assertion Failure ====" in output else None
    message = [line.strip() for line in found["rest"].split("\n") if not _STACK.match(line)]
    said = next((line for line in message if line), "")
    return _one_line(": ".join(part for part in (found["where"], found["what"], said) if part))


def exit_words(status: int) -> str:
    """An exit status of the shell in words: above 128 it was a signal."""
    try:
        return f"ended by {signal.Signals(status - 128).name}"
    except ValueError:
        return f"exit status {status}"


def _why_skipped(output: str) -> str:
    found = _SKIPPING.search(output)
    last = output.strip().splitlines()[-1:] or ["it does not say why"]
    return _one_line(found["why"] if found else last[0])


def _one_line(text: str) -> str:
    """On one line, and no hash sign, which KTAP gives a meaning."""
    return " ".join(text.replace("#", "").split())


def outcome(results: ktap.Results) -> tuple[Outcome, str]:
    """What a document amounts to, and why. A failure outranks all else; nothing proves nothing."""
    special = {"TIMEOUT": "hung", "ERROR": "unproven"}
    plain = [p for p in results.points if p.ok or p.directive not in special]
    failures = list(ktap.Results(points=tuple(plain)).failures())
    failures += [*results.problems, *([f"bailed out: {results.bail}"] if results.bail else [])]
    if failures:
        return "fail", "; ".join(failures)
    for directive, kind in (("TIMEOUT", "hung"), ("ERROR", "unproven")):
        found = [p for p in results.points if not p.ok and p.directive == directive]
        if found:
            return kind, "; ".join(f"{p.name}: {p.detail}" for p in found)  # type: ignore[return-value]
    if all(p.skipped for p in results.points):
        return "skip", "; ".join(dict.fromkeys(p.detail for p in results.points))
    return "pass", ""


def summary(points: Sequence[ktap.Point]) -> str:
    """The points in a few words."""
    return "; ".join(
        f"{p.name}: {'ok' if p.ok else 'not ok'} {p.directive} {p.detail}".replace(
            "  ", " "
        ).strip()
        for p in points
    )
