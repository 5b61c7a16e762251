# SPDX-License-Identifier: GPL-2.0-only
"""Which of the kernel's KVM selftests run on a host, and how.

Arguments make each fit an emulated host: little memory, few rounds, one guest mode. Where the CPU
is a real one there are others, for more of each. Those that measure time are judged by their
success alone, since an emulated host has no time of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.checks.hugetlb import OVERCOMMIT

FOLDER = "tools/testing/selftests/kvm"
"""Where a kernel's tree has them."""

# As the tests name them in their -h. The first is what they use where a mode is not asked for;
# 64 KiB pages of the guest make dirty_log_test, whose size is fixed at 1 GiB, touch 1/16 of it.
MODE_4K = "PA-bits:40, VA-bits:48, 4K pages"
MODE_64K = "PA-bits:40, VA-bits:48, 64K pages"


@dataclass(frozen=True)
class Needed:
    """A file that a kernel shows where it can do what a test needs."""

    path: str
    what: str


@dataclass(frozen=True)
class Excuse:
    """A failure that is the emulator's, by a regular expression that its whole output matches.

    It ends the test, so the check expects success up to there alone: `part` is a regular expression
    of what begins each part of the output, `parts` says which of them are not judged.
    """

    pattern: str
    why: str
    part: str
    parts: str


@dataclass(frozen=True)
class Shown:
    """What KVM must do while a test runs, and its function for it, the newest kernels' first."""

    what: str
    functions: tuple[str, ...]


@dataclass(frozen=True)
class Selftest:
    """One program of tools/testing/selftests/kvm, and one way to run it.

    `claim` is what its success stands for. `shown` is a regular expression that its output has
    once it did its work: several of them exit with 0 without that. `seconds` is its deadline with
    a plain kernel on an emulated host; five times and more what it took on a busy machine.
    """

    name: str
    claim: str
    shown: str
    seconds: float
    arguments: tuple[str, ...] = ()
    at_large: tuple[str, ...] | None = None
    """The arguments on a host with a real CPU, None for the same."""
    mode: str = ""
    """The guest mode that is asked for with -m, "" for the test's own choice."""
    before: str = ""
    """Its name in older trees."""
    needs: tuple[Needed, ...] = ()
    emulated: Excuse | None = None
    """What fails on an emulated host alone, if anything does."""
    huge_pages: int = 0
    """Pages of 2 MiB that hugetlb may take from the free memory for it."""
    kvm: Shown | None = None
    old_accesses: int = 0
    """Accesses that its guests make to pages that it made old before, 0 where that is not known."""

    def on(self, *, emulated: bool) -> Selftest:
        """The test as it is run on a host with such a CPU."""
        if emulated or self.at_large is None:
            return self
        return replace(self, arguments=self.at_large)

    @property
    def names(self) -> tuple[str, ...]:
        """Its names, the newest first."""
        return (self.name, self.before) if self.before else (self.name,)


# Arm ARM, ESR_ELx.WnR of a data abort: 0 for an atomic instruction if a read would have faulted.
# QEMU 7.2 sets it to 1, and KVM then refuses to write to a read-only slot before it reads the page.
_CAS_IS_A_WRITE = Excuse(
    r"Test: ro_memslot_no_syndrome_guest_cas\n(?:(?!Test: ).*\n)*uffd fault: .*\nDone\.\n"
    r"==== Test Assertion Failure ====\n"
    r".*test->expected_events\.uffd_faults == events\.uffd_faults\n(?:.*\n)*\s+0x2 != 0x1 ",
    "the emulated CPU reports the fault of a CAS as a write, though a read would have faulted",
    r"(?m)^Test: ",
    "ro_memslot_no_syndrome_guest_cas with userfaultfd and those after it",
)
_HUGETLB = Needed(OVERCOMMIT, "hugetlb pages of 2 MiB")
# Who puts a block in the place of a table frees the table.
_JOINS = Shown(
    "blocks were split and joined", ("stage2_free_unlinked_table", "stage2_free_removed_table")
)
# What main() prints when all phases are over, in mmu_stress_test.c of Linux 7.3-rc7, whose name and
# whose times of ro and rw are of 6.14; in max_guest_memory_test.c of 6.12 it is the first three.
_TIMES_OF_PHASES = (
    r"(?m)^run1 = [0-9.]+s, reset = [0-9.]+s, run2 = +[0-9.]+s(?:, ro = [0-9.]+s, rw = [0-9.]+s)?$"
)
_USERFAULTFD = Needed("/proc/sys/vm/unprivileged_userfaultfd", "userfaultfd (CONFIG_USERFAULTFD)")

