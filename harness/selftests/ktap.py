# SPDX-License-Identifier: GPL-2.0-only
"""KTAP, the kernel's test output: parsed, and written (Documentation/dev-tools/ktap.rst).

The parser takes what is there and lists what ought to be: a plan that was not met, numbers out of
order, subtests whose parent never came. It never raises: what a test prints is not ours to choose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_VERSION = re.compile(r"(?:K?TAP version \d+)$")
_PLAN = re.compile(r"1\.\.(?P<count>\d{1,9})(?:\s*#\s*(?:SKIP\b)?\s*(?P<why>.*))?$", re.IGNORECASE)
_POINT = re.compile(
    r"(?P<not>not )?ok\b(?: (?P<number>\d{1,9}))?(?P<name>(?: [^#\n]*)?)"
    r"(?:#\s*(?P<rest>.*))?$"
)
_DIRECTIVE = re.compile(r"(?P<word>SKIP|TODO|XFAIL|TIMEOUT|ERROR)\b:?\s*(?P<detail>.*)$", re.I)
_BAIL = re.compile(r"Bail out!\s*(?P<why>.*)$")
# A test that is not expected to pass, or did not run.
_EXCUSES = ("SKIP", "TODO", "XFAIL")
STEP = "  "


@dataclass(frozen=True)
class Point:
    """One test case result line, with the lines before it and the subtests that it sums up."""

    number: int | None
    ok: bool
    name: str
    directive: str = ""
    """SKIP, TODO, XFAIL, TIMEOUT, ERROR or "" for none."""
    detail: str = ""
    """What stands behind the directive, or behind a bare "#"."""
    log: tuple[str, ...] = ()
    subtests: Results | None = None

    @property
    def skipped(self) -> bool:
        """Whether it says that it did not run."""
        return self.directive == "SKIP"


@dataclass(frozen=True)
class Results:
    """One level of KTAP output.

    `plan` is the promised number of tests, None if there was no plan; `skip` why a plan of none
    says that all were skipped; `bail` why the test gave up, None if it did not; `problems` what is
    wrong with the output as such; `log` the lines after the last result.
    """

    plan: int | None = None
    skip: str | None = None
    points: tuple[Point, ...] = ()
    bail: str | None = None
    problems: tuple[str, ...] = ()
    log: tuple[str, ...] = ()

    def failures(self, above: str = "") -> Iterator[str]:
        """What failed, by the names from the top down; a test fails if one of its subtests does."""
        for problem in self.problems:
            yield f"{above}{problem}"
        if self.bail is not None:
            yield f"{above}bailed out: {self.bail}"
        for point in self.points:
            path = f"{above}{point.name or point.number}"
            inner = list(point.subtests.failures(f"{path}/")) if point.subtests else []
            if point.directive in _EXCUSES:
                continue
            yield from inner
            if not point.ok and not inner:
                words = " ".join(part for part in (point.directive, point.detail) if part)
                yield f"{path}: {words}" if words else path


@dataclass
class _Level:
    """Results as they come in."""

    depth: int
    plan: int | None = None
    skip: str | None = None
    points: list[Point] = field(default_factory=list)
    bail: str | None = None
    problems: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    ended: Results | None = None
    """Subtests whose parent's own result has yet to come."""

    def take(self, line: str) -> None:
        """One line of this level, without its indentation."""
        if found := _PLAN.match(line):
            if self.plan is not None:
                self.problems.append(f"a second plan, {line}")
            self.plan = int(found["count"])
            if self.plan == 0:
                self.skip = (found["why"] or "").strip()
        elif found := _BAIL.match(line):
            self.bail = found["why"]
        elif found := _POINT.match(line):
            self._point(found)
        else:
            self.log.append(line)

    def _point(self, found: re.Match[str]) -> None:
        rest = (found["rest"] or "").strip()
        told = _DIRECTIVE.match(rest)
        number = int(found["number"]) if found["number"] else None
        if number is not None and number != len(self.points) + 1:
            self.problems.append(f"test {number} where {len(self.points) + 1} was due")
        name = found["name"].strip().removeprefix("- ")
        directive = told["word"].upper() if told else ""
        detail = told["detail"] if told else rest
        ok = found["not"] is None
        self.points.append(Point(number, ok, name, directive, detail, tuple(self.log), self.ended))
        self.log, self.ended = [], None

    def close(self) -> Results:
        if self.ended is not None:
            self.problems.append("subtests without a result of the test that they are of")
        if self.plan is not None and self.plan != len(self.points) and self.bail is None:
            self.problems.append(f"{len(self.points)} of {self.plan} planned tests have a result")
        return Results(
            self.plan, self.skip, tuple(self.points), self.bail,
            tuple(self.problems), tuple(self.log),
        )  # fmt: skip


def announced(text: str) -> bool:
    """Whether a text has a version line of TAP or KTAP, and so is to be read as such."""
    return any(_VERSION.match(line.rstrip()) for line in text.splitlines())


def parse(text: str) -> Results:
    """All results of a text.

    What stands before the first version line is no result. A text without one has no results,
    and says so in `problems`.
    """
    lines = [line.rstrip() for line in text.splitlines()]
    start = next((at for at, line in enumerate(lines) if _VERSION.match(line)), None)
    if start is None:
        return Results(problems=("no version line",), log=tuple(lines))
    levels = [_Level(0)]
    for line in lines[start + 1 :]:
        _take(levels, line)
    while len(levels) > 1:
        _end_innermost(levels)
    return levels[0].close()


def _take(levels: list[_Level], line: str) -> None:
    """Hand one line to the level that it belongs to by its indentation."""
    deeper = STEP * len(levels)
    if line.startswith(deeper) and _VERSION.match(line.removeprefix(deeper)):
        levels.append(_Level(len(levels)))
        return
    inner = levels[-1]
    own = line.removeprefix(STEP * inner.depth)
    if line.startswith(STEP * inner.depth) and not own.startswith(" "):
        inner.take(own)
        return
    depth = (len(line) - len(line.lstrip(" "))) // len(STEP)
    word = line.lstrip(" ")
    if depth < inner.depth and (_POINT.match(word) or _BAIL.match(word)):
        while levels[-1].depth > depth:
            _end_innermost(levels)
        levels[-1].take(word)
        return
    # An unknown line belongs to no level, and has no say.
    inner.log.append(line)


def _end_innermost(levels: list[_Level]) -> None:
    ended = levels.pop().close()
    levels[-1].ended = ended


def render(points: Sequence[Point]) -> str:
    """A document of one level. What is in `log` stands before its point: as subtests if it is
    (K)TAP itself, else as diagnostics.
    """
    lines = ["KTAP version 1", f"1..{len(points)}"]
    for number, point in enumerate(points, 1):
        nested = announced("\n".join(point.log))
        prefix = STEP if nested else "# "
        lines += [f"{prefix}{line}".rstrip() for line in point.log]
        result = f"{'ok' if point.ok else 'not ok'} {number} {point.name}"
        tail = " ".join(part for part in (point.directive, point.detail) if part)
        lines.append(f"{result} # {tail}" if tail else result)
    return "\n".join(lines) + "\n"
