# SPDX-License-Identifier: GPL-2.0-only
"""The words with which an arm64 kernel says that something went wrong, and who prints them.

They are those of Linux 6.12; where 6.2 or 7.3 word it otherwise, that stands beside. A line that
does not *begin* with a signature's words does not match: what user space writes to /dev/kmsg has
its program's name before it. "page allocation failure" (warn_alloc()) is none: memory was short.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a splat reports."""

    WARN = "warn"
    ODEBUG = "odebug"
    REFCOUNT = "refcount"
    LIST = "list-corruption"
    BUG = "bug"
    OOPS = "oops"
    EXTERNAL_ABORT = "external-abort"
    SERROR = "serror"
    BAD_MODE = "bad-mode"
    STACK_OVERFLOW = "stack-overflow"
    PANIC = "panic"
    HYP_PANIC = "hyp-panic"
    RCU_STALL = "rcu-stall"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    HUNG_TASK = "hung-task"
    WORKQUEUE = "workqueue-lockup"
    LOCKDEP = "lockdep"
    ATOMIC_SLEEP = "atomic-sleep"
    KASAN = "kasan"
    KFENCE = "kfence"
    UBSAN = "ubsan"
    BAD_PAGE = "bad-page"
    PAGE_POISON = "page-poison"
    SLAB = "slab"
    """What SLUB found wrong with objects or slabs of a cache."""
    SWAP = "swap"
    """What was swapped out is not there any more, or not what it was."""
    IRQ = "irq"
    CSD_LOCK = "csd-lock"
    """A CPU does not do what another has asked it for by an interrupt."""
    HARDWARE = "hardware-error"
    """What the firmware has told of an error that nothing has corrected."""
    MEMORY_FAILURE = "memory-failure"
    """A page whose memory is bad."""
    REPORT = "report"
    """A line that begins with "BUG: " and is none of the others, or says as much in other words."""
    HEADLESS = "headless"
    """The end of a report whose beginning is lost: the log was overrun, or cut."""


# Kinds that tell of the machine, and not of the kernel that runs on it.
OF_THE_MACHINE = frozenset({Kind.HARDWARE, Kind.MEMORY_FAILURE})

CUT_HERE = "------------[ cut here ]------------"
PANIC = "Kernel panic - not syncing: "

