# SPDX-License-Identifier: GPL-2.0-only
"""Is a machine of the lab fit for test kernels? All that is missing at once, and how to get it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from harness.hosts import cgroups
from harness.hosts.bootargs import protected
from harness.hosts.machine import MARK
from harness.hosts.probe import BUILD_TOOLS, MODULE_TOOLS, TOOLS, Survey
from harness.inventory import SshHost
from harness.kernel.config import PAGE_KIB
from harness.printable import printable

FREE_MIB = 1024
# A source of Linux, and a build folder with a distribution's drivers.
BUILD_MIB = 10 * 1024
CLOCK_SECONDS = 60.0
# Whose packages and boot files are known, by os-release's ID or ID_LIKE.
INSTALL = {"debian": "apt-get install", "fedora": "dnf install", "rhel": "dnf install"}

PROTECTED = (
    "its own kernel runs in protected mode, and one that comes by kexec from there has no KVM: "
    "take kvm-arm.mode=protected off its command line, or say `boot: grub`"
)

HARDWARE = "hardware"

Mark = Literal["ok", "missing", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. What is `missing` keeps the harness off; a `note` does not."""

    mark: Mark
    what: str
    words: str

    def __str__(self) -> str:
        """As it is shown; the host chose some of its words."""
        return printable(f"{self.mark:8} {self.what}: {self.words}")


def judge(seen: Survey, host: SshHost) -> tuple[Finding, ...]:
    """What `seen` means for a host that the inventory describes as `host`."""
    return (
        *_machine(seen),
        _hardware(seen),
        _root(seen, host),
        _distribution(seen),
        _disk(seen, host),
        *(_kexec(seen) if host.boot == "kexec" else _unlocked(seen)),
        *_reboot(seen),
        _cgroups(seen, host),
        *_selinux(seen, host),
        *_pages(seen),
        *_console(seen, host),
        _power(host),
        _clock(seen),
        _tools(seen, host),
    )


