# SPDX-License-Identifier: GPL-2.0-only
"""What a machine of the lab is and has, before anything is done to it: one script, one answer.

The script changes nothing and works for a user without root as well, so that all that is missing
can be told at once. What it prints is data of a stranger: parse() takes it apart within bounds.
"""

from __future__ import annotations

import re
import secrets
import time
from dataclasses import dataclass
from typing import Literal

from harness.deadline import Deadline
from harness.hosts import cgroups, virtual
from harness.hosts.protocols import Shell
from harness.observe import cpu
from harness.observe.errors import ObserveError, shown
from harness.observe.text import sections, unsigned, whole_lines

SOURCE = "the host's answer to what it is"
LIMIT = 1 << 18
# What the harness calls on a host (a test host's own are in its image).
TOOLS = ("base64", "cat", "chmod", "dmesg", "grep", "mv", "rm", "sha256sum", "taskset")
# What is called as well where kernels have modules, and where they are built on the machine. A name
# that ends in .h is that of a header.
MODULE_TOOLS = ("depmod", "gzip", "tar")
BUILD_TOOLS = (
    *("awk", "bc", "bison", "env", "flex", "gcc", "ld", "make", "nproc", "perl", "setpriv"),
    *("unshare", "openssl/opensslv.h"),
)
ALL_TOOLS = (*TOOLS, *MODULE_TOOLS, *BUILD_TOOLS)

Level = Literal["EL1", "EL2", "mixed"]
# What arch/arm64/kernel/smp.c:hyp_mode_check() prints.
_LEVELS: dict[str, Level] = {
    "CPU: All CPU(s) started at EL1": "EL1",
    "CPU: All CPU(s) started at EL2": "EL2",
    "CPU: CPUs started in inconsistent modes": "mixed",
}

# Four bytes of attributes, then 1 for on (UEFI, 3.3 and 8.2). Everybody may read it.
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"

# $S is how root is had, and empty where it is not. A log that has lost its beginning may be whole
# in systemd's journal.
_SCRIPT = r"""
part() { printf '%s %s\n' NONCE "$1"; }
S=; [ "$(id -u)" = 0 ] || { sudo -n true 2>/dev/null && S='sudo -n'; }
part machine; uname -m
part release; uname -r
part uid; $S id -u
part sudo; [ "$(id -u)" = 0 ] || sudo -n true 2>&1 | head -n 3
part os; cat /etc/os-release 2>/dev/null || cat /usr/lib/os-release 2>/dev/null
part kvm; $S test -c /dev/kvm && $S test -r /dev/kvm && $S test -w /dev/kvm && echo yes
part level
started() { grep -o 'CPU: All CPU(s) started at EL[12]\|CPU: CPUs started in inconsistent modes'; }
$S dmesg 2>/dev/null | started || $S journalctl -q -k -b --no-pager 2>/dev/null | started
part disk; d=/var; [ -d $d ] || d=/; df -Pk $d 2>/dev/null
part config
options() { grep '^CONFIG_KEXEC\(_FILE\|_SIG_FORCE\)\{0,1\}=\|^CONFIG_IMA_ARCH_POLICY='; }
zcat /proc/config.gz 2>/dev/null | options || {
r=$(uname -r)
for f in "/boot/config-$r" "/lib/modules/$r/config"; do [ -r "$f" ] && cat "$f" && break; done
} | options
part files
for f in /sys/kernel/kexec_loaded /proc/sys/kernel/kexec_load_disabled \
	/sys/kernel/security/lockdown /sys/fs/selinux/enforce /proc/cmdline
do $S test -r "$f" && echo "$f $($S cat "$f")"; done
part secureboot; od -An -tu1 -j4 -N1 SECUREBOOT 2>/dev/null
part firmware; for f in FIRMWARE; do
[ -r "$f" ] && printf '%s %s\n' "$f" "$(tr '\000\n' '  ' < "$f")"; done
part mounts; grep '^[^ ]* [^ ]* cgroup2\{0,1\} ' /proc/mounts
part controllers; cat /sys/fs/cgroup/cgroup.controllers 2>/dev/null
part pagesize; getconf PAGE_SIZE 2>/dev/null
part midrs; ( MIDRS )
part memory; $S grep '^ *present ' /proc/zoneinfo 2>/dev/null
part initscript; if [ -d /run/systemd/system ] && [ -x /etc/init.d/kexec ]; then
echo "$(systemctl is-enabled kexec.service 2>/dev/null)"; fi
part loads; cat /etc/default/kexec /etc/default/kexec.d/* 2>/dev/null | grep '^ *LOAD_KEXEC='
part kexec; $S sh -c 'command -v kexec'
part consoles; cat /proc/consoles 2>/dev/null
part tools; for t in TOOLS; do case $t in
*.h) echo "#include <$t>" | gcc -E - > /dev/null 2>&1 ;;
*) $S sh -c "PATH=\$PATH:/usr/sbin:/sbin; command -v $t" > /dev/null ;;
esac && echo "$t"; done
part clock; date -u +%s
part end
"""
_SELINUX = {"1": "enforcing", "0": "permissive"}
_CONFIG = re.compile(r"(CONFIG_\w+)=([ym])", re.ASCII)


