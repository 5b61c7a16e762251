# SPDX-License-Identifier: GPL-2.0-only
"""Reports that were written after the code that prints them, where no kernel was broken for it.

Each is put between two lines that are none of it, and must be found with exactly its own.
"""

from __future__ import annotations

import pytest

from harness.observe import klog, splats
from harness.observe.klog import Kind, Splat

RULER = "=" * 66
LONG_RULER = "=" * 80
CUT = "------------[ cut here ]------------"
END = "---[ end trace 0000000000000000 ]---"
CPU = [
    "CPU: 1 UID: 0 PID: 53 Comm: sh Not tainted 6.12.117 #2",
    "Hardware name: linux,dummy-virt (DT)",
]
REGISTERS = [
    "pstate: 00000009 (nzcv daif -PAN -UAO -TCO -DIT -SSBS BTYPE=--)",
    "pc : stage2_age_walker+0x28/0x78",
    "lr : __kvm_pgtable_walk+0x24/0x178",
    "sp : ffff000001cabc90",
    "x29: ffff000001cabc90 x28: ffff000001cd0f00 x27: 0000000000000000",
    "x2 : 0000000000000000 x1 : ffff8000806a4268 x0 : 0000000000000000",
]
TRACE = ["Call trace:", " stage2_age_walker+0x28/0x78", " __kvm_pgtable_walk+0x124/0x178"]
TASK = "task:kworker/0:1     state:R  running task     stack:0     pid:12    tgid:12    ppid:2"
WARN = "WARNING: CPU: 1 PID: 53 at lib/refcount.c:28 refcount_warn_saturate+0xf4/0x148"

