# SPDX-License-Identifier: GPL-2.0-only
"""The check around a selftest: which builds of it run where, and what becomes of how they end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import selection
from harness.checks.claim import Claim
from harness.checks.plugin import check_paths
from harness.errors import Hung
from harness.observe.unproven import Unproven
from harness.selftests import test_selftests as module
from harness.selftests.build import Selftests
from harness.selftests.execute import ModeMissing, Stuck
from harness.selftests.faults import Faults
from harness.selftests.judge import Ended
from harness.selftests.table import SELFTESTS

DATA = Path(__file__).parent / "data/selftests"
TEST = next(test for test in SELFTESTS if test.name == "dirty_log_test")
WORKED = Ended("Total bits checked: dirty (1)\n", 0, 1.0)
FAILED = Ended("", 1, 1.0)


def built(*names: str, broken: dict[str, str] | None = None, tree: str = "Linux 6.12") -> Selftests:
    programs = {name: Path(tree) / name for name in names}
    return Selftests(tree=tree, programs=programs, broken=broken or {})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the check with these builds; what a program ends with is by its tree."""

    def do(ends: dict[str, Any], *builds: Selftests, test: Any = TEST, lacks: str = "") -> Claim:
        def execute(shell: object, test: object, program: Path, slowdown: float) -> Any:
            end = ends[str(program.parent)]
            if isinstance(end, Exception):
                raise end
            return end, ""

        monkeypatch.setattr(module, "execute", execute)
        monkeypatch.setattr(module, "lacks", lambda shell, test: lacks)
        what = type("What", (), {"af_mode": "hardware"})()
        given = {"selftests": builds, "slowdown": 1.0, "emulated": True, "cell": what}
        cell: Any = type("Cell", (), given)()
        shell: Any = None
        claim = Claim(tmp_path / "evidence", "")
        module.test_selftest(test, shell, claim, cell)
        return claim

    return do


def test_the_base_trees_runs_and_leaves_ktap(run: Any, tmp_path: Path) -> None:
    claim = run({"Linux 6.12": WORKED}, built("dirty_log_test"))
    assert claim.observed == "dirty_log_test: ok 1.0 s"
    assert (tmp_path / "evidence/ktap.txt").read_text().startswith("KTAP version 1\n1..1\n")


def test_a_failure_is_a_failure_and_a_hang_a_hang(run: Any) -> None:
    with pytest.raises(AssertionError, match="exit status 1"):
        run({"Linux 6.12": FAILED}, built("dirty_log_test"))
    with pytest.raises(Hung, match="did not end in time: dirty_log_test: 300 seconds"):
        run({"Linux 6.12": Ended("", None, 60.0)}, built("dirty_log_test"))


def test_what_the_emulator_makes_fail_is_not_expected(run: Any) -> None:
    test = next(test for test in SELFTESTS if test.emulated)
    output = (DATA / "page_fault.txt").read_text()
    claim = run({"Linux 6.12": Ended(output, 254, 6.0)}, built(test.name), test=test)
    assert "passes but for ro_memslot_no_syndrome_guest_cas" in claim.expected
    assert "62 parts passed, not ro_memslot_no_syndrome_guest_cas" in claim.observed
    whole = run({"Linux 6.12": Ended("Done.\n", 0, 6.0)}, built(test.name), test=test)
    assert "but for" not in whole.expected


def test_its_access_faults_are_judged_when_it_has_passed(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def counted(shell: object, test: object, claim: object, seen: list[Faults]) -> Iterator[None]:
        yield
        seen.append(Faults(5, 10))

    monkeypatch.setattr(module, "counted", counted)
    with pytest.raises(AssertionError, match="hardware must set AF, but its guest took 5 access"):
        run({"Linux 6.12": WORKED}, built("dirty_log_test"))
    with pytest.raises(AssertionError, match="exit status 1"):
        run({"Linux 6.12": FAILED}, built("dirty_log_test"))


def test_threads_of_what_cannot_be_killed_are_evidence(run: Any, tmp_path: Path) -> None:
    with pytest.raises(Stuck):
        run({"Linux 6.12": Stuck("cannot be killed", "== 5 a_test D\n")}, built("dirty_log_test"))
    assert (tmp_path / "evidence/threads.txt").read_text() == "== 5 a_test D\n"


def test_those_of_the_series_run_as_well(run: Any) -> None:
    both = (built("dirty_log_test"), built("dirty_log_test", tree="patched"))
    assert "of the series: ok" in run({"Linux 6.12": WORKED, "patched": WORKED}, *both).observed
    with pytest.raises(AssertionError, match="dirty_log_test of the series: exit status 1"):
        run({"Linux 6.12": WORKED, "patched": FAILED}, *both)
    with pytest.raises(AssertionError, match=r"^dirty_log_test: exit status 1"):
        run({"Linux 6.12": FAILED, "patched": WORKED}, *both)
    # One that the series brings.
    claim = run({"patched": WORKED}, built(), built("dirty_log_test", tree="patched"))
    assert "SKIP" in claim.observed


def test_one_that_no_longer_compiles_is_the_series_fault_alone(run: Any) -> None:
    broken = built(broken={"dirty_log_test": "x.c:1: no"}, tree="patched")
    with pytest.raises(AssertionError, match="of the series: does not compile"):
        run({"Linux 6.12": WORKED}, built("dirty_log_test"), broken)
    base = built(broken={"dirty_log_test": "x.c:1: no"})
    with pytest.raises(Unproven, match="does not compile"):
        run({}, base)
    with pytest.raises(Unproven, match="does not compile"):
        run({}, base, broken)


def test_what_cannot_run_here_is_skipped_with_the_reason(run: Any) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"Linux 6\.12 has no dirty_log_test for arm64"):
        run({}, built())
    with pytest.raises(pytest.skip.Exception, match="the host has no userfaultfd"):
        run({}, built("dirty_log_test"), lacks="the host has no userfaultfd")
    with pytest.raises(pytest.skip.Exception, match="the host has no guests"):
        run({"Linux 6.12": ModeMissing("the host has no guests")}, built("dirty_log_test"))
    with pytest.raises(Unproven, match="no selftests were built"):
        run({})


def test_the_older_name_of_a_test_will_do(run: Any) -> None:
    stress = next(test for test in SELFTESTS if test.before)
    times = "run1 = 3.0s, reset = 0.1s, run2 =  3.0s\n"
    claim = run({"Linux 6.12": Ended(times, 0, 1.0)}, built(stress.before), test=stress)
    assert claim.observed == f"{stress.name}: ok 1.0 s"


def test_they_are_selected_only_when_asked_for() -> None:
    usual, more = check_paths(()), check_paths((), selftests=True)
    assert [path for path in more if path not in usual] == [module.__file__]
    assert not Path(str(module.__file__)).is_relative_to(usual[0])
    asked = selection.checks(("-m", "selftests"), selftests=True)
    assert asked == tuple(f"test_selftest[{test.name}]" for test in SELFTESTS)
