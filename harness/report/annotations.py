# SPDX-License-Identifier: GPL-2.0-only
"""A run's JUnit document as workflow commands of GitHub Actions, which become annotations.

GitHub shows no more than ten errors, ten warnings and ten notices of one step, so a check has one
annotation for all cells where it ended alike, and what does not fit is counted in the last. All
that a run says is escaped: a line of it can become no command of its own, nor another property of
ours.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from harness.printable import printable
from harness.report.junit import CELL, EARLY, FIGURES, SITE, UNPROVEN
from harness.results import SERIES, Outcome

MOST = 10
"""Annotations of one kind that GitHub shows for a step."""
LONGEST = 2000
"""Characters of a message: whole texts stand in the report."""
_KINDS: dict[Outcome, str] = {"fail": "error", "error": "warning", "unproven": "warning"}
_WORDS: dict[Outcome, str] = {"fail": "fails", "error": "ends in error", "unproven": "is unproven"}
_ENDS = (EARLY, CELL)
_TAGS: dict[str, Outcome] = {"failure": "fail", "error": "error"}
# As figures.told() has it.
_WORSE = re.compile(r"worse: (.+?) on ([^:]+): .*")
# Of a kernel's tree: a path that a kernel prints shall name no file elsewhere.
_FILE_AND_LINE = re.compile(r"((?:[\w-]+/)+[\w-]+\.[chS]):(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class _Note:
    kind: str
    title: str
    message: str
    site: str = ""

    def line(self) -> str:
        where = _FILE_AND_LINE.fullmatch(self.site)
        properties = {"file": where[1], "line": where[2]} if where else {}
        properties["title"] = self.title
        told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        return f"::{self.kind} {told}::{_data(self.message[:LONGEST])}\n"


@dataclass(frozen=True)
class _Case:
    """A test case that is neither a pass nor a skip."""

    suite: str
    name: str
    outcome: Outcome
    message: str
    text: str
    site: str


def github(document: str) -> str:
    """The commands for whatever of a run is no pass, a line each; "" if there is nothing.

    `document` is what junit() made: nothing else is read of the run, so a CI system that shows that
    document shows the same. A figure that is worse fails nothing, so it is a notice.
    """
    root = ET.fromstring(document)
    cases = list(_cases(root))
    worse = _of_figures(root.findtext(f"testsuite[@name='{FIGURES}']/system-out", ""))
    notes = [*_of_ends(cases), *_of_checks(cases), *worse]
    return "".join(
        note.line()
        for kind in ("error", "warning", "notice")
        for note in _fitting([note for note in notes if note.kind == kind])
    )


def _cases(root: ET.Element) -> Iterator[_Case]:
    for suite in root:
        for case in suite.findall("testcase"):
            for node in case:
                outcome = _outcome(node)
                if outcome is not None:
                    message = node.get("message", "").removeprefix(UNPROVEN)
                    names = suite.get("name", ""), case.get("name", "")
                    yield _Case(*names, outcome, message, node.text or "", _site(case))


def _outcome(node: ET.Element) -> Outcome | None:
    """What a node says of its test case; None for a skip, and for what is no end."""
    if node.tag == "skipped" and node.get("message", "").startswith(UNPROVEN):
        return "unproven"
    return _TAGS.get(node.tag)


def _site(case: ET.Element) -> str:
    found = case.find(f"properties/property[@name='{SITE}']")
    return "" if found is None else found.get("value", "")


def _of_ends(cases: Sequence[_Case]) -> list[_Note]:
    """How the run, and cells, ended outside of their checks."""
    titles = {EARLY: "the run did not come to its end"}
    return [
        _Note(
            _KINDS[case.outcome],
            titles.get(case.name, f"{case.suite} {_WORDS[case.outcome]}"),
            case.message,
            case.site,
        )
        for case in cases
        if case.name in _ENDS
    ]


def _of_checks(cases: Sequence[_Case]) -> list[_Note]:
    found: dict[tuple[str, Outcome, bool], list[_Case]] = {}
    for case in cases:
        if case.name not in _ENDS:
            key = (case.name, case.outcome, case.suite == SERIES)
            found.setdefault(key, []).append(case)
    return [_of_check(name, outcome, alike) for (name, outcome, _), alike in found.items()]


def _of_check(name: str, outcome: Outcome, alike: Sequence[_Case]) -> _Note:
    first = alike[0]
    where = "" if first.suite == SERIES else f" in {', '.join(case.suite for case in alike)}"
    message = f"{first.message}\n{first.text}"
    if len(alike) > 1:
        message = f"in {first.suite}: {message}"
    return _Note(_KINDS[outcome], f"{name} {_WORDS[outcome]}{where}", message, first.site)


def _of_figures(lines: str) -> list[_Note]:
    """What is worse, each metric once with all places where it is."""
    found: dict[str, list[tuple[str, str]]] = {}
    for line in lines.split("\n"):
        if match := _WORSE.fullmatch(line):
            found.setdefault(match[1], []).append((match[2], line))
    return [
        _Note(
            "notice",
            f"{metric} is worse on {', '.join(where for where, _ in alike)}",
            "\n".join(line for _, line in alike),
        )
        for metric, alike in found.items()
    ]


def _fitting(notes: Sequence[_Note]) -> Iterable[_Note]:
    if len(notes) <= MOST:
        return notes
    more = len(notes) - MOST + 1
    last = _Note(notes[0].kind, f"and {more} more", "The report has all of them.")
    return [*notes[: MOST - 1], last]


def _data(text: str) -> str:
    """The text as a command's message."""
    plain = printable(text)
    return plain.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """The text as a property's value."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
