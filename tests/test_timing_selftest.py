# SPDX-License-Identifier: GPL-2.0-only
"""Whose access_tracking_perf_test is timed on which kernel, and what becomes of how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import prepare, selection
from harness.checks.claim import Claim
from harness.observe.errors import ObserveError
from harness.observe.unproven import Unproven
from harness.progress import Progress
from harness.selftests import build, getopt
from harness.selftests.build import Selftests
from harness.selftests.judge import Ended
from harness.timing import CHECKS
from harness.timing import test_timing as module
from harness.timing.tracking import FAULTS, ITS_OWN, MGLRU, WAYS, Way, chosen
from harness.timing.values import PASSES, SELFTEST

IDLE = """\
Mark memory idle              : 0.031000001s
Writing to idle memory        : 1.500000000s
Mark memory idle              : 0.020000002s
Reading from idle memory      : 0.000000007s
"""
WHILE_FAULTING = """\
vcpu wall time                : 3.000000005s
lru_gen avg pass duration     : 0.300000007s, (passes:11, total:3.300000080s)
"""

OLD = frozenset({"h", "m:", "b:", "v:", "o", "s:"})
NEW = OLD | {"l", "r:", "p"}


def of(tree: str, options: frozenset[str], *, broken: bool = False) -> Selftests:
    return Selftests(
        tree=tree,
        programs={} if broken else {SELFTEST: Path(tree)},
        broken={SELFTEST: "x.c:1: no"} if broken else {},
        options={SELFTEST: options},
    )


def test_the_base_trees_program_unless_only_the_series_has_the_options() -> None:
    base, series = of("base", OLD), of("series", NEW)
    assert chosen(ITS_OWN, (base, series)) == base
    assert chosen(MGLRU, (base, series)) == series
    assert chosen(FAULTS, (base, series)) == series
    assert chosen(FAULTS, (of("base", NEW), series)).tree == "base"  # type: ignore[union-attr]
    assert chosen(MGLRU, (base,)) is None
    # A flag of the same letter that has an argument is another option.
    assert chosen(MGLRU, (of("base", OLD | {"l:", "r"}),)) is None


def test_both_kernels_get_both_trees_programs_to_be_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    trees: Any = {name: type("Tree", (), {"touched": ("tools/x",)})() for name in ("base", "own")}
    made = {tree: of(name, OLD) for name, tree in trees.items()}
    monkeypatch.setattr(build, "build", lambda tree, deadline: made[tree])

    def names(*, timed: bool) -> dict[str, list[str]]:
        found = prepare.selftests(
            trees["base"], trees["own"], Progress(Console(quiet=True)), timed=timed
        )
        return {label: [one.tree for one in built] for label, built in found.items()}

    assert names(timed=True) == {"base": ["base", "own"], "patched": ["base", "own"]}
    assert names(timed=False) == {"base": ["base"], "patched": ["base", "own"]}


SKIPPED = Ended("1..0 # SKIP - lru_gen does not support SECONDARY_MMU_WALK\n", 4, 0.1)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a way with these trees' programs, which all end alike; claim and passes are returned."""

    def do(way: Way, ended: Ended, built: Sequence[Selftests]) -> tuple[Claim, dict[str, Any]]:
        ran = []

        def execute(shell: object, test: Any, program: Path, slowdown: float) -> Any:
            ran.append(program)
            return ended, ""

        monkeypatch.setattr(module, "execute", execute)
        monkeypatch.setattr(module, "lacks", lambda shell, test: "")
        shell: Any = type("Shell", (), {"run": lambda *_: type("Said", (), {"stdout": "2\n"})})()
        cell: Any = type("Cell", (), {"selftests": built, "slowdown": 1.0})()
        claim = Claim(tmp_path / "evidence", "")
        kept: dict[str, Any] = {}
        module._selftest(way, shell, claim, cell, lambda **passes: kept.update(passes))
        assert len(ran) == PASSES + 1
        assert {str(one) for one in ran} <= {one.tree for one in built}
        return claim, kept

    return do


def test_the_record_says_whose_program_ran_and_how(run: Any) -> None:
    both = (of("base", OLD), of("series", NEW))
    claim, kept = run(FAULTS, Ended(WHILE_FAULTING, 0, 1.0), both)
    assert claim.observed == "that of series ran with -b 16M -v 2 -l -r /sys/fs/cgroup -p"
    assert kept["time_selftest_faults_pass"] == [300_000_007] * (PASSES + 1)
    claim, kept = run(ITS_OWN, Ended(IDLE, 0, 1.0), both)
    assert claim.observed == "that of base ran with -b 16M -v 2"
    assert set(kept) == {one.metric for one in ITS_OWN.printed}


def test_a_kernel_that_the_program_refuses_is_skipped(run: Any) -> None:
    with pytest.raises(pytest.skip.Exception, match="does not support SECONDARY_MMU_WALK"):
        run(MGLRU, SKIPPED, (of("series", NEW),))
    with pytest.raises(Unproven, match="SKIP"):
        run(ITS_OWN, SKIPPED, (of("base", OLD),))


def test_no_tree_has_the_options(run: Any) -> None:
    with pytest.raises(pytest.skip.Exception, match="take -l -r"):
        run(MGLRU, Ended("", 0, 1.0), (of("base", OLD),))


def test_what_says_no_time_is_an_error(run: Any) -> None:
    text = WHILE_FAULTING.replace("passes:11", "passes:0")
    with pytest.raises(ObserveError, match=r"not a time: .*passes:0"):
        run(FAULTS, Ended(text, 0, 1.0), (of("base", NEW),))


def test_what_does_not_compile_or_fails_is_unproven(run: Any) -> None:
    with pytest.raises(Unproven, match=r"x\.c:1: no"):
        run(MGLRU, Ended("", 0, 1.0), (of("base", OLD), of("series", NEW, broken=True)))
    with pytest.raises(Unproven, match="exit status 254"):
        run(MGLRU, Ended("", 254, 1.0), (of("series", NEW),))


# ---- what the integration test is made of -----------------------------------------------------

TESTS = Path(__file__).parent


def test_the_emulated_host_makes_every_check() -> None:
    few = selection.checks(paths=(TESTS / "time_few_passes.py",))
    assert few == selection.checks(paths=(CHECKS,))


def test_a_series_gives_the_emulated_host_all_options() -> None:
    patch = (TESTS / "data/timing/selftest-mglru.patch").read_text()
    added = "\n".join(line[1:] for line in patch.splitlines() if line.startswith("+"))
    known = getopt.options(added)
    assert all(way.options <= known for way in WAYS)
    assert all(
        one.words in added for one in (*MGLRU.printed, *FAULTS.printed) if "idle" not in one.words
    )
