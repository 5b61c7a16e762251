# SPDX-License-Identifier: GPL-2.0-only
"""Which reports have one cause: by kind and innermost functions, not by addresses or numbers."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from harness.observe import klog
from harness.observe.klog import Kind, Splat
from harness.observe.splats import distinct, frames, key, merge, modules, suspects, taint, trace

DATA = Path(__file__).parent / "data/observe/klog"
NAMES = sorted(path.name for path in DATA.glob("*.console") if not path.name.startswith("clean"))


def found(name: str) -> tuple[Splat, ...]:
    data = (DATA / name).read_bytes()
    return klog.splats((gzip.decompress(data) if name.endswith(".gz") else data).decode())


def one(name: str) -> Splat:
    return found(f"{name}.console")[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("warn", "warn: splat_do < splat_write < full_proxy_write < vfs_write"),
        ("kasan", "kasan: splat_do < splat_write < full_proxy_write < vfs_write"),
        ("lockdep-no-key", "lockdep: kvm_age_gfn < kvm_mmu_notifier_clear_young < "),
        ("hung-task", "hung-task: splat_thread < kthread < ret_from_fork"),
        ("hyp-panic-protected", "hyp-panic: __kvm_nvhe_handle___kvm_adjust_pc"),
        ("rcu-stall", "rcu-stall: splat_spin < splat_do < "),
        ("serror", "serror: splat_do"),
        ("ubsan", "ubsan: kvm_age_gfn < kvm_mmu_notifier_clear_young < "),
        ("bad-rss", "bad-page: BUG: Bad rss-counter state mm:N type:MM_ANONPAGES val:N"),
    ],
)
def test_what_printed_a_report_is_no_part_of_its_key(name: str, expected: str) -> None:
    assert key(one(name)).startswith(expected)


@pytest.mark.parametrize("name", NAMES)
def test_the_key_survives_another_build_and_another_boot(name: str) -> None:
    """Other offsets, addresses, stamps, process ids and lines; a copy that gcc made of each."""
    for splat in found(name):
        text = re.sub(r"\+0x([0-9a-f]+)/0x([0-9a-f]+)", r".constprop.0+0x1\1/0x2\2", splat.text)
        text = re.sub(r"PID: [0-9]+", "PID: 4711", text)
        text = re.sub(r"\b(00000000|ffff0000)([0-9a-f]{8})\b", r"\g<1>12345678", text)
        text = re.sub(r"\[ +[0-9]+\.[0-9]+\](\[ *[TC][0-9]+\])?", "[  999.000001][  T4711]", text)
        again = [other for other in klog.splats(text) if other.kind is splat.kind]
        assert key(again[0]) == key(splat)


def test_the_same_again_is_one_finding_and_counted() -> None:
    (finding,) = distinct(found("hung-task.console"))
    assert finding.count == 2
    (finding,) = distinct(found("soft-lockup.console"))
    assert finding.count == 2


def test_two_warnings_of_one_function_are_two() -> None:
    sites = [
        each.site for each in distinct(found("all.console.gz")) if each.splat.kind is Kind.WARN
    ]
    assert sites[:2] == ["arch/arm64/kvm/splat.c:53", "arch/arm64/kvm/splat.c:55"]


def test_two_reports_of_ubsan_in_one_function_are_two() -> None:
    """gcc names the file by the path of the build, which is not where the reader has it."""
    places = [each.site for each in distinct(found("ubsan.console"))]
    assert places == ["arch/arm64/kvm/mmu.c:1904", "arch/arm64/kvm/mmu.c:1905"]


def test_a_complete_report_is_shown_rather_than_a_cut_one() -> None:
    whole = one("warn").text
    cut = whole[: whole.index("full_proxy_write")]
    (finding,) = distinct(klog.splats(f"{cut}\n{whole}\n"))
    assert finding.splat.complete
    assert finding.count == 2


def test_what_is_left_of_a_report_is_not_taken_for_another_cause() -> None:
    other = one("lockdep-no-key").text
    start = one("warn").text.split("\n")[:8]
    log = "\n".join([other, *start])
    assert [each.splat.kind for each in distinct(klog.splats(log))] == [Kind.LOCKDEP, Kind.WARN]


def test_console_and_dmesg_show_the_same_log() -> None:
    findings = distinct(found("hung-task.console"))
    assert merge(findings, findings) == findings
    assert merge((), findings) == findings
    more = distinct([*found("hung-task.console"), *found("warn.console")])
    assert [each.count for each in merge(findings, more)] == [2, 1]


def test_trace_and_suspects() -> None:
    assert trace(one("kasan"))[:3] == ("dump_backtrace", "show_stack", "dump_stack_lvl")
    assert suspects(one("kasan"))[:2] == ("splat_do", "splat_write")
    # As they are in System.map: file and line are asked for by these.
    assert "invoke_syscall.constprop.0" in suspects(one("warn"))


def test_frames_of_7_3_and_of_modules() -> None:
    lines = [
        "Call trace:",
        " kvm_age_gfn+0x28/0x78 [kvm] (P)",
        " f.isra.0+0x2/0x8 (C)",
        " g+0x2/0x8",
    ]
    text = "\n".join(f"[    1.000000] {line}" for line in ["BUG: a", "CPU: 1 UID: 0", *lines])
    (splat,) = klog.splats(text)
    assert frames(splat) == ("kvm_age_gfn", "f", "g")


def test_what_slub_says_of_an_object_is_told_apart_by_who_had_it() -> None:
    assert frames(one("slab-double-free"))[:3] == ("__slab_free", "kfree", "kvm_arch_init_vm")
    assert frames(one("slab-remaining"))[1:3] == ("kmem_cache_destroy", "kvm_arch_init_vm")


def test_taint_and_modules() -> None:
    assert taint(one("warn")) == ""
    assert taint(one("oops-null")) == "GDW"
    assert taint(one("kasan")) == "GB"
    assert modules(one("warn")) == ()
    line = "[    1.000000] Modules linked in: kvm_intel(E) zram [last unloaded: x]"
    (splat,) = klog.splats(f"[    1.000000] BUG: a\n{line}\n")
    assert modules(splat) == ("kvm_intel", "zram")
