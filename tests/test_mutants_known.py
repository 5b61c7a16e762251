# SPDX-License-Identifier: GPL-2.0-only
"""Bugs that a tested kernel is known for: told from anything else that goes wrong, and counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_mutants_judge import matrix, shown, sound

from harness.mutants import known
from harness.mutants.results import Ran
from harness.mutants.table import Known, load
from harness.observe import klog

ROOT = Path(__file__).parents[1]
# Of an emulated Cortex-A57 in nVHE mode, Linux 6.12.117, debug kernel: two pages in one check.
CONSOLE = (ROOT / "tests" / "data" / "mutants" / "accessed-when-free.console").read_text()
BUGS = load().known
NAME = "accessed-when-free"
FIRST = "BUG: Bad page state in process kvm-guest  pfn:4143d"
WHY = {"test_race_unmap": f"2 splats: {FIRST}", "test_kernel_log": f"1 report: {FIRST}"}


def failed(why: dict[str, str], seed: int = 1) -> Ran:
    return Ran(
        cell="a57-nvhe",
        seed=seed,
        folder="runs/base-debug-seed1/cells/a57-nvhe-base",
        outcome="fail",
        checks={"test_page_idle": "pass", **dict.fromkeys(why, "fail")},
        why=why,
        seconds=10.0,
    )


def explained(text: str = CONSOLE, ran: Ran | None = None) -> dict[str, int]:
    # dmesg(1) repeats what the console has.
    found = klog.splats(text) * 2
    return known.explained(ran or failed(WHY), found, BUGS)


def test_a_failure_by_the_known_bug_alone_is_explained_and_counted() -> None:
    assert explained() == {NAME: 2}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("flags: 0x4(referenced|zone=0)", "flags: 0x40(dirty|zone=0)"),
        ("PAGE_FLAGS_CHECK_AT_PREP flag(s) set", "non-NULL mapping"),
        ("check_new_page+", "free_unref_page+"),
        ("BUG: Bad page state in process", "BUG: KASAN: use-after-free in f+0x1/0x2"),
    ],
)
def test_a_report_that_differs_explains_nothing(before: str, after: str) -> None:
    """Not even if it is the second of two, which have one cause by their functions."""
    at = CONSOLE.rindex(before)
    assert explained(CONSOLE[:at] + CONSOLE[at:].replace(before, after, 1)) == {}


def test_reports_are_those_of_console_and_dmesg_each_by_itself(tmp_path: Path) -> None:
    (tmp_path / "console.log").write_text(CONSOLE)
    (tmp_path / "test_kernel_log").mkdir()
    (tmp_path / "test_kernel_log" / "dmesg-whole.txt").write_text(CONSOLE)
    found = known.reports(tmp_path)
    assert [splat.headline.split("pfn:")[1] for splat in found] == ["4143d", "4924f"] * 2
    assert known.explained(failed(WHY), found, BUGS) == {NAME: 2}
    assert known.reports(tmp_path / "nothing") == ()


def test_what_fails_for_another_reason_is_not_explained() -> None:
    assert explained(ran=failed(WHY | {"test_race_unmap": "7 pages hold other content"})) == {}
    assert explained(ran=failed(WHY | {"test_leaks": "3 pages of tables are left"})) == {}
    assert explained("") == {}
    assert explained(ran=failed({})) == {}


def test_a_death_is_not_explained() -> None:
    assert explained(ran=failed(WHY).model_copy(update={"death": "panic"})) == {}
    assert explained(ran=failed(WHY).model_copy(update={"deaths": {"test_race": "hang"}})) == {}


def test_a_bug_is_that_of_some_kernels_in_some_cells() -> None:
    bug = BUGS[NAME]
    assert known.applies(bug, "6.12.117", debug=True, af="software")
    assert not known.applies(bug, "6.120", debug=True, af="software")
    assert not known.applies(bug, "6.13", debug=True, af="software")
    assert not known.applies(bug, "6.12.117", debug=False, af="software")
    assert not known.applies(bug, "6.12.117", debug=True, af="hardware")


def test_a_control_that_shows_it_is_told_and_is_no_false_alarm() -> None:
    struck = failed(WHY, seed=3).model_copy(update={"known": {NAME: 2}})
    passed = [failed({}, seed).model_copy(update={"outcome": "pass"}) for seed in (1, 2)]
    result = sound(*passed, struck, name="base-debug")
    assert result.found == "known bug"
    assert result.why == f"{NAME} struck 1 of 3 times in a57-nvhe (seed 3), 2 reports"
    report = matrix(result)
    assert report.verdict == "pass"
    told = "0 of 1 kernels with nothing wrong pass, 1 with a known bug of Linux 6.12.117 (docs/"
    assert told in " ".join(shown(report).split())
    assert result.why in " ".join(shown(report).split())


def test_beside_it_a_false_alarm_and_an_error_stay_what_they_are() -> None:
    struck = failed(WHY, seed=3).model_copy(update={"known": {NAME: 2}})
    alarm = sound(struck, failed(WHY, seed=4))
    assert alarm.found == "false alarm"
    assert alarm.why.endswith(f"; {NAME} struck 1 of 2 times in a57-nvhe (seed 3), 2 reports")
    error = sound(struck, failed({}, 4).model_copy(update={"outcome": "error"}))
    assert error.found == "error"
    assert NAME in error.why


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS)
def test_each_known_bug_is_described_as_a_finding(bug: Known) -> None:
    headings = (ROOT / "docs" / "findings.md").read_text().splitlines()
    assert f"## {bug.finding}" in headings