@dataclass(frozen=True)
class Clock:
    """The host's clock between two looks at the controller's, in seconds since 1970."""

    before: float
    host: int
    after: float

    @property
    def off(self) -> float:
        """By how many seconds the host is ahead (behind: negative) at least; 0 if it may be right.

        The host tells whole seconds.
        """
        if self.host > self.after:
            return self.host - self.after
        return min(0.0, self.host + 1 - self.before)


@dataclass(frozen=True)
class Survey:
    """What a machine said of itself. None is for what it did not say."""

    machine: str
    release: str
    root: bool
    sudo_words: str
    """What sudo said where it gave no root."""
    os: dict[str, str]
    """os-release(5)."""
    kvm: bool
    level: Level | None
    """The exception level that its firmware starts Linux at."""
    free_kib: int | None
    config: frozenset[str]
    """Those options that decide on kexec which its kernel's configuration, if it can be read, has
    set."""
    kexec_syscall: bool
    """Whether the running kernel shows that it has kexec (/sys/kernel/kexec_loaded)."""
    kexec_disabled: bool
    lockdown: str
    """How far the kernel is locked down (kernel_lockdown(7)), "" if it is not."""
    secure_boot: bool
    """The firmware starts signed programs alone."""
    selinux: str
    """What SELinux is, "enforcing" or "permissive"; "" where it is off."""
    emulator: str
    """What makes the machine, and the words that say so; "" for hardware, as far as it says."""
    memory: cgroups.Memory
    """Where cgroups have the memory controller."""
    page_kib: int | None
    """The size of its kernel's pages, None if getconf(1) does not say."""
    cpus: dict[int, cpu.Midr]
    """Those that are online, by number; {} where its kernel does not show MIDR_EL1."""
    memory_mib: int | None
    """All that its kernel knows of, also what that has taken for itself: MemTotal would differ
    from one of its own kernels to the next."""
    kexec: bool
    """The program is there."""
    kexec_script: bool
    """systemd runs Debian's /etc/init.d/kexec as it goes down, which starts a kernel that is
    loaded."""
    kexec_reboots: bool
    """It is told to load one at each reboot."""
    cmdline: str
    """That of the running kernel."""
    consoles: tuple[str, ...]
    tools: frozenset[str]
    clock: Clock


def survey(shell: Shell, deadline: Deadline | None = None) -> Survey:
    """Ask a machine what it is; InfraError if what it answers makes no sense."""
    nonce = secrets.token_hex(16)
    before = time.time()
    answer = shell.run(script(nonce), deadline, check=False).stdout
    return parse(answer, nonce, before, time.time())


def script(nonce: str) -> str:
    """What is run on the machine, by a POSIX sh."""
    made = _SCRIPT.replace("SECUREBOOT", _SECURE_BOOT)
    made = made.replace("MIDRS", cpu.SCRIPT).replace("FIRMWARE", " ".join(virtual.FILES))
    return made.replace("NONCE", nonce).replace("TOOLS", " ".join(ALL_TOOLS))


