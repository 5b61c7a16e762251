# SPDX-License-Identifier: GPL-2.0-only
"""From what checks said of mutants to what that says of the checks, and the matrix as text."""

from __future__ import annotations

from functools import partial

import pytest
from rich.console import Console

from harness.errors import Death
from harness.mutants import judge
from harness.mutants.report import cost, mark, markdown, tally, text_report
from harness.mutants.results import NAMED, NAMED_IN_PARTS, Build, Found, Matrix, Ran, Result
from harness.results import Outcome
from harness.verdict import worst


def ran(
    cell: str = "n1-vhe",
    seed: int = 1,
    outcome: Outcome | None = None,
    reason: str = "",
    why: str = "",
    death: Death | None = None,
    control: tuple[str, ...] = (),
    **checks: Outcome,
) -> Ran:
    named = {f"test_{name}": found for name, found in checks.items()}
    return Ran(
        cell=cell,
        seed=seed,
        folder=f"runs/x-seed{seed}/cells/{cell}-patched",
        outcome=outcome or worst(checks.values()),
        reason=reason,
        checks=named,
        why={name: why for name, found in named.items() if found == "fail"},
        deaths={"test_a": death} if death else {},
        control=control,
        seconds=10.0,
    )


def a_break(
    *runs: Ran,
    name: str = "wrong",
    says: str | None = None,
    deaths: tuple[Death, ...] = (),
    check: str = "test_a",
    during: str | None = None,
) -> Result:
    result = Result(
        name=name,
        kind="break",
        breaks="all",
        claim=1,
        check=check,
        during=during,
        says=says,
        deaths=deaths,
        build=Build(build_id="ab", seconds=20.0, cached=False),
        ran=runs,
    )
    return judge.judge(result)


def sound(*runs: Ran, name: str = "base") -> Result:
    result = Result(name=name, kind="control", breaks="nothing", ran=runs)
    return judge.judge(result)


def matrix(*results: Result) -> Matrix:
    return Matrix(
        schema=1,
        harness="0",
        verdict=judge.verdict(results),
        reason="",
        source="Debian",
        version="6.12.117",
        seeds=(1, 2),
        started="",
        seconds=60.0,
        jobs=2,
        notes=("hosts are emulated",),
        results=results,
    )


def shown(report: Matrix, width: int = 200) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(text_report(report))
    return capture.get()


# ---- breaks ---------------------------------------------------------------------------------


def test_caught_where_the_named_check_fails_in_each_cell_and_seed() -> None:
    result = a_break(ran(a="fail", b="fail"), ran("a57-nvhe", 2, a="fail", b="pass"))
    assert (result.found, result.why) == ("caught", "")


def test_missed_where_nothing_fails_in_one_of_them() -> None:
    result = a_break(ran(a="fail"), ran(seed=2, a="pass"))
    assert result.found == "missed"
    assert "test_a: pass in n1-vhe (seed 2) (but in n1-vhe (seed 1))" in result.why


def test_unproven_is_no_catch() -> None:
    assert a_break(ran(a="unproven", b="pass")).found == "missed"


def test_another_check_is_not_the_named_one() -> None:
    result = a_break(ran(a="pass", b="fail"))
    assert result.found == "caught elsewhere"
    assert "test_b" in result.why


def test_missed_outranks_caught_elsewhere() -> None:
    assert a_break(ran(a="pass", b="fail"), ran(seed=2, a="pass")).found == "missed"


def test_host_that_did_not_boot_is_neither_miss_nor_catch() -> None:
    result = a_break(ran(a="fail"), ran("a57-nvhe", outcome="error", reason="no space left"))
    assert result.found == "error"
    assert "no space left" in result.why


def test_error_elsewhere_hides_no_miss() -> None:
    result = a_break(ran(a="pass", b="error"))
    assert (result.found, result.why) == ("missed", "test_a: pass in n1-vhe (seed 1)")
    lost = ran("a57-nvhe", outcome="error", reason="no space left")
    assert a_break(ran(a="pass"), lost).found == "missed"


def test_check_that_could_not_say_is_neither_miss_nor_catch() -> None:
    assert a_break(ran(a="error", b="pass")).found == "error"