# Tried in this order; the first that matches the start of a line names the splat.
_SIGNATURES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    # kernel/panic.c:__warn()
    (Kind.WARN, re.compile(r"WARNING: CPU: [0-9]{1,5} PID: [0-9]{1,10} at ")),
    # The same in 7.3
    (Kind.WARN, re.compile(r"WARNING: (?:\S{1,300}:[0-9]{1,7} )?at \S{1,300}, CPU#[0-9]{1,5}: ")),
    # lib/bug.c:report_bug()
    (Kind.BUG, re.compile(r"kernel BUG at .{1,300}!")),
    (Kind.BUG, re.compile(r"Kernel BUG at \S{1,300} \[verbose debug info unavailable\]")),
    # arch/arm64/mm/fault.c:die_kernel_fault()
    (Kind.OOPS, re.compile(r"Unable to handle kernel ")),
    # arch/arm64/kernel/traps.c:__die(); the words for an external abort are fault.c:do_sea()'s
    (Kind.EXTERNAL_ABORT, re.compile(r"Internal error: synchronous external abort: ")),
    (Kind.OOPS, re.compile(r"Internal error: .{1,200}: [0-9a-f]{16} \[#[0-9]{1,6}\]")),
    # traps.c:arm64_serror_panic(), panic_bad_stack()
    (Kind.SERROR, re.compile(r"SError Interrupt on CPU[0-9]{1,5}, code 0x")),
    (Kind.STACK_OVERFLOW, re.compile(r"Insufficient stack space to handle exception!")),
    # arch/arm64/kernel/entry-common.c:__panic_unhandled(); until 5.12 traps.c:bad_mode()
    (Kind.BAD_MODE, re.compile(r"Unhandled .{1,60} exception on CPU[0-9]{1,5}, ESR 0x")),
    (Kind.BAD_MODE, re.compile(r"Bad mode in .{1,60} handler detected on CPU[0-9]{1,5}, ")),
    # arch/arm64/kvm/handle_exit.c:nvhe_hyp_panic_handler(). What is said to have happened is
    # "panic", "BUG", "CFI failure", in 7.3 also what UBSAN found.
    (
        Kind.HYP_PANIC,
        re.compile(
            r"kvm \[[0-9]{1,10}\]: "
            r"(?:nVHE hyp [A-Za-z :_-]{1,60} at: |Invalid host exception to nVHE hyp!)"
        ),
    ),
    # kernel/panic.c:panic()
    (Kind.PANIC, re.compile(re.escape(PANIC))),
    # kernel/rcu/tree_stall.h:print_other_cpu_stall(), print_cpu_stall(), check_cpu_stall();
    # tree_exp.h:synchronize_rcu_expedited_stall()
    (
        Kind.RCU_STALL,
        re.compile(
            r"rcu: INFO: [a-z_]{1,40} (?:self-)?detected (?:expedited )?stalls?"
            r"(?: on CPU|, but suppressed full report)"
        ),
    ),
    # kernel/rcu/tasks.h, which has no "rcu: " before its messages
    (
        Kind.RCU_STALL,
        re.compile(r"INFO: rcu_tasks(?:_[a-z]{1,20})? detected stalls(?: on tasks:|\? )"),
    ),
    # kernel/watchdog.c:watchdog_timer_fn()
    (Kind.SOFT_LOCKUP, re.compile(r"watchdog: BUG: soft lockup - CPU#[0-9]{1,5} stuck for ")),
    # watchdog.c:watchdog_hardlockup_check(); 6.2: watchdog_hld.c:watchdog_overflow_callback()
    (
        Kind.HARD_LOCKUP,
        re.compile(r"(?:NMI )?watchdog: (?:CPU[0-9]{1,5}: )?Watchdog detected hard LOCKUP on cpu "),
    ),
    # kernel/hung_task.c:check_hung_task(), in 7.3 hung_task_info() ("blocked in I/O wait for")
    (
        Kind.HUNG_TASK,
        re.compile(r"INFO: task .{1,40} blocked(?: in I/O wait)? for more than [0-9]{1,10} sec"),
    ),
    # kernel/workqueue.c:wq_watchdog_timer_fn()
    (Kind.WORKQUEUE, re.compile(r"BUG: workqueue lockup - pool")),
    # kernel/sched/core.c:__might_resched(), __schedule_bug(), __cant_sleep() and their like
    (Kind.ATOMIC_SLEEP, re.compile(r"BUG: sleeping function called from invalid context at ")),
    (
        Kind.ATOMIC_SLEEP,
        re.compile(r"BUG: scheduling (?:while atomic|in a non-blocking section): "),
    ),
    (Kind.ATOMIC_SLEEP, re.compile(r"BUG: assuming (?:atomic|non migratable) context at ")),
    # mm/kasan/report.c:print_error_description(), mm/kfence/report.c:kfence_report_error()
    (Kind.KASAN, re.compile(r"BUG: KASAN: ")),
    (Kind.KFENCE, re.compile(r"BUG: KFENCE: ")),
    # lib/ubsan.c:ubsan_prologue()
    (Kind.UBSAN, re.compile(r"UBSAN: .{1,100} in .{1,300}:[0-9]{1,7}:[0-9]{1,7}")),
    # mm/page_alloc.c:bad_page(), mm/memory.c:print_bad_pte(),
    # mm/filemap.c:filemap_unaccount_folio(), kernel/fork.c:check_mm()
    (Kind.BAD_PAGE, re.compile(r"BUG: Bad (?:page state|page map|page cache|rss-counter state)\b")),
    # arch/arm64/include/asm/pgtable.h:pte_ERROR(), pmd_ERROR() ...
    (Kind.BAD_PAGE, re.compile(r"\S{1,300}:[0-9]{1,7}: bad (?:pte|p[mu4g]d) [0-9a-f]{16}\.")),
    # kernel/locking/lockdep.c:print_lockdep_off() and what it has found too little of;
    # look_up_lock_class(), lockdep_init_map_type()
    (Kind.LOCKDEP, re.compile(r"BUG: MAX_\w{1,60} too low!")),
    (
        Kind.LOCKDEP,
        re.compile(r"BUG: (?:looking up invalid subclass: |key \S{1,20} has not been )"),
    ),
    # mm/page_poison.c:check_poison_mem()
    (Kind.PAGE_POISON, re.compile(r"pagealloc: (?:single bit error|memory corruption)")),
    # mm/slub.c:__slab_bug(), until 6.12 slab_bug(); the rest depends on what is wrong
    (Kind.SLAB, re.compile(r"BUG \S{1,200} \((?:Not tainted|Tainted: [^)]{1,200})\): ")),
    # mm/swapfile.c:_swap_info_get(), get_swap_device(), __swap_duplicate(); a free entry in use,
    # or one that cannot be
    (
        Kind.SWAP,
        re.compile(r"(?:\w{1,60}: )?(?:Bad|Unused) swap (?:file|offset) entry [0-9a-f]{8,16}$"),
    ),
    # drivers/block/zram/zram_drv.c:zram_read_page(), in 7.3 also mm/zswap.c:zswap_decompress();
    # mm/zsmalloc.c:zs_destroy_pool(). Where they keep what was swapped out is memory like other.
    (Kind.SWAP, re.compile(r"zram: Decompression failed! err=|zswap: Decompression error from ")),
    (Kind.SWAP, re.compile(r"zsmalloc: Class-[0-9]{1,10} fullness group [0-9]{1,5} is not empty")),
    # kernel/irq/spurious.c:__report_bad_irq()
    (Kind.IRQ, re.compile(r"irq (?:[0-9]{1,10}: nobody cared|event [0-9]{1,10}: bogus return )")),
    # kernel/smp.c:csd_lock_wait_toolong(); one that goes on ("Continued") is told without a trace
    (Kind.CSD_LOCK, re.compile(r"smp: csd: Detected non-responsive CSD lock ")),
    # drivers/firmware/efi/cper.c:cper_estatus_print(), for drivers/acpi/apei/ghes.c; what BERT
    # repeats of an earlier boot has no number. drivers/edac/edac_mc.c:edac_ue_error()
    (
        Kind.HARDWARE,
        re.compile(
            r"\{[0-9]{1,10}\}\[Hardware Error\]: event severity: (?!(?:corrected|info)$)"
            r"|EDAC MC[0-9]{1,5}: [0-9]{1,10} UE "
        ),
    ),
    # mm/memory-failure.c:action_result(), kill_proc() and their like
    (Kind.MEMORY_FAILURE, re.compile(r"Memory failure: 0x[0-9a-f]{1,16}: ")),
    # arch/arm64/kvm/mmu.c:kvm_handle_guest_abort(), kvm_init_stage2_mmu()
    (
        Kind.REPORT,
        re.compile(r"kvm \[[0-9]{1,10}\]: (?:Unsupported FSC: |kvm_arch already initialized\?)"),
    ),
    # arch/arm64/kernel/debug-monitors.c:single_step_handler(), smp.c:do_handle_IPI()
    (
        Kind.REPORT,
        re.compile(
            r"Unexpected kernel single-step exception at EL1"
            r"|CPU[0-9]{1,5}: Unknown IPI message 0x"
        ),
    ),
    # kernel/softirq.c:handle_softirqs(), sched/idle.c:dequeue_task_idle(),
    # time/timer.c:schedule_timeout(), exit.c:make_task_dead(), rcu/tree.c:__call_rcu_common()
    (
        Kind.REPORT,
        re.compile(
            r"softirq: huh, entered softirq |bad: scheduling from the idle thread!"
            r"|schedule_timeout: wrong timeout value |Fixing recursive fault but reboot is needed!"
            r"|rcu: \w{1,60}\(\): Double-freed CB "
        ),
    ),
    # lockdep.c:register_lock_class(): a lock that was never initialised
    (Kind.LOCKDEP, re.compile(r"INFO: trying to register non-static key\.")),
    (Kind.REPORT, re.compile(r"BUG: ")),
)

