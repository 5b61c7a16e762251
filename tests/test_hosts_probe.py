# SPDX-License-Identifier: GPL-2.0-only
"""What machines answer when they are asked what they are, and what that means.

The answers in data/probe are real ones: of the emulated host, and of a Debian of another
architecture (its kernel renamed); what is asked since was written into them. hybrid-mounts.txt is
real as well. A machine that has all is made of the second, by what Debian's kernel says on arm64.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import probe, virtual
from harness.hosts.fitness import HARDWARE, Finding, insisting, judge, lacking
from harness.hosts.probe import Clock, Survey
from harness.hosts.protocols import Result
from harness.inventory import PowerCommands, SshHost

DATA = Path(__file__).parent / "data" / "probe"
NONCE = "n0nce"
DEBIAN = (DATA / "debian-12-amd64.txt").read_text()
HYBRID = (DATA / "hybrid-mounts.txt").read_text()
RHEL8 = "cgroup /sys/fs/cgroup/memory cgroup rw,seclabel,nosuid,nodev,relatime,memory 0 0\n"
NOW = 1795393491.0
HOST = SshHost(
    af="hardware",
    kind="ssh",
    address="lab",
    agent=True,
    kvm_modes=("vhe",),
    console=("ipmitool", "sol", "activate"),
    power=PowerCommands(on=("p",), off=("p",), reset=("pdu", "reset")),
)
ADMIN = HOST.model_copy(update={"user": "admin"})


LOCKED = "/sys/kernel/security/lockdown none [integrity] confidentiality\n"
PROTECTED = "/sys/kernel/kexec_loaded 0\n/proc/cmdline root=/dev/sda2 kvm-arm.mode=protected\n"


def with_part(text: str, name: str, body: str) -> str:
    """An answer with another body in a part."""
    pattern = rf"({NONCE} {name}\n).*?(?={NONCE} )"
    changed, count = re.subn(pattern, lambda found: found[1] + body, text, count=1, flags=re.DOTALL)
    assert count == 1
    return changed


def answer(**parts: str) -> str:
    """That of a machine that has all, with other bodies in these parts."""
    text = DEBIAN
    whole = {
        "machine": "aarch64\n",
        "release": "6.12.41+deb13-arm64\n",
        "level": "CPU: All CPU(s) started at EL2\n",
        "config": "CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\n",
        "files": "/sys/kernel/kexec_loaded 0\n/proc/sys/kernel/kexec_load_disabled 0\n"
        "/sys/kernel/security/lockdown [none] integrity confidentiality\n",
        "firmware": f"{virtual.VENDOR} WIWYNN\n{virtual.PRODUCT} Mt.Jade Server System\n",
        "kexec": "/usr/sbin/kexec\n",
        "consoles": "ttyAMA0              -W- (EC  a)  204:64\ntty0    -WU (E     )    4:1\n",
    }
    for name, body in (whole | parts).items():
        text = with_part(text, name, body)
    return text


def parse(text: str) -> Survey:
    return probe.parse(text, NONCE, NOW, NOW + 0.5)


def found(parts: dict[str, str] | None = None, host: SshHost = HOST) -> tuple[Finding, ...]:
    return judge(parse(answer(**parts or {})), host)


def words(findings: Sequence[Finding]) -> dict[str, str]:
    return {one.what: one.words for one in findings}


def missing(parts: dict[str, str], host: SshHost = HOST) -> dict[str, str]:
    return words(lacking(found(parts, host)))


# ---- what is said -----------------------------------------------------------------------------


def test_a_machine_that_has_all() -> None:
    findings = found()
    assert {one.mark for one in findings} == {"ok"}
    assert words(findings)["distribution"] == "Debian GNU/Linux 12 (bookworm)"
    assert words(findings)["console"] == "ttyAMA0, shown by ipmitool"
    assert words(findings)["power"] == "switched by pdu; not tried"
    assert words(findings)["disk"] == "40650 MiB free"
    assert words(findings)["cgroup v2"] == "has memory"
    assert words(findings)["hardware"] == "nothing names a hypervisor"


def test_the_debian_that_answered() -> None:
    seen = parse(DEBIAN)
    assert (seen.machine, seen.root, seen.kvm, seen.level) == ("x86_64", True, True, None)
    assert seen.os["ID"] == "debian"
    assert seen.free_kib == 41625696
    assert seen.consoles == ("ttyS0",)
    assert (seen.cpus, seen.memory_mib) == ({}, 24575)
    assert seen.tools == frozenset(probe.TOOLS)
    assert set(words(lacking(judge(seen, HOST)))) == {
        "architecture",
        "EL2",
        "kexec program",
        "kexec",
    }


def test_the_emulated_host() -> None:
    seen = parse((DATA / "emulated.txt").read_text())
    assert (seen.machine, seen.root, seen.kvm, seen.level) == ("aarch64", True, True, "EL2")
    lacks = words(lacking(judge(seen, HOST)))
    assert set(lacks) == {"distribution", "disk", "kexec program", "clock"}
    assert [str(midr) for midr in seen.cpus.values()] == ["0x414fd0c1"] * 2
    assert seen.memory_mib is None, "it does not say how large its pages are"
    assert seen.emulator == "a hypervisor (device tree: linux,dummy-virt)"
    assert "1795393470 s behind the controller's" in lacks["clock"]


def test_all_that_is_missing_is_told_at_once() -> None:
    parts = dict.fromkeys(("os", "kvm", "disk", "config", "files", "kexec", "consoles"), "")
    parts |= {
        "machine": "armv7l\n",
        "level": "CPU: All CPU(s) started at EL1\n",
        "uid": "1000\n",
        "sudo": "sudo: a password is required\n",
        "tools": "",
        "clock": "1795390000\n",
    }
    lacks = missing(parts, ADMIN)
    assert list(lacks) == [
        "architecture",
        "/dev/kvm",
        "EL2",
        "root",
        "distribution",
        "disk",
        "kexec program",
        "kexec",
        "console",
        "clock",
        "tools",
    ]
    assert "a password is required" in lacks["root"]
    assert lacks["tools"] == f"no {' '.join(probe.TOOLS)}"


@pytest.mark.parametrize(
    ("parts", "what", "said"),
    [
        ({"kvm": "", "level": "CPU: All CPU(s) started at EL1\n"}, "EL2", r"\.metal"),
        ({"kvm": "", "level": ""}, "EL2", "no log says"),
        ({"level": "CPU: CPUs started in inconsistent modes\n"}, "EL2", "different exception"),
        ({"kvm": ""}, "/dev/kvm", "has none"),
        ({"os": 'ID=alpine\nPRETTY_NAME="Alpine 3"\n'}, "distribution", "Alpine 3 is none like"),
        ({"disk": "Filesystem\n/dev/sda 1 1 1048575 1% /\n"}, "disk", "1023 MiB free, 1024 needed"),
        ({"disk": "df: /var: No such file\n"}, "disk", "does not say"),
        ({"kexec": ""}, "kexec program", "apt-get install kexec-tools"),
        ({"kexec": "", "os": "ID=rocky\nID_LIKE='rhel fedora'\n"}, "kexec program", "dnf install"),
        ({"config": "", "files": ""}, "kexec", "neither CONFIG_KEXEC nor"),
        ({"files": "/proc/sys/kernel/kexec_load_disabled 1\n"}, "kexec", "switched off until"),
        (
            {"files": "/sys/kernel/security/lockdown none [integrity] confidentiality\n"},
            "kexec",
            "Secure Boot",
        ),
        ({"files": LOCKED}, "kexec", r"\(integrity; .*take lockdown= off its command line, or"),
        ({"files": LOCKED, "secureboot": "   1\n"}, "kexec", "kernel; disable Secure Boot in the"),
        ({"files": "/sys/kernel/security/lockdown ?\n"}, "kexec", r"\(unknown; "),
        (
            {"secureboot": "   1\n", "config": "CONFIG_KEXEC=y\nCONFIG_IMA_ARCH_POLICY=y\n"},
            "kexec",
            r"Secure Boot is on, .*\(IMA\): disable",
        ),
        (
            {"config": "CONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG_FORCE=y\n"},
            "kexec",
            "signed kernels alone.*`boot: grub`",
        ),
        ({"mounts": HYBRID}, "cgroup v2", r"v1 \(/sys/fs/cgroup/memory\).*hierarchy=1\]` for test"),
        ({"mounts": RHEL8, "controllers": ""}, "cgroup v2", "systemd knows it from version 226 on"),
        ({"files": PROTECTED}, "kexec", "protected mode"),
        ({"consoles": "tty0  -WU (EC p  )    4:1\n"}, "console", r"\(tty0\)"),
        ({"clock": f"{int(NOW) + 62}\n"}, "clock", "62 s ahead"),
        ({"clock": f"{int(NOW) - 62}\n"}, "clock", "61 s behind"),
        ({"tools": "base64\n"}, "tools", "no cat chmod"),
    ],
)
def test_one_thing_is_missing(parts: dict[str, str], what: str, said: str) -> None:
    lacks = missing(parts)
    assert re.search(said, lacks[what])
    assert set(lacks) <= {what, "/dev/kvm"}


def test_protected_mode_is_in_the_way_of_a_kexec_out_of_its_own_kernel_alone() -> None:
    """GRUB starts from the firmware, and a test kernel that was left behind goes first."""
    assert missing({"files": PROTECTED}, HOST.model_copy(update={"boot": "grub"})) == {}
    left = PROTECTED.replace("root=", "kvm_harness.cell=c1 root=")
    assert missing({"files": left}) == {}


@pytest.mark.parametrize(
    "parts",
    [
        # A log that has lost its beginning: KVM is proof enough of EL2.
        {"level": ""},
        {"config": ""},
        {"files": ""},
        {"consoles": "ttyS0 -W- (EC p a) 4:64\n"},
        {"clock": f"{int(NOW) + 59}\n"},
        # Nothing has the controller, so it can be had.
        {"mounts": "", "controllers": ""},
        {"mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "controllers": "cpu io pids\n"},
        {"mounts": "cgroup /sys/fs/cgroup/systemd cgroup rw,name=systemd 0 0\n"},
        # kexec_load(2) asks for no signature, and Secure Boot alone asks nobody.
        {"config": "CONFIG_KEXEC=y\nCONFIG_KEXEC_FILE=y\nCONFIG_KEXEC_SIG_FORCE=y\n"},
        {"secureboot": "   1\n"},
        {"config": "CONFIG_KEXEC=y\nCONFIG_IMA_ARCH_POLICY=y\n", "secureboot": "   0\n"},
        {"pagesize": ""},
        {"os": "ID=rocky\nID_LIKE='rhel centos fedora'\n"},
        {"level": "CPU: All CPU(s) started at EL1\nCPU: All CPU(s) started at EL2\n"},
    ],
)
def test_nothing_is_missing(parts: dict[str, str]) -> None:
    assert missing(parts) == {}


OWN = HOST.model_copy(update={"config": "machine"})
BUILDS = OWN.model_copy(update={"build": "on-host"})


@pytest.mark.parametrize(
    ("host", "more"),
    [(OWN, probe.MODULE_TOOLS), (BUILDS, (*probe.MODULE_TOOLS, *probe.BUILD_TOOLS))],
)
def test_what_a_machine_with_kernels_of_its_own_needs_as_well(
    host: SshHost, more: tuple[str, ...]
) -> None:
    assert missing({}, host)["tools"] == f"no {' '.join(more)}"
    assert missing({"tools": "".join(f"{one}\n" for one in probe.ALL_TOOLS)}, host) == {}


def test_who_builds_needs_room_for_it() -> None:
    tools = "".join(f"{one}\n" for one in probe.ALL_TOOLS)
    disk = "Filesystem\n/dev/sda 1 1 10485759 1% /\n"
    said = missing({"tools": tools, "disk": disk}, BUILDS)
    assert said == {"disk": "10239 MiB free, 10240 needed"}
    assert missing({"tools": tools, "disk": disk}, OWN) == {}


def test_no_console_and_no_power_are_noted_and_keep_nobody_off() -> None:
    bare = HOST.model_copy(update={"console": None, "power": None})
    findings = found(host=bare)
    assert not lacking(findings)
    assert {one.what for one in findings if one.mark == "note"} == {"console", "power"}


@pytest.mark.parametrize(
    ("word", "fine"),
    [
        ("systemd.unified_cgroup_hierarchy=1", True),
        ("cgroup_no_v1=cpu,memory", True),
        ("cgroup_no_v1=all", True),
        ("systemd.unified_cgroup_hierarchy=0", False),
        ("cgroup_no_v1=cpu", False),
        ("quiet", False),
    ],
)
def test_a_machine_with_cgroup_v1_whose_test_kernels_get_v2(word: str, fine: bool) -> None:
    host = HOST.model_copy(update={"cmdline": (word,)})
    assert ("cgroup v2" not in missing({"mounts": RHEL8, "controllers": ""}, host)) is fine


def test_all_that_is_in_the_way_of_a_kexec_is_told() -> None:
    files = (
        f"/proc/sys/kernel/kexec_load_disabled 1\n{LOCKED}/proc/cmdline kvm-arm.mode=protected\n"
    )
    found_now = [one.words for one in found({"files": files, "config": ""}) if one.what == "kexec"]
    assert len(found_now) == 4


def test_grub_starts_no_unsigned_kernel_under_secure_boot() -> None:
    by_grub = HOST.model_copy(update={"boot": "grub"})
    said = missing({"secureboot": "   1\n"}, by_grub)
    assert said == {
        "Secure Boot": "it is on, so GRUB starts no unsigned kernel; disable it in the firmware's "
        "setup"
    }
    assert missing({"secureboot": "   0\n"}, by_grub) == {}


def test_selinux_is_noted() -> None:
    """What it means for a machine depends on whether test kernels have it."""
    files = "/sys/kernel/kexec_loaded 0\n/sys/fs/selinux/enforce {}\n"
    permissive = words(found({"files": files.format(0)}))["SELinux"]
    assert permissive.startswith("permissive, and test kernels have none")
    assert "SELinux" not in words(found({"files": files.format(0)}, OWN))
    noted = words(found({"files": files.format(1)}))["SELinux"]
    assert "label all files anew after each cell and start once more" in noted
    assert "keep it" in words(found({"files": files.format(1)}, OWN))["SELinux"]
    assert missing({"files": files.format(1)}) == {}
    assert "SELinux" not in words(found())


@pytest.mark.parametrize(
    ("script", "loads", "mark"),
    [
        ("generated\n", "LOAD_KEXEC=true\n", "missing"),
        ("generated\n", 'LOAD_KEXEC=false\nLOAD_KEXEC="true"\n', "missing"),
        ("\n", "LOAD_KEXEC=true\n", "missing"),
        ("generated\n", "LOAD_KEXEC=true\nLOAD_KEXEC=false\n", "note"),
        ("generated\n", "", "note"),
        ("masked\n", "LOAD_KEXEC=true\n", None),
        ("", "LOAD_KEXEC=true\n", None),
    ],
)
def test_a_reboot_must_go_through_the_firmware(script: str, loads: str, mark: str | None) -> None:
    """Debian's kexec-tools have asked whether it shall not, and taken yes for an answer."""
    for host in (HOST, HOST.model_copy(update={"boot": "grub"})):
        findings = found({"initscript": script, "loads": loads}, host)
        said = [one for one in findings if one.what == "reboot"]
        assert [one.mark for one in said] == ([mark] if mark else [])
        assert all("`systemctl mask kexec.service`" in one.words for one in said)


