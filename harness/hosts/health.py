# SPDX-License-Identifier: GPL-2.0-only
"""Is a machine fit to be tested on, and is it as it was when it is given back?

One script asks for all, a pure function reads the answer, others judge it. Asked is the known-good
kernel: what a test kernel leaves of itself is for the checks to say.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from harness.errors import InfraError
from harness.hosts.protocols import Shell
from harness.observe import cpu_list
from harness.observe.errors import ObserveError
from harness.observe.vmstat import parse_meminfo
from harness.ranges import format_ranges

# By bit; the words follow the table of Documentation/admin-guide/tainted-kernels.rst (6.12).
TAINTS = (
    "proprietary module",
    "module force loaded",
    "out of specification system",
    "module force unloaded",
    "machine check exception",
    "bad page",
    "taint requested by user space",
    "kernel died recently (OOPS or BUG)",
    "ACPI table overridden by user",
    "kernel issued warning",
    "staging driver",
    "workaround for bug in platform firmware",
    "out-of-tree module",
    "unsigned module",
    "soft lockup",
    "live patched",
    "auxiliary taint of the distribution",
    "struct randomization plugin",
    "in-kernel test",
)
# After these nothing that the kernel does is sure: machine check, bad page, died, soft lockup.
SICK_TAINTS = frozenset({4, 5, 7, 14})

# What a run needs where it puts kernels and modules, and beside its guests; in bytes.
NEED_DISK = 1 << 30
NEED_MEMORY = 2 << 30
# A machine that is given back may have logged and cached this much; in bytes.
DISK_SLACK = 64 << 20
# And so much of its memory may be in use that was not, as a part of all.
MEMORY_SLACK = 0.05
# MemTotal is not the same in each boot; in bytes.
TOTAL_SLACK = 16 << 20
# Runnable tasks over a minute, from which on somebody is at work on the machine: one may be what
# asks. A build on a few of many CPUs disturbs as well, so it does not grow with their number.
BUSY = 1.5

# As /proc/PID/comm has them. Services that wait for work, such as packagekitd, are none of them.
INSTALLERS = frozenset(
    {"apt", "apt-get", "aptitude", "dpkg", "dnf", "dnf5", "yum", "rpm", "zypper"}
)

# What the fd of a VM is called in /proc/PID/fd (virt/kvm/kvm_main.c, kvm_dev_ioctl_create_vm()).
_VM = "anon_inode:kvm-vm"
_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Process:
    """A process of the machine."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})"


@dataclass(frozen=True)
class Health:
    """What a machine showed; sizes in bytes."""

    tainted: int
    """Bits of /proc/sys/kernel/tainted."""
    disk_free: int
    memory: int
    memory_available: int
    load: float
    """Tasks that run or wait for a disk, over the last minute."""
    cpus: tuple[int, ...]
    """The numbers of those that are online, rising."""
    vms: tuple[Process, ...]
    """Who holds a VM."""
    installers: tuple[Process, ...]
    """Who installs packages: a reboot in the middle leaves them half done."""
    users: tuple[str, ...]
    """Who is logged in at a terminal, in the words of who(1)."""
    failed_units: tuple[str, ...]
    """Of systemd; none where it does not run."""
    memory_bad: int = 0
    """What the kernel uses no more, since the hardware says that it is bad."""


def taints(bits: int) -> tuple[str, ...]:
    """The names of taint bits, lowest first."""
    names = dict(enumerate(TAINTS))
    set_bits = [bit for bit in range(bits.bit_length()) if bits >> bit & 1]
    return tuple(names.get(bit, f"unknown taint {bit}") for bit in set_bits)


# ---- asking -------------------------------------------------------------------------------------

# A folder of each process that may end meanwhile: what ls and grep say of that is no error.
PROBE = f"""
echo '== taint'; cat /proc/sys/kernel/tainted
echo '== disk'; stat -f -c '%a %S' /var 2>/dev/null || stat -f -c '%a %S' /
echo '== memory'; cat /proc/meminfo
echo '== load'; cat /proc/loadavg
echo '== cpus'; cat {cpu_list.ONLINE}
echo '== names'; grep . /proc/[0-9]*/comm 2>/dev/null
echo '== fds'; ls -l /proc/[0-9]*/fd 2>/dev/null | grep -e '^/proc/' -e '{_VM}'
echo '== users'; who 2>/dev/null
echo '== units'
[ ! -d /run/systemd/system ] || systemctl list-units --state=failed --plain --no-legend
echo '== end'"""


def examine(shell: Shell) -> Health:
    """Ask a machine; InfraError if its answer makes no sense."""
    return parse(shell.run(PROBE).stdout)


def parse(text: str) -> Health:
    """What PROBE printed; InfraError names the part that makes no sense."""
    head, *rest = re.split(r"^== (\w+)\n", text, flags=re.MULTILINE)
    names, bodies = rest[::2], rest[1::2]
    wanted = ["taint", "disk", "memory", "load", "cpus", "names", "fds", "users", "units", "end"]
    if head.strip() or names != wanted:
        raise InfraError(f"the host answered nonsense when asked for its health: {text[:200]!r}")
    parts = dict(zip(names, bodies, strict=True))
    memory, available, bad = _part("memory", parts, _memory)
    return Health(
        tainted=_part("taint", parts, _number),
        disk_free=_part("disk", parts, _free),
        memory=memory,
        memory_available=available,
        load=_part("load", parts, lambda body: float(_match(r"(\d{1,6}\.\d\d) .*", body))),
        cpus=_part("cpus", parts, _cpus),
        vms=_part("fds", parts, lambda body: _vms(body, parts["names"])),
        installers=_installers(parts["names"]),
        users=tuple(" ".join(line.split()) for line in parts["users"].splitlines()),
        failed_units=tuple(re.findall(r"^([\w@.\\:-]{1,255}) ", parts["units"], re.M | re.A)),
        memory_bad=bad,
    )


