# SPDX-License-Identifier: GPL-2.0-only
"""The kernel log: real splats of kernels that were broken on purpose, and clean boots."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from test_observe_signatures import KINDS as WRITTEN_KINDS

from harness.observe import klog
from harness.observe.klog import Follower, Kind, Splat

DATA = Path(__file__).parent / "data" / "observe" / "klog"

# file -> the kinds of its splats in order, and what the first one's headline begins with.
BROKEN: dict[str, tuple[list[Kind], str]] = {
    "warn": ([Kind.WARN], "WARNING: CPU: 1 PID: 53 at arch/arm64/kvm/splat.c:53 splat_do+"),
    "warn-message": ([Kind.WARN], "WARNING: CPU: 1 PID: 55 at "),
    "bug": ([Kind.BUG, Kind.WARN], "kernel BUG at arch/arm64/kvm/splat.c:57!"),
    "oops-null": ([Kind.OOPS], "Unable to handle kernel NULL pointer dereference at "),
    "oops-wild": ([Kind.OOPS], "Unable to handle kernel paging request at "),
    "oops-caller": ([Kind.OOPS], "Unable to handle kernel NULL pointer dereference at "),
    "external-abort": ([Kind.EXTERNAL_ABORT], "Internal error: synchronous external abort: "),
    "serror": ([Kind.SERROR, Kind.PANIC], "SError Interrupt on CPU1, code 0x00000000be000000"),
    "panic": ([Kind.PANIC], "Kernel panic - not syncing: splat: asked for"),
    "hyp-bug-nvhe": ([Kind.HYP_PANIC, Kind.PANIC], "kvm [53]: nVHE hyp BUG at: "),
    "hyp-bug-protected": ([Kind.HYP_PANIC, Kind.PANIC], "kvm [53]: nVHE hyp BUG at: "),
    "hyp-panic-nvhe": ([Kind.HYP_PANIC, Kind.PANIC], "kvm [54]: nVHE hyp panic at: "),
    "hyp-panic-protected": ([Kind.HYP_PANIC, Kind.PANIC], "kvm [52]: nVHE hyp panic at: "),
    "rcu-stall": ([Kind.RCU_STALL], "rcu: INFO: rcu_sched self-detected stall on CPU"),
    "rcu-stall-other": (
        [Kind.RCU_STALL] * 2,
        "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
    ),
    "soft-lockup": ([Kind.SOFT_LOCKUP] * 2, "watchdog: BUG: soft lockup - CPU#1 stuck for 6s!"),
    "hung-task": ([Kind.HUNG_TASK] * 2, "INFO: task splat:54 blocked for more than 2 seconds"),
    "lockdep-circular": (
        [Kind.LOCKDEP],
        "WARNING: possible circular locking dependency detected",
    ),
    "lockdep-recursive": ([Kind.LOCKDEP], "WARNING: possible recursive locking detected"),
    "lockdep-inconsistent": ([Kind.LOCKDEP], "WARNING: inconsistent lock state"),
    "lockdep-unbalance": ([Kind.LOCKDEP], "WARNING: bad unlock balance detected!"),
    "lockdep-held": ([Kind.LOCKDEP], "WARNING: lock held when returning to user space!"),
    "rcu-usage": ([Kind.LOCKDEP], "WARNING: suspicious RCU usage"),
    "atomic-sleep": ([Kind.ATOMIC_SLEEP], "BUG: sleeping function called from invalid context at "),
    "atomic-schedule": ([Kind.ATOMIC_SLEEP], "BUG: scheduling while atomic: sh/58/0x00000002"),
    "kasan": ([Kind.KASAN], "BUG: KASAN: slab-out-of-bounds in splat_do+"),
    "bad-page": ([Kind.BAD_PAGE], "BUG: Bad page state in process sh  pfn:"),
    "lockdep-no-key": ([Kind.LOCKDEP], "INFO: trying to register non-static key."),
    "page-poison": ([Kind.PAGE_POISON] * 2, "pagealloc: memory corruption"),
    "slab-corrupt": ([Kind.SLAB], "BUG kmalloc-64 (Not tainted): Object corrupt"),
    "slab-double-free": ([Kind.SLAB], "BUG kmalloc-32 (Tainted: G    B   W         ): Object "),
    "slab-remaining": ([Kind.SLAB, Kind.WARN], "BUG made-up (Tainted: G    B   W         ): Obj"),
    "bad-rss": ([Kind.BAD_PAGE], "BUG: Bad rss-counter state "),
    "vm-bug-page": ([Kind.BUG], "kernel BUG at mm/page_alloc.c:822!"),
    "ubsan": ([Kind.UBSAN] * 2, "UBSAN: array-index-out-of-bounds in /src/arch/arm64/kvm/mmu.c:"),
}
CLEAN = sorted(path.name for path in DATA.glob("clean-*"))


def console(name: str) -> bytes:
    path = DATA / name
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def text(name: str) -> str:
    return console(f"{name}.console").decode()


def follow(data: bytes, size: int) -> tuple[Follower, tuple[Splat, ...]]:
    follower = Follower()
    found: list[Splat] = []
    for start in range(0, len(data), size):
        found += follower.feed(data[start : start + size])
    found += follower.close()
    return follower, tuple(found)


@pytest.mark.parametrize("name", BROKEN)
def test_each_signature_is_found(name: str) -> None:
    kinds, headline = BROKEN[name]
    found = klog.splats(text(name))
    assert [splat.kind for splat in found] == kinds
    assert found[0].headline.startswith(headline)
    assert all(splat.complete for splat in found)


def test_a_page_that_a_kernel_dies_of_is_in_the_report() -> None:
    (splat,) = klog.splats(text("vm-bug-page"))
    first, second = splat.text.split("\n")[:2]
    assert "page: refcount:0 mapcount:0 " in first
    assert "flags: 0x4(referenced|zone=0)" in second


def test_each_kind_has_a_splat() -> None:
    real = {kind for kinds, _ in BROKEN.values() for kind in kinds}
    assert real.isdisjoint(WRITTEN_KINDS)
    assert real | WRITTEN_KINDS == set(Kind)


@pytest.mark.parametrize("name", BROKEN)
def test_the_whole_text_is_kept(name: str) -> None:
    """Every kernel line of these files belongs to a splat, and to no more than one."""
    # What follows the end of a report, "note: sh[57] exited with irqs disabled", for one, or
    # stands between any two lines.
    after = ("note: ", "hrtimer: interrupt took", "Disabling lock debugging", "splat: 0", "FIX ")

    def essential(logged: str) -> list[str]:
        stamped = ((line, klog.stamped(line)) for line in logged.split("\n"))
        said = [(line, text) for line, text in stamped if text and text.strip()]
        return [line.rstrip("\r") for line, text in said if not text.startswith(after)]

    kept = [line for splat in klog.splats(text(name)) for line in essential(splat.text)]
    assert kept == essential(text(name))


@pytest.mark.parametrize("name", CLEAN)
def test_no_alarm_on_a_clean_boot(name: str) -> None:
    data = console(name)
    assert klog.kernel_lines(data.decode()) > 130
    assert klog.splats(data.decode()) == ()
    follower, found = follow(data, 64)
    assert found == ()
    assert follower.panic_line is None
    assert not follower.panic_ended


def test_clean_boots_of_both_cpus_and_all_modes_are_there() -> None:
    for mode in ("neoverse-n1-vhe", "neoverse-n1-nvhe", "neoverse-n1-protected"):
        assert f"clean-{mode}.console" in CLEAN
    for mode in ("cortex-a57-nvhe", "cortex-a57-protected"):
        assert f"clean-{mode}.console" in CLEAN


def test_a_boot_with_everything() -> None:
    found = klog.splats(console("all.console.gz").decode())
    assert [splat.kind.value for splat in found] == [
        "warn",
        "warn",
        "bug",
        "warn",
        "oops",
        "oops",
        "bad-page",
        "external-abort",
        "soft-lockup",
        "soft-lockup",
        "rcu-stall",
        "panic",
    ]
    lines = console("all.console.gz").decode().split("\n")
    for splat in found:
        assert lines[splat.line - 1].rstrip("\r") == splat.text.split("\n")[0]


@pytest.mark.parametrize("size", [1, 7, 64, 4096, 1 << 20])
@pytest.mark.parametrize("name", ["all.console.gz", "serror.console", "hung-task.console"])
def test_the_follower_finds_what_the_whole_text_shows(name: str, size: int) -> None:
    data = console(name)
    assert follow(data, size)[1] == klog.splats(data.decode())


def test_a_panic_is_told_within_the_piece() -> None:
    data = console("hyp-panic-nvhe.console")
    first = data.index(b"Kernel panic")
    end_of_line = data.index(b"\n", first) + 1
    follower = Follower()
    assert [splat.kind for splat in follower.feed(data[: end_of_line - 1])] == []
    assert follower.panic_line is None
    assert [splat.kind for splat in follower.feed(data[end_of_line - 1 : end_of_line])] == [
        Kind.HYP_PANIC
    ]
    assert follower.panic_line == "Kernel panic - not syncing: HYP panic:"
    assert not follower.panic_ended
    follower.feed(data[end_of_line : data.index(b"Memory Limit")])
    assert not follower.panic_ended
    follower.feed(data[data.index(b"Memory Limit") :])
    assert follower.panic_ended


@pytest.mark.parametrize(
    "last",
    [
        b"[    4.0] x\r\n[    4.000001] ---[ end Kernel panic - not syncing: x ]---\r\n",
        b"[    4.000001] Rebooting in 3 seconds..\r\n",
        b"[    0.000000] Booting Linux on physical CPU 0x0000000000 [0x414fd0c1]\r\n",
    ],
)
def test_other_ends_of_a_panic(last: bytes) -> None:
    data = console("panic.console")
    follower = Follower()
    follower.feed(data[: data.index(b"Kernel Offset") - len("[   42.185385] ")])
    assert not follower.panic_ended
    follower.feed(last)
    assert follower.panic_ended


def test_the_console_of_the_next_boot_is_not_part_of_the_panic() -> None:
    boot = console("clean-neoverse-n1-vhe.console").decode()
    (panic,) = klog.splats(text("panic") + boot)
    assert "Booting Linux" not in panic.text
    assert panic.complete


def test_nuls_and_a_truncated_last_line() -> None:
    data = console("panic.console").replace(b"SMP", b"\0\0SMP\0")
    data = data[: data.index(b"Memory Limit") - 3]
    follower, found = follow(data, 5)
    assert [splat.complete for splat in found] == [False]
    assert "\0" not in found[0].text
    assert follower.panic_ended, "its console has ended, no more can come"


def test_a_cut_splat_is_found_and_marked() -> None:
    whole = text("oops-null")
    (splat,) = klog.splats(whole[: whole.index("Call trace")])
    assert splat.kind is Kind.OOPS
    assert not splat.complete


def test_a_cut_here_line_alone_is_a_splat() -> None:
    (splat,) = klog.splats("[    1.000000] ------------[ cut here ]------------\n")
    assert not splat.complete


def test_a_splat_after_a_prompt_without_newline() -> None:
    (splat,) = klog.splats("~ # echo x\r\n~ # [   12.000001] BUG: Bad rss-counter state mm:0\r\n")
    assert splat.line == 2


def test_dmesg_pads_the_lines_of_one_message_instead_of_a_stamp() -> None:
    lines = text("hyp-panic-nvhe").replace("\r", "").split("\n")
    padded = [
        " " * 15 + line[15:] if line[15:].startswith(("PS:", "FAR:", "VCPU:")) else line
        for line in lines
    ]
    assert padded != lines
    _, panic = klog.splats("\n".join(padded))
    assert "VCPU:" in panic.text
    assert panic.text.endswith("Memory Limit: none")


# The forms of kernel/rcu/tasks.h and tree_exp.h for which no kernel was broken. The call trace is
# that of a real hung task.
TASK = [
    line.strip()
    for line in text("hung-task").split("\n")[3:11]
    if klog.stamped(line.strip()) is not None
]


def stamp(*lines: str) -> list[str]:
    return [f"[   30.000001] {line}" for line in lines]


@pytest.mark.parametrize(
    "lines",
    [
        [
            *stamp("INFO: rcu_tasks detected stalls on tasks:"),
            *stamp("00000000a8b3c1d2: .. nvcsw: 7/7 holdout: 1 idle_cpu: -1/0"),
            *TASK,
            *stamp("(____ptrval____): .N nvcsw: 9/9 holdout: 1 idle_cpu: -1/1"),
            *TASK,
        ],
        [
            *stamp("INFO: rcu_tasks_trace detected stalls on tasks:"),
            *stamp("P54: ...B nesting: 1N cpu: 0"),
            *TASK,
            *stamp("P55: .."),
            *TASK,
            *stamp("\tIPI outstanding to CPU 1"),
        ],
        [
            *stamp("INFO: rcu_tasks_trace detected stalls? (Late IPI?)"),
            *stamp("\tIPI outstanding to CPU 1"),
        ],
        stamp(
            "rcu: INFO: rcu_sched detected expedited stalls, but suppressed full report due to a "
            "stuck CSD-lock."
        ),
        stamp(
            "rcu: INFO: rcu_sched detected stall, but suppressed full report due to a stuck "
            "CSD-lock."
        ),
    ],
)
def test_stalls_of_other_kinds_of_rcu(lines: list[str]) -> None:
    (splat,) = klog.splats("\n".join([*lines, *stamp("random: crng init done")]))
    assert splat.kind is Kind.RCU_STALL
    assert splat.headline == klog.stamped(lines[0])
    assert splat.text.split("\n") == lines
    assert splat.complete


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x0/0x4",
        "Kernel panic - not syncing: x",
        "[    1.000000] kvm-harness: WARNING: CPU: 0 PID: 1 at a.c:1",
        "[    1.000000] WARNING: this driver is old",
        "[    1.000000] systemd[1]: Kernel panic - not syncing: x",
        "[    1.000000] watchdog: Hard watchdog permanently disabled",
        "[    1.000000] a BUG: Bad page state in process x",
        "[    1.000000] Kernel command line: panic=-1 oops=panic",
        "[    1.000000] rcu: \tRCU CPU stall warnings timeout set to 3",
        "[    1.000000] INFO: lockdep is turned off.",
        "[    1.000000] rcu: INFO: Stall ended before state dump start",
        "[    1.000000] rcu_tasks_wait_gp: rcu_tasks grace period number 9 is 2501 jiffies old.",
        "[    1.000000] systemd[1]: INFO: rcu_tasks detected stalls on tasks:",
        "[    1.000000] ======================================================",
        "[    1.000000] kvm [1]: nVHE hyp stacktrace enabled",
        "[ 1.0] Kernel panic - not syncing: x",
    ],
)
def test_words_alone_are_no_splat(line: str) -> None:
    assert klog.splats(f"{line}\n[    2.000000] and more\n") == ()
    follower, found = follow(f"{line}\n".encode(), 3)
    assert (follower.panic_line, found) == (None, ())


def test_a_flood_is_bounded() -> None:
    flood = (
        b"[    1.000000] ------------[ cut here ]------------\n" + b"[    1.000000] x\n" * 50_000
    )
    _, found = follow(flood + b"=" * 300_000 + b"A" * 300_000, 1 << 16)
    assert len(found) == 1
    assert found[0].text.count("\n") + 1 == klog.MAX_SPLAT_LINES


def test_the_clock_is_that_of_the_last_line_that_the_kernel_printed() -> None:
    assert klog.clock("[    1.500000] a\n[   24.100000][    T1] b\ncost: 1 end\n") == 24.1
    assert klog.clock("cost: 1 2 x[   24.1] no stamp") == 0