def test_an_emulated_machine_is_noted_and_keeps_nobody_off_who_does_not_insist() -> None:
    parts = {"firmware": f"{virtual.VENDOR} QEMU \n{virtual.PRODUCT} QEMU Virtual Machine \n"}
    findings = found(parts)
    said = words([one for one in findings if one.mark == "note"])[HARDWARE]
    assert said.startswith("emulated by QEMU (DMI: QEMU QEMU Virtual Machine); times ")
    assert not lacking(findings)
    assert words(lacking(insisting(findings, HARDWARE))) == {HARDWARE: said}
    assert insisting(found(), HARDWARE) == found()
    silent = found({"firmware": ""})
    assert insisting(silent, HARDWARE) == silent, "what the inventory says holds then"


def test_larger_pages_are_noted() -> None:
    said = words(found({"pagesize": "65536\n"}))["page size"]
    assert said.startswith("its own kernel has 64 KiB, test kernels have 4: ")
    assert missing({"pagesize": "65536\n"}) == {}
    assert "page size" not in words(found())


@pytest.mark.parametrize(
    ("host", "off"), [(9, -90.0), (99, 0.0), (100, 0.0), (103, 0.0), (104, 0.5), (200, 96.5)]
)
def test_the_clock_is_off_by_no_less(host: int, off: float) -> None:
    assert Clock(100.0, host, 103.5).off == off


