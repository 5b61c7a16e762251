# SPDX-License-Identifier: GPL-2.0-only
"""What a selftest left is judged, from output that real ones printed on emulated hosts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from harness.selftests import judge, ktap
from harness.selftests.judge import Ended
from harness.selftests.table import SELFTESTS, Selftest

DATA = Path(__file__).parent / "data/selftests"
STATS = (DATA / "stats.txt").read_text()
DIRTY = (DATA / "dirty_log.txt").read_text()
ASSERTION = (DATA / "assertion.txt").read_text()


def named(name: str) -> Selftest:
    return next(test for test in SELFTESTS if test.name == name)


def judged(name: str, output: str, status: int | None, left: bool = False) -> tuple[str, str]:
    point = judge.point(named(name), name, Ended(output, status, 1.25, left), 60)
    return judge.outcome(ktap.parse(ktap.render([point])))


def test_success_by_exit_status_and_by_tap() -> None:
    assert judged("dirty_log_test", DIRTY, 0) == ("pass", "")
    assert judged("kvm_binary_stats_test", STATS, 0) == ("pass", "")


def test_a_failed_assertion_is_told_without_what_differs_between_runs() -> None:
    why = (
        "access_tracking_perf_test: access_tracking_perf_test.c:169: no_pfn < pages / 100: "
        "vCPU 0: No PFN for 0 out of 64 pages."
    )
    assert judged("access_tracking_perf_test", ASSERTION, 254) == ("fail", why)
    other = ASSERTION.replace("pid=83 tid=88", "pid=90 tid=91")
    assert judged("access_tracking_perf_test", other, 254) == ("fail", why)


def test_an_assertion_that_failed_with_eacces_is_no_skip() -> None:
    output = ASSERTION + "Access denied - Exiting, skipping test\n"
    assert judged("access_tracking_perf_test", output, 4)[0] == "fail"


def test_a_skip_says_why() -> None:
    output = "Random seed: 1\nRequirement not met: kvm_has_cap(KVM_CAP_X), skipping test\n"
    assert judged("dirty_log_test", output, 4) == (
        "skip",
        "Requirement not met: kvm_has_cap(KVM_CAP_X)",
    )
    assert judged("dirty_log_test", "", 4) == ("skip", "it does not say why")


@pytest.mark.parametrize(
    ("status", "words"),
    [(1, "exit status 1"), (142, "ended by SIGALRM"), (139, "ended by SIGSEGV")],
)
def test_other_ends_are_failures(status: int, words: str) -> None:
    assert judged("dirty_log_test", DIRTY, status) == ("fail", f"dirty_log_test: {words}")


def test_time_that_ran_out_is_a_hang() -> None:
    assert judged("dirty_log_test", DIRTY, None) == ("hung", "dirty_log_test: 60 seconds")


def test_success_without_work_is_unproven() -> None:
    output = "Log mode 'dirty-log' not supported, skipping test\n"
    outcome, why = judged("dirty_log_test", output, 0)
    assert outcome == "unproven"
    assert "Total bits checked" in why


# By the formats of mmu_stress_test.c of Linux 7.3-rc7, and of max_guest_memory_test.c of 6.12.
PHASES = (
    "Running with 1gb of guest memory and 1 vCPUs\nWaiting for vCPUs to finish run 2...\n"
    "\r0 vCPUs haven't rendezvoused...\rAll vCPUs finished run 2, releasing...\n"
)
RUNS = "run1 = 3.200000001s, reset = 0.000120000s, run2 = {}3.100000000s"


@pytest.mark.parametrize(
    "times", [RUNS.format("") + ", ro = 0.200000000s, rw = 1.000000000s", RUNS.format(" ")]
)
def test_the_times_of_all_phases_show_that_they_were(times: str) -> None:
    assert judged("mmu_stress_test", f"{PHASES}{times}\n", 0) == ("pass", "")


@pytest.mark.parametrize("output", ["", PHASES, f"{PHASES}{RUNS.format('')}, ro = "])
def test_success_before_the_last_phase_is_unproven(output: str) -> None:
    outcome, why = judged("mmu_stress_test", output, 0)
    assert outcome == "unproven"
    assert "run1" in why


def test_no_test_passes_by_its_exit_status_alone() -> None:
    assert not [test.name for test in SELFTESTS if re.search(test.shown, "")]


def test_success_that_leaves_processes_behind_is_a_failure() -> None:
    assert judged("dirty_log_test", DIRTY, 0, left=True)[0] == "fail"


def test_tap_inside_that_fails_or_is_cut_short_fails() -> None:
    wrong = STATS.replace("ok 1 vm0", "not ok 1 vm0")
    assert judged("kvm_binary_stats_test", wrong, 0) == ("fail", "kvm_binary_stats_test/vm0")
    short = STATS.replace("1..2", "1..3")
    assert judged("kvm_binary_stats_test", short, 0)[0] == "fail"


def test_a_failure_outranks_a_hang_and_both_what_passed() -> None:
    good = judge.point(named("dirty_log_test"), "a", Ended(DIRTY, 0, 1.0), 60)
    bad = judge.point(named("dirty_log_test"), "b", Ended(DIRTY, 1, 1.0), 60)
    late = judge.point(named("dirty_log_test"), "c", Ended(DIRTY, None, 60.0), 60)
    skip = judge.skipped("d", "no such thing")

    def outcome(*points: ktap.Point) -> str:
        return judge.outcome(ktap.parse(ktap.render(points)))[0]

    assert outcome(good, late, bad) == "fail"
    assert outcome(good, late) == "hung"
    assert outcome(good, skip) == "pass"
    assert outcome(skip, skip) == "skip"
    assert outcome(good, judge.broken("e", "x.c:1: no")) == "fail"
    assert outcome(skip, judge.unbuilt("e", "x.c:1: no")) == "unproven"


def test_a_hash_in_a_reason_stays_out_of_ktap() -> None:
    point = judge.skipped("a", "no # SKIP\nreally")
    (parsed,) = ktap.parse(ktap.render([point])).points
    assert (parsed.directive, parsed.detail) == ("SKIP", "no SKIP really")


def test_a_failure_of_the_emulator_is_expected_there_alone() -> None:
    test = named("page_fault_test")
    output = (DATA / "page_fault.txt").read_text()

    def outcome(text: str, status: int = 254, *, emulated: bool = True) -> str:
        point = judge.point(test, "a", Ended(text, status, 1.0), 60, emulated=emulated)
        return judge.outcome(ktap.parse(ktap.render([point])))[0]

    assert outcome(output) == "pass"
    assert outcome(output, emulated=False) == "fail"
    # The same assertion elsewhere, or another number of faults, is the kernel's doing.
    last = "Test: ro_memslot_no_syndrome_guest_cas"
    assert outcome(output.replace(last, "Test: ro_memslot_uffd_guest_at")) == "fail"
    assert outcome(output.replace("0x2 != 0x1 ", "0x2 != 0x0 ")) == "fail"
    assert outcome(output.replace("uffd_faults", "mmio_exits")) == "fail"
    assert outcome(output.partition("==== ")[0], 139) == "fail"


def test_the_table_is_sound() -> None:
    names = [name for test in SELFTESTS for name in test.names]
    assert len(set(names)) == len(names)
    assert all(test.claim and test.seconds > 0 for test in SELFTESTS)
    assert replace(SELFTESTS[0], before="old").names == (SELFTESTS[0].name, "old")


def test_a_real_cpu_gets_more_to_do() -> None:
    test = named("demand_paging_test")
    assert test.on(emulated=True) == test
    assert test.on(emulated=False).arguments == ("-b", "64M", "-v", "4")
    assert named("set_memory_region_test").on(emulated=False).arguments == ()