def lacking(findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
    """What of it keeps the harness off the machine."""
    return tuple(one for one in findings if one.mark == "missing")


def insisting(findings: tuple[Finding, ...], what: str) -> tuple[Finding, ...]:
    """The same for whom a note on `what` is not enough."""
    return tuple(
        replace(one, mark="missing") if (one.mark, one.what) == ("note", what) else one
        for one in findings
    )


def _either(fine: bool, what: str, good: str, bad: str) -> Finding:
    return Finding("ok", what, good) if fine else Finding("missing", what, bad)


def _machine(seen: Survey) -> Iterator[Finding]:
    arm64 = seen.machine == "aarch64"
    yield _either(arm64, "architecture", seen.machine, f"{seen.machine}, needed is aarch64")
    yield _either(
        seen.kvm,
        "/dev/kvm",
        f"Linux {seen.release} has it",
        f"Linux {seen.release} has none that can be used",
    )
    words = {
        "EL1": "the firmware starts Linux at EL1, so KVM is impossible; on EC2, take a .metal size",
        "mixed": "the firmware starts the CPUs at different exception levels",
        None: "no log says whether the firmware starts Linux at EL2",
    }
    # KVM for arm64 does not come up without EL2, whatever is left of the log.
    if seen.level == "EL2" or (seen.kvm and arm64 and seen.level is None):
        yield Finding("ok", "EL2", "Linux was started at EL2")
    else:
        yield Finding("missing", "EL2", words[seen.level])


def _hardware(seen: Survey) -> Finding:
    """Checks are the same on both, so it keeps nobody off."""
    if seen.emulator:
        words = f"emulated by {seen.emulator}; times that are measured there are no results"
        return Finding("note", HARDWARE, words)
    return Finding("ok", HARDWARE, "nothing names a hypervisor")


def _root(seen: Survey, host: SshHost) -> Finding:
    if seen.root:
        return Finding("ok", "root", "by login" if host.user == "root" else "by sudo -n")
    why = f" ({seen.sudo_words})" if seen.sudo_words else ""
    return Finding("missing", "root", f"`sudo -n` gives {host.user} none{why}; allow NOPASSWD")


def _family(seen: Survey) -> str | None:
    """The first of ID and ID_LIKE whose packages are known."""
    names = [seen.os.get("ID", ""), *seen.os.get("ID_LIKE", "").split()]
    return next((name for name in names if name in INSTALL), None)


def _distribution(seen: Survey) -> Finding:
    name = seen.os.get("PRETTY_NAME") or seen.os.get("ID") or "unknown"
    known = ", ".join(INSTALL)
    return _either(
        _family(seen) is not None,
        "distribution",
        name,
        f"{name} is none like {known}",
    )


def _disk(seen: Survey, host: SshHost) -> Finding:
    if seen.free_kib is None:
        return Finding("missing", "disk", "df does not say how much is free")
    free = seen.free_kib >> 10
    need = BUILD_MIB if host.build == "on-host" else FREE_MIB
    return _either(free >= need, "disk", f"{free} MiB free", f"{free} MiB free, {need} needed")


def _kexec(seen: Survey) -> Iterator[Finding]:
    family = _family(seen)
    how = f": {INSTALL[family]} kexec-tools" if family else ""
    yield _either(seen.kexec, "kexec program", "kexec-tools", f"no kexec on PATH{how}")
    problems = [*_no_kexec(seen), *_signed(seen)]
    if not problems:
        yield Finding("ok", "kexec", f"Linux {seen.release} has it")
    yield from (Finding("missing", "kexec", words) for words in problems)


def _no_kexec(seen: Survey) -> Iterator[str]:
    if seen.kexec_disabled:
        yield "switched off until the next boot (/proc/sys/kernel/kexec_load_disabled)"
    if protected(seen.cmdline) and MARK not in seen.cmdline:
        # One of ours is left before anything else, by way of the firmware.
        yield PROTECTED
    if not seen.kexec_syscall and not seen.config & {"CONFIG_KEXEC", "CONFIG_KEXEC_FILE"}:
        yield f"Linux {seen.release} has neither CONFIG_KEXEC nor CONFIG_KEXEC_FILE"


def _signed(seen: Survey) -> Iterator[str]:
    """Why it takes signed kernels alone: kernel_lockdown(7), and IMA's rules under Secure Boot."""
    boot = "disable Secure Boot in the firmware's setup"
    if seen.lockdown:
        how = boot if seen.secure_boot else f"take lockdown= off its command line, or {boot}"
        yield (
            f"the kernel is locked down ({seen.lockdown}; Secure Boot, mostly): it takes no "
            f"unsigned kernel; {how}"
        )
    elif seen.secure_boot and "CONFIG_IMA_ARCH_POLICY" in seen.config:
        yield f"Secure Boot is on, and its kernel asks for signatures then (IMA): {boot}"
    elif "CONFIG_KEXEC_SIG_FORCE" in seen.config and "CONFIG_KEXEC" not in seen.config:
        yield (
            "its kernel takes signed kernels alone (CONFIG_KEXEC_SIG_FORCE, and no CONFIG_KEXEC): "
            "have it start another kernel of its own, or say `boot: grub`"
        )


def _unlocked(seen: Survey) -> Iterator[Finding]:
    """What GRUB is, examine() asks; under Secure Boot it starts signed kernels alone."""
    if seen.lockdown:
        problem = "the kernel is locked down (Secure Boot, mostly): GRUB starts no unsigned one"
    elif seen.secure_boot:
        problem = "it is on, so GRUB starts no unsigned kernel"
    else:
        return
    yield Finding("missing", "Secure Boot", f"{problem}; disable it in the firmware's setup")


def _reboot(seen: Survey) -> Iterator[Finding]:
    """Debian's kexec-tools of 2022 to 2024, and those of Ubuntu from then (Debian bug 1028416)."""
    mask = "`systemctl mask kexec.service`, as later packages have it"
    if seen.kexec_script and seen.kexec_reboots:
        words = (
            "it goes by kexec, with the command line of the kernel that ends, and never reaches "
            f"the firmware (LOAD_KEXEC=true in /etc/default/kexec): {mask}"
        )
        yield Finding("missing", "reboot", words)
    elif seen.kexec_script:
        words = f"/etc/init.d/kexec jumps before file systems are unmounted: {mask}"
        yield Finding("note", "reboot", words)


def _cgroups(seen: Survey, host: SshHost) -> Finding:
    what, there = "cgroup v2", seen.memory
    if not there.v1:
        return Finding("ok", what, "has memory" if there.v2 else "memory is free for it")
    if cgroups.moved(host.cmdline):
        words = "its own kernel has memory in v1; the inventory's cmdline gives test kernels v2"
        return Finding("ok", what, f"{words} (not tried)")
    words = (
        f"memory is in v1 ({there.v1}), and checks need it in v2: in the inventory, say "
        "`cmdline: [systemd.unified_cgroup_hierarchy=1]` for test kernels alone, or have it on its "
        "own command line; systemd knows it from version 226 on"
    )
    return Finding("missing", what, words)


def _selinux(seen: Survey, host: SshHost) -> Iterator[Finding]:
    if seen.selinux and host.config != "machine":
        words = (
            f"{seen.selinux}, and test kernels have none: what is written under them gets no "
            "label, and the machine may label all files anew after each cell and start once more; "
            "say `config: machine`"
        )
        yield Finding("note", "SELinux", words)
    elif seen.selinux == "enforcing":
        words = "enforcing; test kernels keep it: what it denies, `ausearch -m avc` shows"
        yield Finding("note", "SELinux", words)


def _pages(seen: Survey) -> Iterator[Finding]:
    """Checks and guests know pages of one size (kernel-configs/machine)."""
    if seen.page_kib not in (None, PAGE_KIB):
        words = (
            f"its own kernel has {seen.page_kib} KiB, test kernels have {PAGE_KIB}: swap that was "
            "made under it is none there, and a btrfs with larger sectors cannot be mounted"
        )
        yield Finding("note", "page size", words)


def _console(seen: Survey, host: SshHost) -> Iterator[Finding]:
    """In /proc/consoles, tty and a number is a screen; every other one leads out of the machine."""
    lines = [one for one in seen.consoles if not one.removeprefix("tty").isdigit()]
    if host.console is None:
        yield Finding("note", "console", "the inventory has no command for it: panics stay unseen")
    elif not lines:
        have = " ".join(seen.consoles) or "none"
        yield Finding(
            "missing",
            "console",
            f"the kernel writes to no line that the inventory's command could show ({have}); "
            "boot with console=ttyAMA0 or what the machine has",
        )
    else:
        yield Finding("ok", "console", f"{' '.join(lines)}, shown by {host.console[0]}")


def _power(host: SshHost) -> Finding:
    if host.power is None:
        words = "the inventory has no commands for it: a machine that hangs waits for its watchdog"
        return Finding("note", "power", words)
    return Finding("ok", "power", f"switched by {host.power.reset[0]}; not tried")


def _clock(seen: Survey) -> Finding:
    off = seen.clock.off
    way = "ahead of" if off > 0 else "behind"
    words = f"{abs(off):.0f} s {way} the controller's" if off else "as the controller's"
    bad = f"{words}; set it (chrony, systemd-timesyncd)"
    return _either(abs(off) <= CLOCK_SECONDS, "clock", words, bad)


def _tools(seen: Survey, host: SshHost) -> Finding:
    modules = MODULE_TOOLS if host.config == "machine" else ()
    build = BUILD_TOOLS if host.build == "on-host" else ()
    wanted = (*TOOLS, *modules, *build)
    absent = [tool for tool in wanted if tool not in seen.tools]
    return _either(not absent, "tools", f"all {len(wanted)}", f"no {' '.join(absent)}")
