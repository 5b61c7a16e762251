# SPDX-License-Identifier: GPL-2.0-only
"""From what the checks said of mutants to what that says of the checks: pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.mutants.results import Found, Ran, Result
from harness.mutants.table import Kind
from harness.results import SERIES
from harness.verdict import Verdict

GOOD: frozenset[Found] = frozenset({"caught", "pass"})


def failed(ran: Ran) -> tuple[str, ...]:
    """The checks that failed in a cell; "boot" where it failed before or between them."""
    names = tuple(name for name, outcome in ran.checks.items() if outcome == "fail")
    return names or (("boot",) if ran.outcome == "fail" else ())


def judge_break(result: Result) -> tuple[Found, str]:
    """A break is caught if the check that names it failed in each cell and with each seed.

    And for its own reason: not as it fails on the kernel that the break goes on, and not by a
    death, which a slow machine can look like, unless the break is known for it. What was not
    caught because a cell could not be run is no miss, and no catch either.
    """
    check = result.check or ""
    if not result.ran:
        return "error", "it was not run in any cell"
    good = [ran for ran in result.ran if _is_catch(result, ran)]
    rest = [ran for ran in result.ran if not _is_catch(result, ran)]
    broken = [ran for ran in rest if ran.checks.get(check, ran.outcome) == "error"]
    unseen = [ran for ran in rest if ran not in broken and not failed(ran)]
    if unseen:
        seen = f" (but in {_where(good)})" if good else ""
        said = {ran.checks.get(check, "did not run") for ran in unseen}
        return "missed", f"{check}: {', '.join(sorted(said))} in {_where(unseen)}{seen}"
    if broken:
        return "error", f"{_where(broken)}: {broken[0].reason or 'an error'}"
    doubts = [ran for ran in rest if check in failed(ran)]
    if doubts:
        return _doubt(result, doubts)
    if rest:
        others = dict.fromkeys(name for ran in rest for name in failed(ran))
        return "caught elsewhere", f"by {', '.join(others)} in {_where(rest)}"
    return "caught", ""


def _is_catch(result: Result, ran: Ran) -> bool:
    check = result.check or ""
    # After such a death nobody is left to read the kernel's log.
    if result.during and ran.deaths.get(result.during) in result.deaths:
        return True
    return (
        check in failed(ran)
        and check not in ran.control
        and ran.deaths.get(check) in (None, *result.deaths)
        and (result.says or "") in ran.why.get(check, "")
    )


def _doubt(result: Result, runs: Sequence[Ran]) -> tuple[Found, str]:
    """The check failed, but not, or not for certain, because of the break."""
    check, ran = result.check or "", runs[0]
    if check in ran.control:
        return "error", f"{check} fails without the break as well, in {_where(runs)}"
    if ran.deaths.get(check) not in (None, *result.deaths):
        return (
            "error",
            f"{check}: {ran.deaths[check]}, which a slow machine can be, in {_where(runs)}",
        )
    said = f"{ran.why.get(check, '')[:200]!r} for {result.says!r}"
    return "caught elsewhere", f"{check} said {said} in {_where(runs)}"


def judge_sound(runs: Sequence[Ran]) -> tuple[Found, str]:
    """A kernel with nothing wrong in it passes every cell; a failure is a false alarm.

    But for one by a bug that the kernel is known for, which is told with how often it struck. What
    is checked of a series without a cell says nothing of it.
    """
    if all(ran.cell == SERIES for ran in runs):
        return "error", "it was not run in any cell"
    known = strikes(runs)
    alarms = [ran for ran in runs if ran.outcome == "fail" and not ran.known]
    if alarms:
        names = dict.fromkeys(name for ran in alarms for name in failed(ran))
        return "false alarm", "; ".join([f"{', '.join(names)} in {_where(alarms)}", *known])
    rest = [ran for ran in runs if ran.outcome not in ("pass", "skip") and not ran.known]
    if rest:
        words = f"{rest[0].outcome} in {_where(rest)}: {rest[0].reason}".rstrip(": ")
        return "error", "; ".join([words, *known])
    return ("known bug", "; ".join(known)) if known else ("pass", "")


def strikes(runs: Sequence[Ran]) -> tuple[str, ...]:
    """Of each bug that the kernel is known for, how often it made a cell fail, in words."""
    words = []
    for name in dict.fromkeys(name for ran in runs for name in ran.known):
        struck = [ran for ran in runs if name in ran.known]
        cells = {ran.cell for ran in struck}
        times = sum(ran.cell in cells for ran in runs)
        reports = sum(ran.known[name] for ran in struck)
        words.append(
            f"{name} struck {len(struck)} of {times} times in {_where(struck)}, "
            f"{reports} report{'s' if reports != 1 else ''}"
        )
    return tuple(words)


def judge(result: Result) -> Result:
    """A result with what was found, if it is of a kind that is run."""
    if not _is_run(result.kind):
        return result
    if result.kind == "break":
        found, why = judge_break(result)
    else:
        found, why = judge_sound(result.ran)
    return result.model_copy(update={"found": found, "why": why})


def verdict(results: Iterable[Result]) -> Verdict:
    """fail for a miss or a false alarm, else error where something could not be run, else pass.

    A bug that a control is known for does not make it fail: the tally tells of it.
    """
    found = {result.found for result in results if result.found is not None}
    if found & {"missed", "caught elsewhere", "false alarm"}:
        return "fail"
    return "pass" if found and found <= GOOD | {"known bug"} else "error"


def _is_run(kind: Kind | str) -> bool:
    return kind not in ("equivalent", "cost")


def _where(runs: Sequence[Ran]) -> str:
    seeds: dict[str, list[int]] = {}
    for ran in runs:
        seeds.setdefault(ran.cell, []).append(ran.seed)
    return ", ".join(
        f"{cell} (seed{'s' if len(some) > 1 else ''} {', '.join(map(str, some))})"
        for cell, some in seeds.items()
    )