# kind, what the headline begins with, the lines
WRITTEN: dict[str, tuple[Kind, str, list[str]]] = {
    # lib/ubsan.c:ubsan_prologue(), ubsan_epilogue() of 6.2
    "ubsan-6.2": (
        Kind.UBSAN,
        "UBSAN: shift-out-of-bounds in ",
        [LONG_RULER, "UBSAN: shift-out-of-bounds in arch/arm64/kvm/mmu.c:12:3",
         "shift exponent 64 is too large for 64-bit type 'long int'", *CPU, *TRACE, LONG_RULER],
    ),
    # mm/kfence/report.c:kfence_report_error()
    "kfence": (
        Kind.KFENCE,
        "BUG: KFENCE: use-after-free read in ",
        [RULER, "BUG: KFENCE: use-after-free read in stage2_age_walker+0x28/0x78", "",
         "Use-after-free read at 0x00000000a8b3c1d2 (in kfence-#12):",
         " stage2_age_walker+0x28/0x78", " __kvm_pgtable_walk+0x124/0x178", "",
         "kfence-#12: 0x00000000a8b3c1d2-0x00000000a8b3c1f1, size=32, cache=kmalloc-32", "",
         "freed by task 53 on cpu 1 at 3.313881s (0.000100s ago):", " kfree+0x28/0x78", "",
         *CPU, RULER],
    ),
    # mm/slub.c:slab_bug(), print_trailer() and slab_fix() of 6.2, with a trace of its own
    "slab-6.2": (
        Kind.SLAB,
        "BUG kmalloc-64 (Tainted: G        W         ): Poison overwritten",
        [LONG_RULER, "BUG kmalloc-64 (Tainted: G        W         ): Poison overwritten",
         "-" * 77, "", "0xffff000001e6ea48-0xffff000001e6ea48 @offset=2632. First byte 0x5a",
         "Slab 0xfffffc0000079b80 objects=21 used=21 fp=0x0000000000000000 flags=0x200",
         "Object 0xffff000001e6ea40 @offset=2624 fp=0xffff000001e6e6c0", "",
         "Object   ffff000001e6ea40: 6b 6b 6b 6b 6b 6b 6b 6b 5a 6b 6b 6b 6b 6b 6b 6b  kkkkkkkkZkkk",
         *CPU, *TRACE, "FIX kmalloc-64: Restoring Poison 0xffff000001e6ea48=0x6b"],
    ),
    # kernel/watchdog.c:watchdog_hardlockup_check(): this CPU, then another in 7.3's words
    "hard-lockup": (
        Kind.HARD_LOCKUP,
        "watchdog: Watchdog detected hard LOCKUP on cpu 1",
        ["watchdog: Watchdog detected hard LOCKUP on cpu 1", "Modules linked in:",
         *CPU, *REGISTERS, *TRACE],
    ),
    "hard-lockup-7.3": (
        Kind.HARD_LOCKUP,
        "watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1",
        ["watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1", "Modules linked in:",
         "Sending NMI from CPU 0 to CPUs 1:", "NMI backtrace for cpu 1",
         *CPU, *REGISTERS, *TRACE],
    ),
    "hard-lockup-6.2": (
        Kind.HARD_LOCKUP,
        "NMI watchdog: Watchdog detected hard LOCKUP on cpu 1",
        ["NMI watchdog: Watchdog detected hard LOCKUP on cpu 1", *CPU, *REGISTERS, *TRACE],
    ),
    # kernel/workqueue.c:wq_watchdog_timer_fn(), show_all_workqueues(), show_cpu_pools_hogs()
    "workqueue": (
        Kind.WORKQUEUE,
        "BUG: workqueue lockup - pool cpus=0 ",
        ["BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!",
         "Showing busy workqueues and worker pools:", "workqueue events: flags=0x0",
         "  pwq 2: cpus=0 node=0 flags=0x0 nice=0 active=1 refcnt=2",
         "    pending: vmstat_shepherd",
         "pool 2: cpus=0 node=0 flags=0x0 nice=0 hung=31s workers=2 idle: 12",
         "Showing backtraces of running workers in stalled CPU-bound worker pools:",
         "pool 2:", TASK, *TRACE],
    ),
    # lib/refcount.c, lib/debugobjects.c, lib/list_debug.c; __warn_printk() prints the words first
    "refcount": (
        Kind.REFCOUNT,
        "WARNING: CPU: 1 PID: 53 at lib/refcount.c:28 ",
        [CUT, "refcount_t: underflow; use-after-free.", WARN, *CPU, *REGISTERS, *TRACE, END],
    ),
    "odebug": (
        Kind.ODEBUG,
        "WARNING: CPU: 1 PID: 53 at lib/debugobjects.c:514 ",
        [CUT, "ODEBUG: free active (active state 0) object: 00000000a8b3c1d2 object type: rcu_head",
         "WARNING: CPU: 1 PID: 53 at lib/debugobjects.c:514 debug_print_object+0x98/0xd8",
         *CPU, *REGISTERS, *TRACE, END],
    ),
    "list": (
        Kind.LIST,
        "WARNING: CPU: 1 PID: 53 at lib/list_debug.c:62 ",
        [CUT, "list_del corruption, ffff000001cabd00->prev is NULL",
         "WARNING: CPU: 1 PID: 53 at lib/list_debug.c:62 __list_del_entry_valid_or_report+0x8/0xd8",
         *CPU, *REGISTERS, *TRACE, END],
    ),
    # kernel/panic.c:__warn() of 7.3, where the words may come below the heading
    "warn-7.3": (
        Kind.REFCOUNT,
        "WARNING: lib/refcount.c:28 at refcount_warn_saturate+0xf4/0x148, CPU#1: sh/53",
        [CUT, "WARNING: lib/refcount.c:28 at refcount_warn_saturate+0xf4/0x148, CPU#1: sh/53",
         "refcount_t: underflow; use-after-free.", "Modules linked in:", *CPU, *REGISTERS,
         "Call trace:", " refcount_warn_saturate+0xf4/0x148 (P)", " kvm_put_kvm+0x28/0x78", END],
    ),
    # arch/arm64/kernel/entry-common.c:__panic_unhandled(); traps.c:panic_bad_stack()
    "bad-mode": (
        Kind.BAD_MODE,
        "Unhandled 64-bit el1h fiq exception on CPU1, ESR 0x",
        ["Unhandled 64-bit el1h fiq exception on CPU1, ESR 0x00000000f2000800 -- BRK (AArch64)",
         *CPU, *REGISTERS],
    ),
    "stack-overflow": (
        Kind.STACK_OVERFLOW,
        "Insufficient stack space to handle exception!",
        ["Insufficient stack space to handle exception!", "ESR: 0x0000000096000047 -- DABT",
         "FAR: 0xffff800080000000", "Task stack:     [0xffff800080000000..0xffff800080004000]",
         *CPU, *REGISTERS],
    ),
    # arch/arm64/kvm/handle_exit.c:kvm_nvhe_report_cfi_failure(), nvhe_hyp_panic_handler()
    "hyp-cfi": (
        Kind.HYP_PANIC,
        "kvm [53]: nVHE hyp CFI failure at: ",
        ["kvm [53]: nVHE hyp CFI failure at: [<ffff800080563de0>] __kvm_nvhe_f+0x38/0xa0!",
         "kvm [53]: nVHE call trace:", "kvm [53]:  [<ffff800080561e68>] __kvm_nvhe_g+0xa0/0xd0",
         "kvm [53]: ---[ end nVHE call trace ]---", "kvm [53]: Hyp Offset: 0xffff00007fe00000"],
    ),
    "hyp-host-exception": (
        Kind.HYP_PANIC,
        "kvm [53]: Invalid host exception to nVHE hyp!",
        ["kvm [53]: Invalid host exception to nVHE hyp!", "kvm [53]: nVHE call trace:",
         "kvm [53]:  [<ffff800080561e68>] __kvm_nvhe_g+0xa0/0xd0",
         "kvm [53]: ---[ end nVHE call trace ]---"],
    ),
    # kernel/hung_task.c:hung_task_info() of 7.3, with who holds the lock
    "hung-task-7.3": (
        Kind.HUNG_TASK,
        "INFO: task sh:53 blocked in I/O wait for more than 120 seconds.",
        ["INFO: task sh:53 blocked in I/O wait for more than 120 seconds.", TASK, *TRACE,
         "INFO: task sh:53 is blocked on a mutex likely owned by task sh:54.", TASK, *TRACE],
    ),
    # kernel/locking/lockdep.c: below a ruler, and print_lockdep_off()
    "lockdep-context": (
        Kind.LOCKDEP,
        "[ BUG: Invalid wait context ]",
        ["=============================", "[ BUG: Invalid wait context ]",
         "6.12.117 #1 Not tainted",
         "-----------------------------", "sh/53 is trying to lock:", *CPU, *TRACE],
    ),
    "lockdep-limit": (
        Kind.LOCKDEP,
        "BUG: MAX_LOCKDEP_ENTRIES too low!",
        ["BUG: MAX_LOCKDEP_ENTRIES too low!", "turning off the locking correctness validator.",
         *CPU, *TRACE],
    ),
    # kernel/workqueue.c:process_one_work(), lib/smp_processor_id.c: any other "BUG: "
    "preemptible": (
        Kind.REPORT,
        "BUG: using smp_processor_id() in preemptible ",
        ["BUG: using smp_processor_id() in preemptible [00000000] code: sh/53",
         "caller is stage2_age_walker+0x28/0x78", *CPU, *TRACE],
    ),
    # kernel/fork.c:check_mm(), arch/arm64/include/asm/pgtable.h:pmd_ERROR(): one line, no trace
    "pgtables-bytes": (
        Kind.REPORT,
        "BUG: non-zero pgtables_bytes on freeing mm: 4096",
        ["BUG: non-zero pgtables_bytes on freeing mm: 4096"],
    ),
    "bad-pmd": (
        Kind.BAD_PAGE,
        "mm/pgtable-generic.c:54: bad pmd ",
        ["mm/pgtable-generic.c:54: bad pmd 0000000000000bad."],
    ),
    # mm/memory.c:print_bad_pte()
    "bad-map": (
        Kind.BAD_PAGE,
        "BUG: Bad page map in process sh ",
        ["BUG: Bad page map in process sh  pte:00e8000043f9cfd3 pmd:0800000043f9d003",
         "addr:0000ffffa0000000 vm_flags:00100073 anon_vma:ffff000001164850 mapping:0 index:ffff",
         *CPU, *TRACE],
    ),
    # mm/swapfile.c:_swap_info_get(), get_swap_device(); __swap_duplicate() names no function
    "swap-free": (
        Kind.SWAP,
        "_swap_info_get: Unused swap offset entry ",
        ["_swap_info_get: Unused swap offset entry 0000a1b2"],
    ),
    "swap-device": (
        Kind.SWAP,
        "get_swap_device: Bad swap offset entry ",
        ["get_swap_device: Bad swap offset entry 3fffffffffff"],
    ),
    "swap-duplicate": (
        Kind.SWAP,
        "Bad swap file entry ",
        ["Bad swap file entry 5e00000000001234"],
    ),
    # drivers/block/zram/zram_drv.c:zram_read_page(), mm/zswap.c:zswap_decompress() of 7.3,
    # mm/zsmalloc.c:zs_destroy_pool()
    "zram": (Kind.SWAP, "zram: ", ["zram: Decompression failed! err=-22, page=4711"]),
    "zswap-7.3": (
        Kind.SWAP,
        "zswap: ",
        ["zswap: Decompression error from zswap (0:4711 lzo-rle 1210->4096)"],
    ),
    "zsmalloc": (Kind.SWAP, "zsmalloc: ", ["zsmalloc: Class-254 fullness group 3 is not empty"]),
    # kernel/irq/spurious.c:__report_bad_irq(), note_interrupt()
    "irq": (
        Kind.IRQ,
        "irq 12: nobody cared ",
        ['irq 12: nobody cared (try booting with the "irqpoll" option)', *CPU, "Call trace:",
         " dump_backtrace+0x9c/0x128", " show_stack+0x20/0x38", " dump_stack_lvl+0x60/0x80",
         " __report_bad_irq+0x54/0xe8", " note_interrupt+0x360/0x3a0",
         " handle_irq_event+0xac/0xb8", " handle_fasteoi_irq+0xa4/0x1f0", "handlers:",
         "[<00000000a8b3c1d2>] vring_interrupt", "Disabling IRQ #12"],
    ),
    # kernel/smp.c:csd_lock_wait_toolong()
    "csd-lock": (
        Kind.CSD_LOCK,
        "smp: csd: Detected non-responsive CSD lock (#1) on CPU#1, ",
        ["smp: csd: Detected non-responsive CSD lock (#1) on CPU#1, waiting 5000000112 ns for "
         "CPU#00 do_nothing+0x0/0x8(0x0).", "smp: \tcsd: CSD lock (#1) unresponsive.",
         "Sending NMI from CPU 1 to CPUs 0:", *CPU, *TRACE,
         "smp: csd: Re-sending CSD lock (#1) IPI from CPU#01 to CPU#00", *CPU, *TRACE],
    ),
    # drivers/acpi/apei/ghes.c:__ghes_print_estatus(), drivers/firmware/efi/cper.c
    "hardware-error": (
        Kind.HARDWARE,
        "{1}[Hardware Error]: event severity: recoverable",
        ["{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 2",
         "{1}[Hardware Error]: event severity: recoverable",
         "{1}[Hardware Error]:  precise tstamp: 2026-11-30 13:50:20",
         "{1}[Hardware Error]:  Error 0, type: recoverable",
         "{1}[Hardware Error]:  fru_text: DIMM 3",
         "{1}[Hardware Error]:   section_type: memory error",
         "{1}[Hardware Error]:    error_status: Storage error in DRAM memory (0x0000000000000400)",
         "{1}[Hardware Error]:   physical_address: 0x0000008812345000",
         "{1}[Hardware Error]:   node:0 card:3 module:0 rank:1 bank:7 row:4711 column:0",
         "{1}[Hardware Error]:   error_type: 3, multi-bit ECC"],
    ),
    # drivers/edac/edac_mc.c:edac_ue_error()
    "edac": (
        Kind.HARDWARE,
        "EDAC MC0: 1 UE ",
        ["EDAC MC0: 1 UE multi-bit ECC on DIMM 3 (node:0 page:0x8812345 offset:0x0 grain:1)"],
    ),
    # mm/memory-failure.c:kill_proc(), action_result()
    "memory-failure": (
        Kind.MEMORY_FAILURE,
        "Memory failure: 0x8812345: Sending SIGBUS to ",
        ["Memory failure: 0x8812345: Sending SIGBUS to kvm-guest:53 due to hardware memory "
         "corruption",
         "Memory failure: 0x8812345: recovery action for dirty LRU page: Recovered"],
    ),
    # arch/arm64/kvm/mmu.c:kvm_handle_guest_abort(), kvm_init_stage2_mmu()
    "fault-status": (
        Kind.REPORT,
        "kvm [53]: Unsupported FSC: ",
        ["kvm [53]: Unsupported FSC: EC=0x24 xFSC=0x30 ESR_EL2=0x92000030"],
    ),
    "stage2-again": (
        Kind.REPORT,
        "kvm [53]: kvm_arch already ",
        ["kvm [53]: kvm_arch already initialized?"],
    ),
    # lib/bug.c:report_bug() without CONFIG_DEBUG_BUGVERBOSE
    "bug-terse": (
        Kind.BUG,
        "Kernel BUG at stage2_age_walker+",
        [CUT, "Kernel BUG at stage2_age_walker+0x28/0x78 [verbose debug info unavailable]",
         "Internal error: Oops - BUG: 00000000f2000800 [#1] SMP", *CPU, *REGISTERS, *TRACE, END],
    ),
    # arch/arm64/kernel/debug-monitors.c:single_step_handler(), smp.c:do_handle_IPI()
    "single-step": (
        Kind.REPORT,
        "Unexpected kernel single-step ",
        ["Unexpected kernel single-step exception at EL1"],
    ),
    "ipi": (Kind.REPORT, "CPU1: Unknown IPI ", ["CPU1: Unknown IPI message 0x9"]),
    # kernel/softirq.c:handle_softirqs(), exit.c:make_task_dead(), rcu/tree.c:__call_rcu_common()
    "softirq": (
        Kind.REPORT,
        "softirq: huh, entered softirq 1 TIMER ",
        ["softirq: huh, entered softirq 1 TIMER 00000000a8b3c1d2 with preempt_count 00000100, "
         "exited with 00000101?"],
    ),
    "recursive-fault": (
        Kind.REPORT,
        "Fixing recursive fault ",
        ["Fixing recursive fault but reboot is needed!"],
    ),
    "double-freed": (
        Kind.REPORT,
        "rcu: __call_rcu_common(): Double-freed CB ",
        ["rcu: __call_rcu_common(): Double-freed CB 00000000a8b3c1d2->stage2_free_cb+0x0/0x78()!!! "
         "  slab kmalloc-64 start ffff000001e6ea40 pointer offset 0 size 64"],
    ),
    # kernel/sched/idle.c:dequeue_task_idle(), time/timer.c:schedule_timeout()
    "idle": (
        Kind.REPORT,
        "bad: scheduling from the idle thread!",
        ["bad: scheduling from the idle thread!", *CPU, *TRACE],
    ),
    "timeout": (
        Kind.REPORT,
        "schedule_timeout: wrong timeout value ",
        ["schedule_timeout: wrong timeout value ffffffffffffff9c", *CPU, *TRACE],
    ),
}  # fmt: skip
# Kinds that have no real splat in tests/data.
KINDS = {
    Kind.KFENCE, Kind.HARD_LOCKUP, Kind.WORKQUEUE, Kind.REFCOUNT, Kind.ODEBUG,
    Kind.LIST, Kind.BAD_MODE, Kind.STACK_OVERFLOW, Kind.REPORT, Kind.HEADLESS, Kind.SWAP,
    Kind.IRQ, Kind.CSD_LOCK, Kind.HARDWARE, Kind.MEMORY_FAILURE,
}  # fmt: skip