def test_death_is_a_catch_only_where_the_break_is_known_for_it() -> None:
    hang = ran(a="fail", death="hang")
    result = a_break(hang)
    assert (result.found, "hang, which a slow machine" in result.why) == ("error", True)
    assert a_break(hang, deaths=("livelock",)).found == "error"
    assert a_break(hang, deaths=("livelock", "hang")).found == "caught"
    assert a_break(ran(a="fail"), deaths=("livelock",)).found == "caught"


def test_death_in_whose_course_the_kernel_complains_leaves_nobody_to_read_its_log() -> None:
    hang = ran(a="fail", death="hang")
    read = ran(a="pass", log="fail", why="BUG: sleeping")
    told = partial(a_break, hang, read, check="test_log", during="test_a", says="sleeping")
    assert told(deaths=("hang",)).found == "caught"
    assert told(deaths=("livelock",)).found == "caught elsewhere"
    assert a_break(hang, check="test_log", deaths=("hang",)).found == "caught elsewhere"


def test_failure_without_the_break_as_well_is_no_catch() -> None:
    result = a_break(ran(a="fail", control=("test_a",)))
    assert (result.found, "without the break" in result.why) == ("error", True)
    assert a_break(ran(a="fail", control=("test_b",))).found == "caught"


def test_failure_for_another_reason_is_another_catch() -> None:
    stall = ran(a="fail", why="1 splats: rcu: INFO: rcu_preempt self-detected stall")
    assert a_break(stall, says="KASAN").found == "caught elsewhere"
    assert a_break(stall, says="stall").found == "caught"


def test_nothing_run_is_an_error() -> None:
    assert a_break().found == "error"


def test_death_between_checks_is_a_failure_of_the_boot() -> None:
    death = ran(outcome="fail", reason="panic")
    assert judge.failed(death) == ("boot",)
    assert a_break(death).found == "caught elsewhere"


# ---- nothing wrong --------------------------------------------------------------------------


def test_sound_kernel_passes_with_skips() -> None:
    assert sound(ran(a="pass", b="skip"), ran(seed=2, a="pass")).found == "pass"


def test_what_is_checked_without_a_cell_makes_no_kernel_sound() -> None:
    result = sound(ran("series", a="pass"))
    assert (result.found, result.why) == ("error", "it was not run in any cell")
    assert sound(ran("series", outcome="skip", a="skip"), ran(a="pass")).found == "pass"


def test_failure_of_a_sound_kernel_is_a_false_alarm() -> None:
    result = sound(ran(a="pass"), ran("n1-nvhe", 3, a="pass", b="fail"))
    assert result.found == "false alarm"
    assert result.why == "test_b in n1-nvhe (seed 3)"


def test_unproven_on_a_sound_kernel_is_an_error_and_no_alarm() -> None:
    assert sound(ran(a="unproven")).found == "error"
    assert sound(ran(outcome="error", reason="no host")).found == "error"


def test_neutral_mutant_is_judged_as_sound() -> None:
    result = Result(name="n", kind="neutral", breaks="a comment", ran=(ran(a="fail"),))
    assert judge.judge(result).found == "false alarm"


def test_listed_ones_are_not_judged() -> None:
    result = Result(name="n", kind="equivalent", breaks="x", shown_by="hardware")
    assert judge.judge(result).found is None


def test_verdict_over_all() -> None:
    def of(*found: Found) -> str:
        return judge.verdict(
            Result(name=str(n), kind="break", breaks="x", found=one) for n, one in enumerate(found)
        )

    assert of("caught", "pass") == "pass"
    assert of("caught", "missed", "error") == "fail"
    assert of("caught elsewhere") == "fail"
    assert of("pass", "false alarm") == "fail"
    assert of("caught", "error") == "error"
    assert of() == "error"


# ---- reports --------------------------------------------------------------------------------

CAUGHT = a_break(ran(a="fail", b="fail", c="pass"), ran(seed=2, a="fail", b="pass", c="skip"))
MISSED = a_break(ran(a="pass", b="pass", c="unproven"), name="sly")
BASE = sound(ran(a="pass", b="pass", c="skip"))


def test_marks() -> None:
    assert [mark(CAUGHT, f"test_{name}") for name in "abc"] == ["X", "x", "ok"]
    assert [mark(MISSED, f"test_{name}") for name in "abc"] == ["MISS", "ok", "?"]
    assert [mark(BASE, f"test_{name}") for name in "abc"] == ["ok", "ok", "-"]
    half = a_break(ran(a="fail"), ran(seed=2, a="pass"))
    assert mark(half, "test_a") == "MISS"
    lost = a_break(ran(a="error", outcome="error"))
    assert mark(lost, "test_a") == "E"


