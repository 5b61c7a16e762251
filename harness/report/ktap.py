# SPDX-License-Identifier: GPL-2.0-only
"""A run as KTAP, version 1 (Documentation/dev-tools/ktap.rst): a test for each cell, its checks in
it as subtests.

    pass      ok
    fail      not ok
    error     not ok ... # ERROR why
    unproven  not ok ... # SKIP unproven: why
    skip      ok ... # SKIP why

"ok" without a directive is a pass and "not ok" without one a failure, so no reader takes what is
unproven for either. A run that ended early has a last test that says so. Figures are neither
right nor wrong: they are diagnostic lines after all tests.

What a run says is never structure, also not for tools/testing/kunit/kunit_parser.py, which takes
the diagnostic line "# Subtest: NAME" for the head of a test, "# SKIP" anywhere in a result for a
skip, and what a kernel prints as it stops for the end of all results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.observe.splats import counted
from harness.printable import clip, one_line, plain_name, printable
from harness.report import figures
from harness.report.counts import conclusion, count
from harness.report.matrix import of_series
from harness.results import SERIES, Cell, Check, Outcome, Summary
from harness.selftests.ktap import STEP
from harness.verdict import worst

EARLY = "all cells ran"
MAX_WORDS = 4000
MAX_REASON = 300
# Its KTAP_END; the first space of each becomes "_".
_STOPS = re.compile(
    "(List|Kernel|reboot:) (?=of all partitions:|panic - not syncing: VFS:|System halted)"
)
_DIRECTIVES = {"error": "ERROR", "unproven": "SKIP", "skip": "SKIP"}


@dataclass(frozen=True)
class _Test:
    """One result, what is told of it before, and the tests that it sums up."""

    outcome: Outcome
    name: str
    why: str
    log: Sequence[str] = ()
    subtests: Sequence[_Test] = ()


def ktap(run: Summary) -> str:
    """The whole run."""
    tests = [*_series(of_series(run)), *(_cell(run, cell) for cell in run.cells)]
    if run.reason:
        tests.append(_Test("error", EARLY, run.reason))
    end = [f"figure: {figures.told(one)}" for one in run.figures]
    end.append(f"verdict: {run.verdict}: {conclusion(run)} ({count(run)})")
    text = "\n".join([*_render(tests, ""), *_comments(end, "")]) + "\n"
    return _STOPS.sub(r"\1_", text)


def _series(checks: Sequence[Check]) -> Iterator[_Test]:
    if checks:
        outcomes = {check.outcome for check in checks}
        outcome = "skip" if outcomes == {"skip"} else worst(outcomes)
        yield _Test(outcome, SERIES, "", subtests=[_check(check) for check in checks])


def _cell(run: Summary, cell: Cell) -> _Test:
    log = [f"AF expected: {cell.af_mode}, observed: {cell.af_observed or '-'}"]
    log += [f"build id: {cell.build_id}"] if cell.build_id else []
    if cell.splats:
        log.append(f"kernel log: {counted(len(cell.splats))}, {cell.splat_file}")
        log += [f"{splat.count} times: {splat.title}" for splat in cell.splats]
    log += [f"reason: {cell.reason}"] if cell.reason else []
    checks = [_check(check) for check in run.checks if check.cell == cell.id]
    return _Test(cell.outcome, cell.id, cell.reason, log, checks)


def _check(check: Check) -> _Test:
    """What was expected and observed stands before whatever is neither a pass nor a skip."""
    if check.outcome in ("pass", "skip"):
        return _Test(check.outcome, check.name, check.reason)
    also = " (the base kernel as well)" if check.also_on_base else ""
    log = [f"expected: {check.expected}", f"observed: {check.observed}"]
    log += [f"reason: {check.reason}{also}"] if check.reason or also else []
    log += [f"evidence: {path}" for path in check.evidence]
    return _Test(check.outcome, check.name, check.reason, log)


def _render(tests: Sequence[_Test], indent: str) -> Iterator[str]:
    yield f"{indent}KTAP version 1"
    yield f"{indent}1..{len(tests)}{'' if tests else ' # SKIP nothing ran'}"
    for number, test in enumerate(tests, 1):
        if test.subtests:
            yield from _render(test.subtests, indent + STEP)
        yield from _comments(test.log, indent)
        word = "ok" if test.outcome in ("pass", "skip") else "not ok"
        yield f"{indent}{word} {number} {plain_name(test.name)}{_directive(test)}"


def _directive(test: _Test) -> str:
    if test.outcome not in _DIRECTIVES:
        return ""
    unproven = "unproven: " if test.outcome == "unproven" else ""
    why = clip(one_line(test.why), MAX_REASON).replace("#", "_")
    return f" # {_DIRECTIVES[test.outcome]} {unproven}{why}".rstrip()


def _comments(texts: Sequence[str], indent: str) -> Iterator[str]:
    """Diagnostic lines: none of them is a result, or the head of a subtest.

    The first of each text begins with a word of ours, and "|" stands before the others.
    """
    for text in texts:
        for line in printable(f"# {clip(text, MAX_WORDS)}", "# | ").split("\n"):
            yield f"{indent}{line}".rstrip()