ENDS_WITH_TRACE = {
    Kind.HUNG_TASK, Kind.WORKQUEUE, Kind.REPORT, Kind.LOCKDEP, Kind.HARDWARE, Kind.IRQ,
    Kind.CSD_LOCK,
}  # fmt: skip

WARNED = ["WARNING: CPU: 1 PID: 53 at mm/rmap.c:1277 __folio_set_anon+0x94/0xc8",
          *CPU, *REGISTERS, *TRACE, END]  # fmt: skip
BUG = [CUT, "kernel BUG at mm/mmap.c:353!",
       "Internal error: Oops - BUG: 00000000f2000800 [#1] SMP",
       *CPU, *REGISTERS, *TRACE, END]  # fmt: skip
# What stands directly above a report, and the report.
PREFACED: dict[str, tuple[list[str], list[str]]] = {
    # include/linux/mmdebug.h:VM_WARN_ON_FOLIO(): mm/debug.c:dump_page(), of a page of a large folio
    # of a file; mm/page_owner.c:__dump_page_owner()
    "folio": (
        ["page: refcount:3 mapcount:1 mapping:000000006b8b4567 index:0x200 pfn:0x41a01",
         "head: order:9 mapcount:512 entire_mapcount:0 nr_pages_mapped:512 pincount:0",
         "memcg:ffff000001cd0f00",
         'aops:shmem_aops ino:3 dentry name(?):"memfd:guest"',
         "flags: 0x8000000000004d(locked|referenced|uptodate|head|swapbacked|zone=0)",
         "raw: 008000000000004d fffffdffc0061e08 fffffdffc0061e48 ffff000002a18340",
         "head: 00fe000000000009 fffffdffc0068001 0000000000000000 00000000ffffffff",
         "page dumped because: VM_WARN_ON_FOLIO(folio_test_locked(folio))",
         "page_owner tracks the page as allocated",
         "page last allocated via order 9, migratetype Movable, gfp_mask 0x3d24ca(GFP_TRANSHUGE), "
         "pid 53, tgid 53 (kvm-guest), ts 3313881000, free_ts 2313881000",
         " post_alloc_hook+0x10c/0x128", " get_page_from_freelist+0x4c4/0x1098",
         "page_owner free stack trace missing",
         "page has been migrated, last migrate reason: compaction"],
        [CUT, *WARNED],
    ),
    # The same in 6.2; "cut here" is of another level, which a console may leave out
    "page-6.2": (
        ["page:00000000a8b3c1d2 refcount:0 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x41a",
         "anon flags: 0x80004(referenced|swapbacked|node=0|zone=0)",
         "raw: 0000000000080004 dead000000000100 dead000000000122 0000000000000000",
         "page dumped because: VM_BUG_ON_PAGE(page_ref_count(page) == 0)"],
        BUG[1:],
    ),
    "uninitialised": (
        ["page:00000000a8b3c1d2 is uninitialized and poisoned",
         "page dumped because: VM_BUG_ON_PAGE(1 && PageCompound(page))",
         "There is not page extension available. "],
        BUG,
    ),
    # mm/debug.c:dump_vma(), dump_mm()
    "vma": (
        ["vma ffff000001164850 start ffffa0000000 end ffffa0200000 mm ffff000001cd0f00",
         "prot 20000000000fc3 anon_vma 0000000000000000 vm_ops 0000000000000000",
         "pgoff ffffa0000 file 0000000000000000 private_data 0000000000000000",
         "flags: 0x100073(read|write|mayread|maywrite|mayexec|account)"],
        BUG,
    ),
    "mm": (
        ["mm ffff000001cd0f00 task_size 281474976710656", "mmap_base 281473376825344 mmap_legacy_b",
         "pgd ffff000002c01000 mm_users 2 mm_count 3 pgtables_bytes 57344 map_count 21",
         "hiwater_rss 1cd hiwater_vm 8ff total_vm 8ff locked_vm 0",
         "exe_file ffff000001e6ea40", "notifier_subscriptions ffff000001e6eb40",
         "tlb_flush_pending 0", "def_flags: 0x0()"],
        BUG,
    ),
    # lib/list_debug.c with CONFIG_BUG_ON_DATA_CORRUPTION, mm/usercopy.c:usercopy_abort()
    "list": (["list_del corruption, ffff000001cabd00->prev is NULL"], BUG),
    "usercopy": (
        ["usercopy: Kernel memory exposure attempt detected from SLUB object 'kmalloc-64' "
         "(offset 60, size 8)!"],
        BUG,
    ),
}  # fmt: skip