def test_matrix_as_text() -> None:
    text = shown(matrix(BASE, CAUGHT, MISSED))
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line}
    assert rows["wrong"] == ["wrong", "n1-vhe", "X", "x", "ok", "20", "20", "caught"]
    assert rows["sly"] == ["sly", "n1-vhe", "MISS", "ok", "?", "20", "10", "missed"]
    assert rows["base"] == ["base", "n1-vhe", "ok", "ok", "-", "10", "pass"]
    assert "missed  sly: test_a: pass in n1-vhe (seed 1)" in text
    assert "evidence: runs/x-seed1/cells/n1-vhe-patched" in text
    assert (
        "verdict: fail: 1 of 2 mutants caught by the check named, 1 of them not tried with each "
        "seed, 1 missed"
    ) in text
    assert "1 of 1 kernels with nothing wrong pass, 0 false alarms" in text


@pytest.mark.parametrize("width", [80, 120])
def test_matrix_of_more_checks_than_a_line_holds_names_them(width: int) -> None:
    """With columns for them, what was found of a mutant and its marks would be cut off."""
    others: dict[str, Outcome] = {f"number_{number:03}": "pass" for number in range(122)}

    def among(one: Ran) -> Ran:
        return one.model_copy(update={"checks": one.checks | others})

    report = matrix(
        sound(among(ran(a="pass", b="pass", c="skip")), name="base"),
        a_break(among(ran(a="fail", b="fail", c="error")), name="wrong"),
        a_break(among(ran(a="pass", b="skip", c="unproven")), name="sly"),
    )
    lines = shown(report, width).splitlines()
    assert max(map(len, lines)) <= width
    rows = {line.split()[1]: " ".join(line.split()) for line in lines if len(line.split()) > 1}
    assert rows["base"] == "pass base n1-vhe 124 passed, 1 skipped 10"
    assert rows["wrong"] == "caught wrong n1-vhe X test_a, x test_b, E test_c, 122 passed 20 10"
    assert rows["sly"] == "missed sly n1-vhe MISS test_a, ? test_c, 1 skipped, 122 passed 20 10"


def test_cost_tells_builds_of_this_run_from_those_that_were_in_the_cache() -> None:
    assert BASE.build is None
    cached = Build(build_id="cd", seconds=700.0, cached=True)
    report = matrix(BASE.model_copy(update={"build": cached}), CAUGHT)
    fresh = "cost: 60 s for 3 cells of 30 s, 2 at a time, and 1 builds of 20 s"
    assert cost(report) == f"{fresh}; 1 more were in the cache, and took 700 s once"
    assert cost(matrix(BASE, CAUGHT)) == fresh


def test_what_ended_early_says_so() -> None:
    report = matrix(CAUGHT).model_copy(update={"reason": "interrupted"})
    assert tally(report) == "interrupted"


def test_markdown_says_which_checks_ran() -> None:
    whole = matrix(BASE, CAUGHT)
    assert "All checks run on each of them" in markdown(whole, {})
    for note, words in ((NAMED, "ran **only the check"), (NAMED_IN_PARTS, "In parts of what")):
        text = markdown(whole.model_copy(update={"notes": (note,)}), {})
        assert words in text
        assert "All checks" not in text


def test_markdown_lists_all_of_them() -> None:
    listed = Result(
        name="slow", kind="cost", breaks="walks | twice", claim=1, shown_by="instructions"
    )
    text = markdown(matrix(BASE, CAUGHT, MISSED, listed), {1: "exactness", 2: "silence"})
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [
        "| `wrong` | all | base | 1 | n1-vhe | `test_a` | caught | `test_b` | 20 | 20 |",
        "| `sly` | all | base | 1 | n1-vhe | `test_a` | **missed**: "
        "test_a: pass in n1-vhe (seed 1) |  | 20 | 10 |",
        "| `base` | nothing | base | n1-vhe | pass | 1 | 1 | 3 |  | 10 |",
        "| `slow` | walks / twice | base | 1 | instructions |",
    ]
    assert "| 1 | exactness | `wrong`, `sly`, `slow` |" in text
    assert "| 2 | silence | none |" in text
    assert "They cannot show TLB residency" in text
    assert "Linux 6.12.117 (Debian), seeds 1, 2. **fail**: 1 of 2 mutants" in text