# ---- what makes no sense ----------------------------------------------------------------------


def test_an_answer_that_is_cut_off() -> None:
    for cut in range(len(DEBIAN)):
        with pytest.raises(InfraError, match="the host's answer to what it is"):
            parse(DEBIAN[:cut])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\n",
        f"{NONCE} end\n",
        "Welcome to lab!\n" + DEBIAN,
        DEBIAN + "bye\n",
        DEBIAN + DEBIAN,
        DEBIAN.replace(NONCE, "other"),
        DEBIAN.replace(f"{NONCE} kvm", f"{NONCE} kvn"),
        DEBIAN.replace(f"{NONCE} kvm\n", f"{NONCE} kvm\nyes\n{NONCE} kvm\n"),
        with_part(DEBIAN, "machine", ""),
        with_part(DEBIAN, "machine", "aarch64\naarch64\n"),
        with_part(DEBIAN, "machine", "aarch64 \x1b[2J\n"),
        with_part(DEBIAN, "release", "x" * 101 + "\n"),
        with_part(DEBIAN, "clock", "soon\n"),
        with_part(DEBIAN, "clock", "-5\n"),
        with_part(DEBIAN, "clock", "9" * 30 + "\n"),
        with_part(DEBIAN, "clock", "\N{ARABIC-INDIC DIGIT FIVE}\n"),
        with_part(DEBIAN, "disk", "Filesystem\n/dev/sda 1 1 lots 1% /\n"),
        with_part(DEBIAN, "os", "ID=\0debian\n"),
        with_part(DEBIAN, "os", "x" * probe.LIMIT),
        with_part(DEBIAN, "firmware", f"{virtual.VENDOR} QE\0MU\n"),
        "\0" * 100,
        "\N{REPLACEMENT CHARACTER}" * 100,
    ],
)
def test_nonsense(text: str) -> None:
    with pytest.raises(InfraError, match="the host's answer to what it is"):
        parse(text)


