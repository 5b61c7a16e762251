# SPDX-License-Identifier: GPL-2.0-only
"""What checks expect of a host's user space, made on a machine of the lab.

On an emulated host its first process does the same (init.sh). Nothing here outlives the boot of
the kernel that is tested: mounts and settings go with it, files are in one folder that is removed.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from harness.errors import InfraError
from harness.hosts.bootargs import PANIC_SECONDS
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Shell
from harness.printable import printable

# What is said of one that cannot be had, before what it is: no word of a mount(8) begins so.
_LACKS = "kvm-harness lacks "
# Type and place; what is mounted there already, by systemd mostly, stays.
MOUNTS = (
    ("debugfs", "/sys/kernel/debug"),
    ("tracefs", "/sys/kernel/tracing"),
    ("cgroup2", "/sys/fs/cgroup"),
    ("hugetlbfs", "/dev/hugepages"),
    ("tmpfs", "/dev/shm"),
)
# The memory controller for groups of our own, below the root group.
_BELOW = "/sys/fs/cgroup/cgroup.subtree_control"
_CONTROLLER = f"""\
{{ grep -qw memory {_BELOW} || echo +memory > {_BELOW}; }} 2>/dev/null ||
	echo "{_LACKS}memory in cgroup2: $(grep ' cgroup .*[ ,]memory[ ,]' /proc/mounts)"
"""
# Where the kernel is locked down (kernel_lockdown(7)) there is no debugfs and no kprobe.
_LOCKDOWN = f"""\
l=$(grep -v '\\[none\\]' /sys/kernel/security/lockdown 2>/dev/null) &&
	echo "{_LACKS}a kernel that is not locked down: $l" || :"""
# What each may be for, and what to do.
_WHY = {
    "debugfs": "is debugfs= among `cmdline`, or CONFIG_DEBUG_FS_ALLOW_NONE in `fragments`?",
    "cgroup2": "is something else mounted there?",
    "memory": "have systemd take v2: `cmdline: [systemd.unified_cgroup_hierarchy=1]`",
    "a": "take lockdown= out of `cmdline`, or CONFIG_SECURITY_LOCKDOWN_LSM out of `fragments`",
}

# As the kernel was started: sysctl.d(5) of the machine may keep warnings off the console, as that
# of Ubuntu does, or leave a kernel that panicked where it is. NUMA balancing takes pages from stage
# 2, by the faults that it asks for and by migration, under checks that ask for exact sets. tuned(8)
# and sysctl.d(5) may let nobody have huge pages, or all shared memory, or whoever asks only if one
# is free, or nothing be swapped: these are Linux's defaults.
_HUGE = "/sys/kernel/mm/transparent_hugepage"
_SYSCTL = f"""\
echo 7 > /proc/sys/kernel/printk
echo {PANIC_SECONDS} > /proc/sys/kernel/panic
[ ! -e /proc/sys/kernel/numa_balancing ] || echo 0 > /proc/sys/kernel/numa_balancing
for a in enabled:madvise defrag:madvise shmem_enabled:never; do
	[ ! -e {_HUGE}/${{a%:*}} ] || echo ${{a#*:}} > {_HUGE}/${{a%:*}}
done
[ ! -e /proc/sys/vm/swappiness ] || echo 60 > /proc/sys/vm/swappiness"""

_UNLOAD = "! grep -qsx 1 /sys/kernel/kexec_loaded || kexec -u"


def prepare(shell: Shell, programs: dict[str, Path]) -> None:
    """Mount what is read, and put the programs where they are expected; InfraError says what fails.

    `programs` are as in Boot.
    """
    mounts = [_mount(kind, place) for kind, place in MOUNTS]
    script = "\n".join(["set -e", _SYSCTL, *mounts, _CONTROLLER, _LOCKDOWN])
    if lacks := lacking(shell.run(script).stdout):
        raise InfraError(f"checks cannot look at the kernel of the cell: {'; '.join(lacks)}")
    for path, local in programs.items():
        folder = f"/{path}".rpartition("/")[0]
        shell.run(f"mkdir -p {shlex.quote(folder)}")
        shell.put(local, f"/{path}", mode=0o755)


def lacking(text: str) -> tuple[str, ...]:
    """All that the script could not have, in words, each with what to do about it."""
    found = (one.removeprefix(_LACKS) for one in text.splitlines() if one.startswith(_LACKS))
    lacks = (printable(one[:300]).strip(" :") for one in found)
    return tuple(
        f"no {one} ({why})" if (why := _WHY.get(one.partition(" ")[0])) else f"no {one}"
        for one in lacks
    )


def clear(shell: Shell) -> None:
    """Remove what a cell has put on the machine, this one or one before that was killed.

    A kernel that is loaded goes too: the owner's next reboot would end in it (systemctl(1)).
    """
    shell.run(f"rm -rf {PROGRAMS}\n{_UNLOAD}")


def _mount(kind: str, place: str) -> str:
    there = f"grep -q '^[^ ]* {place} {kind} ' /proc/mounts"
    how = f"mkdir -p {place} 2>/dev/null || :; m=$(mount -t {kind} {kind} {place} 2>&1)"
    return f'{there} || {{ {how} || echo "{_LACKS}{kind} at {place}: $m"; }}'
