# SPDX-License-Identifier: GPL-2.0-only
"""Boot arguments of hosts (Documentation/admin-guide/kernel-parameters.txt)."""

from __future__ import annotations

from collections.abc import Sequence

# What a machine's own command line may say and a test kernel must not be told: what cells set
# themselves (isolcpus adds up), what keeps messages off the console, what takes from checks that
# they look by (debugfs, a controller, kprobes under lockdown), and what a boot loader adds.
# As _name() has them.
_NOT_KEPT = (
    *("kvm_arm.mode", "panic", "nohz_full", "isolcpus", "rcu_nocbs"),
    *("quiet", "splash", "loglevel", "console_suspend"),
    *("debugfs", "cgroup_disable", "lockdown"),
    *("BOOT_IMAGE", "initrd", "watchdog.stop_on_reboot"),
)
# What names one boot, or the disks and the network of one machine.
_NAMES_ONE = (
    *("BOOT_IMAGE", "BOOTIF", "initrd", "root", "boot", "nfsroot", "resume", "resume_offset"),
    *("cryptdevice", "zfs", "ostree", "ip", "ifname", "nameserver", "netroot", "ds"),
    "systemd.machine_id",
)
# How the harness's own marks begin, and those by which dracut's initramfs looks for disks.
_MARKS = ("kvm_harness.", "rd.")
LONGEST = 4096
"""Characters of a command line; arm64 has 2048 (COMMAND_LINE_SIZE)."""
# Seconds after a panic: long enough for the console to carry its trace out.
PANIC_SECONDS = 15
# A kernel that panics while it shuts down must not stay there either, whoever's it is. The setting
# goes with the boot, and one that cannot be made keeps no machine from it.
PANIC_ENDS = f"{{ echo {PANIC_SECONDS} > /proc/sys/kernel/panic; }} 2>/dev/null || :"


def tickless(last: int) -> tuple[str, ...]:
    """Keep the last CPU free of the tick and of kernel work, for a vCPU that never exits.

    `nohz` in isolcpus would be nohz_full once more. Linux 7.3 takes the two for different CPUs and
    drops the latter word as a whole (housekeeping_setup(), kernel/sched/isolation.c).
    """
    return (f"nohz_full={last}", f"isolcpus=domain,{last}", f"rcu_nocbs={last}")


def of_machine(own: str, asked: Sequence[str]) -> str:
    """The command line of a test kernel: the machine's own (root=, console= ...), then the cell's.

    After a panic the machine starts again, into its known-good kernel. `earlycon` alone finds what
    firmware names; a machine whose firmware names nothing says itself where it is.
    """
    kept = [word for word in own.split() if _name(word) not in _NOT_KEPT]
    early = [] if "earlycon" in map(_name, kept) else ["earlycon"]
    return " ".join([*kept, *early, f"panic={PANIC_SECONDS}", *asked])


def lasting(cmdline: str) -> str:
    """What a kernel was told, less what names this boot, or disks and network of this machine.

    These words differ where nothing else does: from boot to boot, and between machines that are
    alike.
    """
    return " ".join(
        word
        for word in cmdline.split()
        if _name(word) not in _NAMES_ONE and not word.startswith(_MARKS)
    )


def protected(cmdline: str) -> bool:
    """Whether a kernel was started in protected mode; of several words the last one counts.

    Its hypervisor keeps EL2, so that a kernel which comes by kexec has no KVM.
    """
    words = [word for word in cmdline.split() if _name(word) == "kvm_arm.mode"]
    return bool(words) and words[-1].partition("=")[2] == "protected"


def _name(word: str) -> str:
    """Of a parameter, with _ for each -: the kernel takes them as the same (kernel/params.c)."""
    return word.partition("=")[0].replace("-", "_")