def parse(text: str, nonce: str, before: float, after: float) -> Survey:
    """What the script printed; `before` and `after` are the controller's time around it.

    ObserveError for an answer that is cut off, too long, or is none to the questions asked.
    """
    if len(text) > LIMIT:
        raise ObserveError(SOURCE, 0, f"longer than {LIMIT} characters ({len(text)})")
    parts = sections(text, nonce, SOURCE)
    bodies = {name: _lines(name, body) for name, body in parts}
    if [name for name, _ in parts] != _names():
        raise ObserveError(SOURCE, 0, f"other parts than were asked for: {shown(' '.join(bodies))}")
    files = dict(_split(line) for line in bodies["files"])
    page_kib = unsigned(bodies["pagesize"][0], SOURCE, 0) >> 10 if bodies["pagesize"] else None
    config = frozenset(found[1] for one in bodies["config"] if (found := _CONFIG.fullmatch(one)))
    return Survey(
        machine=_word("machine", bodies),
        release=_word("release", bodies),
        root=bodies["uid"] == ["0"],
        sudo_words=" ".join(bodies["sudo"])[:200],
        os={key: value.strip("\"'") for key, _, value in (o.partition("=") for o in bodies["os"])},
        kvm=bodies["kvm"] == ["yes"],
        level=_level(bodies["level"]),
        free_kib=_free(bodies["disk"]),
        config=config,
        kexec_syscall="/sys/kernel/kexec_loaded" in files,
        kexec_disabled=files.get("/proc/sys/kernel/kexec_load_disabled", "0") != "0",
        lockdown=_lockdown(files.get("/sys/kernel/security/lockdown", "[none]")),
        secure_boot=[line.strip() for line in bodies["secureboot"]] == ["1"],
        selinux=_SELINUX.get(files.get("/sys/fs/selinux/enforce", ""), ""),
        emulator=virtual.emulator(dict(_split(line) for line in bodies["firmware"])),
        memory=cgroups.memory(bodies["mounts"], bodies["controllers"]),
        page_kib=page_kib,
        cpus=_cpus(bodies["midrs"]),
        memory_mib=_memory(bodies["memory"], page_kib),
        kexec=bool(bodies["kexec"]),
        kexec_script=bodies["initscript"] not in ([], ["masked"]),
        kexec_reboots=[_unquoted(line) for line in bodies["loads"]][-1:] == ["true"],
        cmdline=files.get("/proc/cmdline", ""),
        consoles=tuple(line.split()[0] for line in bodies["consoles"] if line.strip()),
        tools=frozenset(bodies["tools"]) & frozenset(ALL_TOOLS),
        clock=Clock(before, unsigned(_word("clock", bodies), SOURCE, 0), after),
    )


def _names() -> list[str]:
    return re.findall(r"^part (?!end)(\w+)", _SCRIPT, re.MULTILINE)


def _lines(name: str, body: str) -> list[str]:
    return whole_lines(body, f"{SOURCE} ({name})", LIMIT)


def _split(line: str) -> tuple[str, str]:
    path, _, value = line.partition(" ")
    return path, value


def _word(name: str, bodies: dict[str, list[str]]) -> str:
    """The one word that a part must be."""
    lines = bodies[name]
    if len(lines) != 1 or not re.fullmatch(r"[!-~]{1,100}", lines[0]):
        raise ObserveError(SOURCE, 0, f"no {name} in {shown(' '.join(lines))}")
    return lines[0]


def _level(lines: list[str]) -> Level | None:
    """The last one counts: a log may hold more than one boot."""
    return _LEVELS.get(lines[-1]) if lines else None


def _unquoted(line: str) -> str:
    """The value of a setting as a shell has it."""
    return line.partition("=")[2].strip().strip("\"'")


def _lockdown(text: str) -> str:
    """The level in brackets, "" for none; one that is not understood counts as one."""
    found = re.search(r"\[(\w+)\]", text, re.ASCII)
    level = found[1] if found else "unknown"
    return "" if level == "none" else level


def _cpus(lines: list[str]) -> dict[int, cpu.Midr]:
    return cpu.parse("".join(f"{line}\n" for line in lines), SOURCE) if lines else {}


def _memory(lines: list[str], page_kib: int | None) -> int | None:
    """Of lines of /proc/zoneinfo: the pages of each zone that are there (vmstat.c:zoneinfo)."""
    if not lines or page_kib is None:
        return None
    return sum(unsigned(line.split()[-1], SOURCE, 0) for line in lines) * page_kib >> 10


def _free(lines: list[str]) -> int | None:
    """KiB available, of `df -Pk` (POSIX: the fourth column of the second line)."""
    fields = lines[1].split() if len(lines) == 2 else []
    return unsigned(fields[3], SOURCE, 0) if len(fields) > 4 else None