def test_a_machine_that_lies_about_a_part_does_not_pass_for_another() -> None:
    """It does not know the nonce before it is asked; an old one is text like any other."""
    seen = parse(answer(os=f"ID=debian\nold-{NONCE[:-1]} machine\nx86_64\n"))
    assert seen.machine == "aarch64"


# ---- the script -------------------------------------------------------------------------------


class Local(UnaskedShell):
    """A shell of this machine."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
        return Result(command, done.returncode, done.stdout, done.stderr)


def has_openssl() -> bool:
    return any(Path("/usr/include").rglob("openssl/opensslv.h"))


def test_the_script_runs_here() -> None:
    """Whatever this machine lacks, its answer makes sense."""
    seen = probe.survey(Local())
    assert seen.page_kib == os.sysconf("SC_PAGE_SIZE") >> 10
    memory = os.sysconf("SC_PHYS_PAGES") * seen.page_kib >> 10
    assert seen.memory_mib is None or seen.memory_mib >= memory
    assert seen.cmdline == Path("/proc/cmdline").read_text().rstrip("\n")
    assert seen.machine == platform.machine()
    assert {"cat", "grep", "gcc", "gzip"} <= seen.tools
    assert ("openssl/opensslv.h" in seen.tools) is has_openssl()
    assert abs(seen.clock.off) <= 1


def test_the_script_reads_what_firmware_says(tmp_path: Path) -> None:
    """Strings of the device tree end with a NUL; what is not there or cannot be read is no word."""
    script = probe.script(NONCE)
    places = {name: tmp_path / str(number) for number, name in enumerate(virtual.FILES)}
    for name, path in places.items():
        assert script.count(f"{name} ") + script.count(f"{name};") == 1
        script = re.sub(rf"{name}(?=[ ;])", str(path), script)
    places[virtual.VENDOR].write_text(r"Maker \0101 Ltd" + "\n")
    places[virtual.TREE].write_bytes(b"some,board\0arm,fvp-base-revc\0")
    places[virtual.HYPERVISOR].mkdir()
    text = Local().run(script).stdout
    for name, path in places.items():
        text = text.replace(str(path), name)
    assert f"\n{virtual.VENDOR} Maker \\0101 Ltd \n" in text
    assert parse(text).emulator == "a model of Arm's (device tree: arm,fvp-base-revc)"
