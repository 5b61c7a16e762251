# SPDX-License-Identifier: GPL-2.0-only
"""JUnit XML of a run, for CI systems: a test suite for each cell, a test case for each check.

fail is <failure>, error is <error>, skip and unproven are <skipped>; so that unproven is never
taken for a pass, its message begins with that word. A run that ended early, and what ended a cell
but for its checks, are test cases as well: without them it would look as if nothing was wrong. So a
suite's totals are those of its checks and, where a cell ended so, one more. Annotations
(annotations.py) are made from this document alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from harness.observe.splats import counted
from harness.printable import UNSEEN, clip
from harness.report import figures
from harness.report.counts import count
from harness.results import SERIES, Cell, Check, Splat, Summary

# XML 1.0 has no way to write other control characters, and a log may hold any. Those of C1 and what
# nobody sees it can write, but a terminal and a viewer would obey them.
_NOT_XML = re.compile(f"[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[{UNSEEN}]")
EARLY = "all cells ran"
MAX_WORDS = 16 << 10
"""Characters of any one text of a summary."""
CELL = "cell"
FIGURES = "figures"
UNPROVEN = "unproven: "
SITE = "site"
"""A property of a test case: file and line of what the kernel reported, where it says them."""
_TAGS = {"fail": "failure", "error": "error", "skip": "skipped", "unproven": "skipped"}


def junit(run: Summary) -> str:
    """The run as an XML document."""
    root = ET.Element("testsuites", name="kvm-harness", time=f"{run.seconds:.3f}")
    if run.reason:
        early = ET.SubElement(root, "testsuite", name="run", time=f"{run.seconds:.3f}")
        early.append(_case("run", EARLY, "error", run.reason, 0.0, ""))
        _count(early, ["error"])
    own = [check for check in run.checks if check.cell == SERIES]
    if own:
        root.append(_suite(SERIES, sum(check.seconds for check in own), own))
    for cell in run.cells:
        checks = [check for check in run.checks if check.cell == cell.id]
        suite = _suite(cell.id, cell.seconds, checks, cell)
        if cell.splats:
            ET.SubElement(suite, "system-out").text = _clean(_reports(cell))
        root.append(suite)
    if run.figures:
        root.append(_figures(run))
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _figures(run: Summary) -> ET.Element:
    """A suite without a case: how many figures have which verdict, and each of them in a line.

    A figure that is worse is no failure, and as a case without a tag it would be a success.
    """
    suite = ET.Element("testsuite", name=FIGURES, time="0.000")
    _count(suite, [])
    properties = ET.SubElement(suite, "properties")
    for verdict, number in count(run).figures.items():
        ET.SubElement(properties, "property", name=verdict, value=str(number))
    lines = (figures.told(one) for one in figures.foremost(run.figures, len(run.figures)))
    ET.SubElement(suite, "system-out").text = _clean("\n".join(lines))
    return suite


def _suite(
    name: str, seconds: float, checks: Sequence[Check], cell: Cell | None = None
) -> ET.Element:
    """A suite of checks, and of how their cell itself ended if that is to be told."""
    suite = ET.Element("testsuite", name=_clean(name), time=f"{seconds:.3f}")
    outcomes: list[str] = []
    if cell is not None and cell.reason:
        outcomes.append(cell.outcome)
        suite.append(_case(name, CELL, cell.outcome, cell.reason, 0.0, "", cell.splats))
    for check in checks:
        outcomes.append(check.outcome)
        text = "\n".join(
            [
                f"expected: {clip(check.expected, MAX_WORDS)}",
                f"observed: {clip(check.observed, MAX_WORDS)}",
                *(f"evidence: {path}" for path in check.evidence),
            ]
        )
        message = check.reason + (" (the base kernel as well)" if check.also_on_base else "")
        suite.append(
            _case(name, check.name, check.outcome, message, check.seconds, text, check.splats)
        )
    _count(suite, outcomes)
    return suite


def _reports(cell: Cell) -> str:
    """What the kernel reported in a cell."""
    lines = [f"kernel log: {counted(len(cell.splats))}"]
    for splat in cell.splats:
        base = " (the base kernel as well)" if splat.on_base else ""
        title = clip(splat.title, MAX_WORDS)
        lines += [f"{splat.count} times: {title}{base}", *(f"  {at}" for at in splat.where)]
    return "\n".join([*lines, *([f"evidence: {cell.splat_file}"] if cell.splat_file else [])])


def _count(suite: ET.Element, outcomes: Sequence[str]) -> None:
    suite.set("tests", str(len(outcomes)))
    suite.set("failures", str(outcomes.count("fail")))
    suite.set("errors", str(outcomes.count("error")))
    suite.set("skipped", str(outcomes.count("skip") + outcomes.count("unproven")))


def _case(
    cell: str,
    name: str,
    outcome: str,
    message: str,
    seconds: float,
    text: str,
    splats: Sequence[Splat] = (),
) -> ET.Element:
    case = ET.Element("testcase", classname=_clean(cell), name=_clean(name), time=f"{seconds:.3f}")
    if site := next((splat.site for splat in splats if splat.site), ""):
        properties = ET.SubElement(case, "properties")
        ET.SubElement(properties, "property", name=SITE, value=_clean(site))
    if outcome in _TAGS:
        words = clip(f"{UNPROVEN}{message}" if outcome == "unproven" else message, MAX_WORDS)
        node = ET.SubElement(case, _TAGS[outcome], message=_clean(words))
        node.text = _clean(text)
    elif text:
        ET.SubElement(case, "system-out").text = _clean(text)
    return case


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