# What a warning below "cut here" is about: lib/debugobjects.c:debug_print_object(),
# lib/refcount.c:refcount_warn_saturate(), lib/list_debug.c (CHECK_DATA_CORRUPTION()).
_MESSAGES: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (Kind.ODEBUG, re.compile(r"ODEBUG: ")),
    (Kind.REFCOUNT, re.compile(r"refcount_t: ")),
    (Kind.LIST, re.compile(r"list_(?:add|del) (?:corruption|double add)")),
)

# "=====" above a report: lockdep's and RCU's have 22 signs or more, KASAN's and KFENCE's 66,
# UBSAN's until 6.3 80 ...
_RULER = re.compile(r"={20,100}")
# ... and what stands below it where no signature does. lockdep.c and kernel/rcu/update.c have
# twenty such headings, each printed below a ruler and nowhere else.
_BELOW_RULER = re.compile(r"WARNING: |\[ BUG: ")

# Reports that are one line and no trace: kernel/fork.c:check_mm(), bad_page() and print_bad_pte()
# where they were too many, kernel/sched/topology.c, arch/arm64/mm/mmu.c, pte_ERROR().
_ONE_LINE = re.compile(
    r"BUG: (?:Bad rss-counter state |Bad page (?:state|map): [0-9]+ messages suppressed"
    r"|non-zero pgtables_bytes |arch topology borken|not (?:creating|updating) mapping for )"
    r"|\S{1,300}:[0-9]{1,7}: bad (?:pte|p[mu4g]d) "
    r"|(?:\w{1,60}: )?(?:Bad|Unused) swap (?:file|offset) entry |zram: |zswap: |zsmalloc: "
    r"|EDAC |kvm \[[0-9]{1,10}\]: (?:Unsupported FSC|kvm_arch)|Unexpected kernel single-step "
    r"|CPU[0-9]{1,5}: Unknown IPI |softirq: huh, |Fixing recursive fault |rcu: \w{1,60}\(\): "
)
# Stalls that are told without a call trace.
_NO_TRACE = re.compile(r".*(?:, but suppressed full report | detected stalls\? )")