def log(lines: list[str], caller: str = "") -> list[str]:
    return [f"[   30.000001]{caller} {line}" for line in lines]


def find(lines: list[str]) -> tuple[Splat, ...]:
    return klog.splats("\n".join(lines) + "\n")


@pytest.mark.parametrize("caller", ["", "[   T53]", "[    C1]"])
@pytest.mark.parametrize("name", WRITTEN)
def test_it_is_found_with_exactly_its_lines(name: str, caller: str) -> None:
    kind, headline, lines = WRITTEN[name]
    around = log(["eth0: link up", *lines, "random: crng init done"], caller)
    (splat,) = find(around)
    assert splat.kind is kind
    assert splat.headline.startswith(headline)
    assert splat.text.split("\n") == around[1:-1]
    assert splat.complete
    assert splat.line == 2


@pytest.mark.parametrize("name", [name for name, case in WRITTEN.items() if len(case[2]) > 4])
def test_cut_within_it_is_found_all_the_same(name: str) -> None:
    """The console ends in the middle of a line, half way through the report."""
    kind, _, lines = WRITTEN[name]
    cut = log(lines[: len(lines) // 2])
    cut[-1] = cut[-1][: len(cut[-1]) * 2 // 3]
    (splat,) = find(cut)
    assert splat.kind is kind or splat.kind is Kind.WARN
    # Of these nothing tells where a trace ends but the line after it.
    assert not splat.complete or splat.kind in ENDS_WITH_TRACE


def named(splat: Splat) -> tuple[object, ...]:
    """What a report is called, and what it is told by from others."""
    told = (splat.kind, splat.headline, splat.message, splat.complete)
    return (*told, splats.key(splat), splats.site(splat), splats.frames(splat))


@pytest.mark.parametrize("caller", ["", "[   T53]", "[    C1]"])
@pytest.mark.parametrize("name", PREFACED)
def test_what_stands_directly_above_a_report_is_its_beginning(name: str, caller: str) -> None:
    above, report = PREFACED[name]
    around = log(["eth0: link up", *above, *report, "random: crng init done"], caller)
    (splat,) = find(around)
    assert splat.text.split("\n") == around[1:-1]
    assert splat.line == 2
    (bare,) = find(log(report, caller))
    assert named(splat) == named(bare)
    # Who had the page comes after those in whom the kernel died.
    suspects = splats.suspects(bare)
    assert splats.suspects(splat)[: len(suspects)] == suspects


@pytest.mark.parametrize("name", PREFACED)
def test_without_a_report_directly_below_it_is_dropped(name: str) -> None:
    above, report = PREFACED[name]
    assert find(log(above)) == find(log([*above, "eth0: link up"])) == ()
    (splat,) = find(log([*above, "eth0: link up", *report]))
    assert splat.text.split("\n") == log(report)
    stall = WRITTEN["hung-task-7.3"][2]
    (splat,) = find(log([*above, *stall]))
    assert splat.text.split("\n") == log(stall)


def test_of_two_dumps_the_last_belongs_to_the_report() -> None:
    above, report = PREFACED["folio"]
    (splat,) = find(log([*above, *above, *report]))
    assert splat.text.split("\n") == log([*above, *report])
    twisted = ["page does not match folio", *above]
    (splat,) = find(log([*above, *twisted, *report]))
    assert splat.text.split("\n") == log([*twisted, *report])


def test_with_callers_what_another_cpu_prints_between_does_not_part_them() -> None:
    above, report = PREFACED["folio"]
    ours, other = log([*above, *report], "[   T53]"), log(["eth0: up"] * 40, "[    C0]")
    (splat,) = find(alternate(ours, other))
    assert splat.text.split("\n") == ours


def test_two_cpus_whose_dumps_alternate_keep_their_own() -> None:
    one, other = ([*above, *report] for above, report in (PREFACED["folio"], PREFACED["vma"]))
    first, second = find(alternate(log(one, "[   T53]"), log(other, "[    C0]")))
    assert first.text.split("\n") == log(one, "[   T53]")
    assert second.text.split("\n") == log(other, "[    C0]")


def test_of_a_message_of_several_lines_dmesg_stamps_the_first() -> None:
    above, report = PREFACED["mm"]
    lines = [*log(above[:1]), *(" " * 15 + line for line in above[1:]), *log(report)]
    (splat,) = find(lines)
    assert splat.text.split("\n") == lines


def test_a_report_of_one_line_keeps_what_stands_above_it() -> None:
    lines = WRITTEN["hardware-error"][2]
    (splat,) = find(log(lines[:2]))
    assert splat.text.split("\n") == log(lines[:2])
    assert splat.complete


def test_a_dump_without_end_is_no_preface() -> None:
    above, report = PREFACED["folio"]
    many = [*above[:1], *["raw: 0000000000000004"] * (2 * klog.MAX_PREFACE_LINES)]
    (splat,) = find(log([*many, *report]))
    assert splat.text.split("\n") == log(report)


CORRECTED = [
    "{7}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 2",
    "{7}[Hardware Error]: It has been corrected by h/w and requires no further action",
    "{7}[Hardware Error]: event severity: corrected",
    "{7}[Hardware Error]:  Error 0, type: corrected",
    "{7}[Hardware Error]:   section_type: memory error",
]


def test_an_error_that_was_corrected_is_counted_and_no_report() -> None:
    lines = log([*CORRECTED, "EDAC MC0: 1 CE single-bit ECC on DIMM 3 (node:0 page:0x8812345)"])
    assert find(lines) == ()
    assert klog.corrected_errors("\r\n".join(lines)) == 2
    assert klog.corrected_errors("\n".join(log(WRITTEN["hardware-error"][2]))) == 0


def test_one_that_was_not_is_told_between_those_that_were() -> None:
    told = WRITTEN["hardware-error"][2]
    (splat,) = find(log([*CORRECTED, *told, *CORRECTED]))
    assert splat.text.split("\n") == log(told)
    assert splat.title == "{1}[Hardware Error]: event severity: recoverable: memory error"


def test_two_errors_of_the_machine_are_two() -> None:
    one = WRITTEN["hardware-error"][2]
    other = [line.replace("{1}", "{2}").replace("recoverable", "fatal") for line in one]
    panic = "Kernel panic - not syncing: GHES: Fatal hardware error"
    first, second, third = find(log([*one, *other, panic]))
    assert first.text.split("\n") == log(one)
    assert second.text.split("\n") == log(other)
    assert third.kind is Kind.PANIC


@pytest.mark.parametrize(
    "lines",
    [
        # drivers/acpi/apei/bert.c:bert_print_all(): of the boot before
        ["BERT: Error records from previous boot:", "[Hardware Error]: event severity: fatal",
         "[Hardware Error]:  Error 0, type: fatal"],
        ["{1}[Hardware Error]: Hardware error from APEI Generic Hardware Error Source: 2",
         "{1}[Hardware Error]: event severity: info"],
        # mm/madvise.c:madvise_inject_error(), mm/hwpoison-inject.c:hwpoison_inject()
        ["Injecting memory failure for pfn 0x41a at process virtual address 0xffffa0000000",
         *(line.replace("8812345", "41a") for line in WRITTEN["memory-failure"][2])],
        ["hwpoison: Injecting memory failure at pfn 0x41a",
         "Memory failure: 0x41a: recovery action for free buddy page: Recovered"],
        ["Unpoison: Software-unpoisoned page 0x41a"],
        ["Soft offline: 0x41a: page already poisoned"],
        ["Write-error on swap-device (252:0:4711)"],
        ["smp: csd: CSD lock (#1) got unstuck on CPU#01, CPU#00 released the lock."],
    ],
)  # fmt: skip
def test_a_machine_is_not_sick_by_these(lines: list[str]) -> None:
    assert find(log(lines)) == ()


def test_another_page_than_the_one_that_was_made_bad_is() -> None:
    asked = "Injecting memory failure for pfn 0x8812 at process virtual address 0xffffa0000000"
    (splat,) = find(log([asked, *WRITTEN["memory-failure"][2]]))
    assert splat.kind is Kind.MEMORY_FAILURE


def test_of_a_report_whose_beginning_was_overrun_the_end_is_found() -> None:
    rest = log([*REGISTERS[2:], *TRACE, END])
    (splat,) = find([*rest, *log(["random: crng init done"])])
    assert splat.kind is Kind.HEADLESS
    assert splat.text.split("\n") == rest
    assert not splat.complete


def test_the_end_of_a_report_that_was_found_is_no_second_one() -> None:
    lines = log(WRITTEN["refcount"][2])
    assert len(find([*lines, *log([END])])) == 1


def alternate(one: list[str], other: list[str]) -> list[str]:
    mixed = []
    for at in range(max(len(one), len(other))):
        mixed += one[at : at + 1] + other[at : at + 1]
    return mixed


def test_two_cpus_that_print_at_once_are_told_apart_by_their_callers() -> None:
    one = log(WRITTEN["refcount"][2], "[   T53]")
    other = log(WRITTEN["odebug"][2], "[    C0]")
    first, second = find(alternate(one, other))
    assert (first.kind, first.text.split("\n")) == (Kind.REFCOUNT, one)
    assert (second.kind, second.text.split("\n")) == (Kind.ODEBUG, other)
    assert first.complete and second.complete


def test_without_callers_both_are_found_and_neither_passes_for_whole() -> None:
    one, other = log(WRITTEN["warn-7.3"][2]), log(WRITTEN["hard-lockup"][2])
    found = find([*one[:6], *other[:4], *one[6:], *other[4:]])
    assert {Kind.REFCOUNT, Kind.HARD_LOCKUP} <= {splat.kind for splat in found}
    assert not found[0].complete


def test_what_another_cpu_prints_on_request_belongs_to_the_report() -> None:
    lines = log(WRITTEN["hard-lockup-7.3"][2], "[    C0]")
    at = next(i for i, line in enumerate(lines) if "NMI backtrace" in line)
    lines[at:] = [line.replace("[    C0]", "[    C1]") for line in lines[at:]]
    (splat,) = find(lines)
    assert splat.text.split("\n") == lines


def test_callers_without_end_are_bounded() -> None:
    heading = WRITTEN["refcount"][2][:3]
    many = [line for pid in range(500) for line in log(heading, f"[{f'T{pid}':>6}]")]
    assert len(find(many)) == 500


def test_short_of_memory_is_no_bug() -> None:
    lines = [
        "sh: page allocation failure: order:4, mode:0xdc0(GFP_KERNEL|__GFP_ZERO)",
        *CPU,
        *TRACE,
    ]
    assert find(log([*lines, "Mem-Info:"])) == ()


def test_what_follows_a_line_that_has_no_trace_is_not_swallowed() -> None:
    after = log([f"usb {n}: fine" for n in range(40)])
    (splat,) = find([*log(["BUG: arch is odd"]), *after])
    assert splat.text == log(["BUG: arch is odd"])[0]


def test_message_of_a_warning_is_in_its_title() -> None:
    for name in ("refcount", "warn-7.3"):
        (splat,) = find(log(WRITTEN[name][2]))
        assert splat.title.endswith(": refcount_t: underflow; use-after-free.")