def _part(name: str, parts: Mapping[str, str], read: Callable[[str], _Value]) -> _Value:
    try:
        return read(parts[name])
    except (ValueError, KeyError, ObserveError) as exc:
        raise InfraError(
            f"the host answered nonsense when asked for its health ({name}): {parts[name][:200]!r}"
        ) from exc


def _match(pattern: str, body: str) -> str:
    found = re.fullmatch(pattern, body.strip(), re.ASCII)
    if found is None:
        raise ValueError(body)
    return found[1]


def _number(body: str) -> int:
    return int(_match(r"(\d{1,18})", body))


def _cpus(body: str) -> tuple[int, ...]:
    if not (found := cpu_list.parse(body, cpu_list.ONLINE)):
        raise ValueError(body)
    return found


def _memory(body: str) -> tuple[int, int, int]:
    values = parse_meminfo(body)
    # CONFIG_MEMORY_FAILURE has it.
    return values["MemTotal"], values["MemAvailable"], values.get("HardwareCorrupted", 0)


def _free(body: str) -> int:
    """Of stat(1): free blocks and their size. df(1) has nothing on a root that is a RAM disk."""
    found = re.fullmatch(r"(\d{1,18}) (\d{1,9})", body.strip(), re.ASCII)
    if found is None:
        raise ValueError(body)
    return int(found[1]) * int(found[2])


def _comm(names: str) -> dict[str, str]:
    return dict(re.findall(r"^/proc/(\d{1,9})/comm:(.{1,64})$", names, re.M | re.A))


def _installers(names: str) -> tuple[Process, ...]:
    found = _comm(names).items()
    return tuple(Process(int(pid), name) for pid, name in found if name in INSTALLERS)


def _vms(fds: str, names: str) -> tuple[Process, ...]:
    comm = _comm(names)
    pid = ""
    holders: list[str] = []
    for line in fds.splitlines():
        if found := re.match(r"/proc/(\d{1,9})/fd:$", line, re.ASCII):
            pid = found[1]
        elif line.endswith(f"-> {_VM}") and pid not in holders:
            if not pid:
                raise ValueError(line)
            holders.append(pid)
    return tuple(Process(int(pid), comm.get(pid, "?")) for pid in holders)


# ---- judging ------------------------------------------------------------------------------------


def sick(health: Health) -> tuple[str, ...]:
    """What must be mended on this machine before anything is tested on it."""
    reasons = []
    if bad := taints(health.tainted & sum(1 << bit for bit in SICK_TAINTS)):
        reasons.append(f"its kernel is tainted: {', '.join(bad)}")
    if health.disk_free < NEED_DISK:
        reasons.append(f"its disk has {_mib(health.disk_free)} free, {_mib(NEED_DISK)} are needed")
    if health.memory_bad:
        reasons.append(f"{health.memory_bad >> 10} KiB of its memory are bad")
    if not health.vms:
        reasons += _little_memory(health)
    return tuple(reasons)


def in_use(health: Health) -> tuple[str, ...]:
    """What somebody does on this machine, which a reboot would end and which disturbs results."""
    reasons = []
    if health.vms:
        reasons.append(f"it runs VMs: {', '.join(map(str, health.vms))}")
        # Theirs, most likely: it comes back with their end.
        reasons += _little_memory(health)
    if health.installers:
        reasons.append(f"packages are being installed: {', '.join(map(str, health.installers))}")
    if health.load > BUSY:
        reasons.append(f"it is busy: load {health.load:.2f}")
    return tuple(reasons)


def _little_memory(health: Health) -> list[str]:
    if health.memory_available >= NEED_MEMORY:
        return []
    left, needed = _mib(health.memory_available), _mib(NEED_MEMORY)
    return [f"it has {left} of memory left, {needed} are needed"]


def remarks(health: Health) -> tuple[str, ...]:
    """What a reader of the results should know of a machine that is fit."""
    other = health.tainted & ~sum(1 << bit for bit in SICK_TAINTS)
    said = [f"its kernel is tainted: {', '.join(taints(other))}"] if other else []
    if health.users:
        said.append(f"logged in: {'; '.join(health.users)}")
    if health.failed_units:
        said.append(f"failed units: {', '.join(health.failed_units)}")
    return tuple(said)


def left_behind(before: Health, after: Health) -> tuple[str, ...]:
    """What is not as it was before the run, both times in the known-good kernel."""
    found = []
    if new := taints(after.tainted & ~before.tainted):
        found.append(f"new taints: {', '.join(new)}")
    if after.disk_free < before.disk_free - DISK_SLACK:
        found.append(f"{_mib(before.disk_free - after.disk_free)} of disk are gone")
    if after.memory < before.memory - TOTAL_SLACK:
        found.append(f"{_mib(before.memory - after.memory)} of memory are not there any more")
    used = before.memory_available - after.memory_available
    if used > MEMORY_SLACK * before.memory:
        found.append(f"{_mib(used)} more of memory are in use")
    if new_vms := [str(vm) for vm in after.vms if vm not in before.vms]:
        found.append(f"VMs run: {', '.join(new_vms)}")
    if failed := [unit for unit in after.failed_units if unit not in before.failed_units]:
        found.append(f"units failed: {', '.join(failed)}")
    if gone := set(before.cpus).difference(after.cpus):
        found.append(f"CPUs are not online any more: {format_ranges(gone)}")
    return tuple(found)


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"