_HARDWARE = r"\{[0-9]{1,10}\}\[Hardware Error\]: "
_CORRECTED = re.compile(
    rf"{_HARDWARE}event severity: corrected$|EDAC MC[0-9]{{1,5}}: [0-9]{{1,10}} CE "
)
_INJECTED = re.compile(
    r"(?:\w{1,60}: )?Injecting memory failure (?:for|at) pfn (?P<pfn>0x[0-9a-f]{1,16})\b"
)
_PFN = re.compile(r"Memory failure: (?P<pfn>0x[0-9a-f]{1,16}): ")


@dataclass(frozen=True)
class Preface:
    """What is printed directly above a report, and belongs to it."""

    first: re.Pattern[str]
    more: re.Pattern[str]
    report: re.Pattern[str]
    """What the report begins with."""


_DIES = re.compile(
    rf"{re.escape(CUT_HERE)}|[Kk]ernel BUG at |Unable to handle kernel |Internal error: "
)
_PREFACES = (
    # mm/debug.c:dump_page(), for VM_BUG_ON_PAGE() and its like (include/linux/mmdebug.h), with what
    # fs/inode.c:dump_mapping() and mm/page_owner.c:__dump_page_owner() add; 6.2 has the page's
    # address and other words for the rest of a large one
    Preface(
        re.compile(
            r"page:(?:\S{1,20})? refcount:|page:\S{1,20} is uninitialized and poisoned"
            r"|page does not match folio$"
        ),
        re.compile(
            r"head:|memcg:|invalid mapping:|aops:|(?:anon |ksm )?flags: "
            r"|page_type: |raw: |page dumped because: |page_owner |page last (?:allocated|free) "
            r"|page has been migrated, |There is not page extension available\. "
            r"| [A-Za-z_][\w.$]{0,200}\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}(?: |$)"
        ),
        _DIES,
    ),
    # mm/debug.c:dump_vma(), dump_mm()
    Preface(
        re.compile(r"vma [0-9a-f]{16} start |mm [0-9a-f]{16} task_size "),
        re.compile(
            r"prot |pgoff |refcnt |(?:def_)?flags: |mmap_base |pgd |hiwater_rss |pinned_vm "
            r"|start_code |start_brk |arg_start |binfmt |ioctx_table |owner |exe_file "
            r"|notifier_subscriptions |numa_next_scan |tlb_flush_pending "
        ),
        _DIES,
    ),
    # lib/list_debug.c with CONFIG_BUG_ON_DATA_CORRUPTION; mm/usercopy.c:usercopy_abort()
    Preface(
        re.compile(
            r"list_(?:add|del) (?:corruption|double add)"
            r"|usercopy: Kernel memory (?:exposure|overwrite) attempt "
        ),
        re.compile(r"(?!)"),
        _DIES,
    ),
    # drivers/acpi/apei/ghes.c:__ghes_print_estatus()
    Preface(
        re.compile(rf"{_HARDWARE}Hardware error from "),
        re.compile(rf"{_HARDWARE}(?!Hardware error from )"),
        re.compile(rf"{_HARDWARE}event severity: "),
    ),
)


