# SPDX-License-Identifier: GPL-2.0-only
"""A run as workflow commands of GitHub Actions, which become annotations of a commit.

GitHub shows no more than ten errors, ten warnings and ten notices of one step, so a check has one
annotation for all cells where it ended alike, and what does not fit is counted in the last. All
that a run says is escaped: a line of it can become no command of its own, nor another property of
ours.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.printable import printable
from harness.report import figures
from harness.results import SERIES, Check, Figure, Outcome, Summary

MOST = 10
"""Annotations of one kind that GitHub shows for a step."""
LONGEST = 2000
"""Characters of a message: whole texts stand in the report."""
_KINDS: dict[Outcome, str] = {"fail": "error", "error": "warning", "unproven": "warning"}
_WORDS: dict[Outcome, str] = {"fail": "fails", "error": "ends in error", "unproven": "is unproven"}
# Of a kernel's tree: a path that a kernel prints shall name no file elsewhere.
_SITE = re.compile(r"((?:[\w-]+/)+[\w-]+\.[chS]):(\d{1,6})", re.ASCII)


@dataclass(frozen=True)
class _Note:
    kind: str
    title: str
    message: str
    site: str = ""

    def line(self) -> str:
        where = _SITE.fullmatch(self.site)
        properties = {"file": where[1], "line": where[2]} if where else {}
        properties["title"] = self.title
        told = ",".join(f"{name}={_property(value)}" for name, value in properties.items())
        return f"::{self.kind} {told}::{_data(self.message[:LONGEST])}\n"


def github(run: Summary) -> str:
    """The commands for whatever of a run is no pass, a line each; "" if there is nothing.

    A figure that is worse fails nothing, so it is a notice.
    """
    notes = [*_of_run(run), *_of_cells(run), *_of_checks(run.checks), *_of_figures(run.figures)]
    return "".join(
        note.line()
        for kind in ("error", "warning", "notice")
        for note in _fitting([note for note in notes if note.kind == kind])
    )


def _of_run(run: Summary) -> list[_Note]:
    return [_Note("warning", "the run did not come to its end", run.reason)] if run.reason else []


def _of_cells(run: Summary) -> list[_Note]:
    """What ended a cell outside of its checks."""
    return [
        _Note(
            _KINDS[cell.outcome],
            f"{cell.id} {_WORDS[cell.outcome]}",
            cell.reason,
            cell.splats[0].site if cell.splats else "",
        )
        for cell in run.cells
        if cell.reason and cell.outcome in _KINDS
    ]


def _of_checks(checks: Sequence[Check]) -> list[_Note]:
    found: dict[tuple[str, Outcome, bool], list[Check]] = {}
    for check in checks:
        if check.outcome in _KINDS:
            key = (check.name, check.outcome, check.cell == SERIES)
            found.setdefault(key, []).append(check)
    return [_of_check(name, outcome, alike) for (name, outcome, _), alike in found.items()]


def _of_check(name: str, outcome: Outcome, alike: Sequence[Check]) -> _Note:
    first = alike[0]
    cells = ", ".join(check.cell for check in alike)
    where = "" if first.cell == SERIES else f" in {cells}"
    message = f"{first.reason}\nexpected: {first.expected}\nobserved: {first.observed}"
    if len(alike) > 1:
        message = f"in {first.cell}: {message}"
    site = next((splat.site for splat in first.splats if splat.site), "")
    return _Note(_KINDS[outcome], f"{name} {_WORDS[outcome]}{where}", message, site)


def _of_figures(every: Sequence[Figure]) -> list[_Note]:
    """What is worse, each metric once with all places where it is."""
    found: dict[str, list[Figure]] = {}
    for one in every:
        if one.verdict == "worse":
            found.setdefault(one.metric, []).append(one)
    return [
        _Note(
            "notice",
            f"{metric} is worse on {', '.join(one.where for one in alike)}",
            "\n".join(map(figures.told, alike)),
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