SELFTESTS = (
    Selftest(
        "access_tracking_perf_test",
        "pages marked idle through page_idle are found idle, and can be read and written again",
        r"Reading from idle memory",
        60,
        # Fewer than 100 pages are too few for its own arithmetic: it fails with 0 of 64 lost.
        ("-b", "4M", "-v", "1"),
        mode=MODE_4K,
        # 1,024 pages are marked idle and written, then marked idle and read.
        old_accesses=2048,
    ),
    Selftest(
        "page_fault_test",
        "stage-2 faults on data and on the guest's own page tables: holes, userfaultfd, the dirty "
        "log, read-only slots; the guest's walker sets its AF",
        r"(?m)^Done\.$",
        150,
        mode=MODE_4K,
        needs=(_USERFAULTFD,),
        emulated=_CAS_IS_A_WRITE,
    ),
    Selftest(
        "demand_paging_test",
        "several vCPUs fault fresh memory in at once",
        r"Overall demand paging rate:\s*[1-9]",
        30,
        ("-b", "4M", "-v", "2"),
        ("-b", "64M", "-v", "4"),
        MODE_4K,
    ),
    Selftest(
        "dirty_log_test",
        "every page that the guest dirtied is in the dirty log, and a clean one is not",
        r"Total bits checked: dirty \([1-9]",
        300,
        # Each log mode fills 1 GiB anew, which takes 15 seconds.
        ("-M", "all", "-i", "4", "-I", "100"),
        ("-M", "all", "-i", "32", "-I", "10"),
        MODE_64K,
    ),
    Selftest(
        "dirty_log_perf_test",
        "several vCPUs write while memory is logged, the log is read and cleared",
        r"Get dirty log over [1-9]",
        60,
        ("-b", "4M", "-v", "2", "-i", "2"),
        ("-b", "64M", "-v", "4", "-i", "8"),
        MODE_4K,
    ),
    Selftest(
        "kvm_page_table_test",
        "blocks of stage 2 are made, split for the dirty log and joined again under running vCPUs",
        r"KVM_ADJUST_MAPPINGS: total execution time",
        60,
        # Of plain anonymous memory it splits and joins nothing: there are no blocks. Nor are there
        # of THP where a vCPU reads first: a write splits the huge page of zeroes.
        ("-b", "16M", "-v", "2", "-s", "anonymous_hugetlb_2mb"),
        ("-b", "512M", "-v", "4", "-s", "anonymous_hugetlb_2mb"),
        MODE_4K,
        needs=(_HUGETLB,),
        huge_pages=256,
        kvm=_JOINS,
    ),
    Selftest(
        "memslot_modification_stress_test",
        "vCPUs run on while a slot beside theirs comes and goes",
        r"All vCPU threads joined",
        40,
        ("-b", "4M", "-v", "2", "-i", "10"),
        ("-b", "64M", "-v", "4", "-i", "1000"),
        MODE_4K,
    ),
    Selftest(
        "memslot_perf_test",
        "a vCPU writes on while its memory is unmapped in chunks",
        r"Done [1-9]\d* iterations",
        50,
        # The others wait 10 seconds at most for what takes an emulated host about as long.
        ("-f", "2", "-e", "2", "-l", "1", "-s", "10"),
        ("-l", "1", "-s", "1000"),
    ),
    Selftest(
        "set_memory_region_test",
        "wrong memory regions are refused, and as many as KVM promises are accepted",
        r"Adding slots 0\.\.[1-9]",
        150,
    ),
    Selftest(
        "kvm_binary_stats_test",
        "the statistics of VMs and vCPUs can be read, also when the VM's fd is closed",
        r"ok 2 vm1",
        20,
        ("2", "2"),
    ),
    Selftest(
        "mmu_stress_test",
        "every page of a large guest is written, unmapped and made read-only under running vCPUs",
        _TIMES_OF_PHASES,
        150,
        # In GiB, and the least that it takes.
        ("-c", "1", "-m", "1", "-s", "1"),
        before="max_guest_memory_test",
    ),
)

LONGEST = max(test.seconds for test in SELFTESTS)
ALTOGETHER = sum(test.seconds for test in SELFTESTS)