def preface(text: str) -> Preface | None:
    """What a line begins that belongs to a report, if that follows."""
    return next((one for one in _PREFACES if one.first.match(text)), None)


def classify(text: str) -> Kind | None:
    """What a line begins to report, None if it is no signature."""
    return next((kind for kind, pattern in _SIGNATURES if pattern.match(text)), None)


def message_kind(text: str) -> Kind | None:
    """What a warning is about whose message this is, None if it is about nothing special."""
    return next((kind for kind, pattern in _MESSAGES if pattern.match(text)), None)


def is_ruler(text: str) -> bool:
    """Whether a line is nothing but signs of equality."""
    return _RULER.fullmatch(text) is not None


def below_ruler(text: str) -> Kind | None:
    """What a line below a ruler begins to report."""
    if (kind := classify(text)) is not None:
        return kind
    return Kind.LOCKDEP if _BELOW_RULER.match(text) else None


def is_one_line(text: str) -> bool:
    """Whether a signature's line is all of its report."""
    return _ONE_LINE.match(text) is not None


def corrected(text: str) -> bool:
    """Whether a line tells of an error of the machine that was corrected."""
    return _CORRECTED.match(text) is not None


def injected(text: str) -> str | None:
    """The page that a program has asked the kernel to take for bad, None if a line tells none.

    mm/madvise.c:madvise_inject_error(), mm/hwpoison-inject.c:hwpoison_inject().
    """
    match = _INJECTED.match(text)
    return None if match is None else match["pfn"]


def bad_page_frame(text: str) -> str | None:
    """The page that a line of mm/memory-failure.c is about."""
    match = _PFN.match(text)
    return None if match is None else match["pfn"]


def has_no_trace(text: str) -> bool:
    """Whether a stall is told without a call trace."""
    return _NO_TRACE.match(text) is not None
