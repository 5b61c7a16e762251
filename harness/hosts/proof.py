# SPDX-License-Identifier: GPL-2.0-only
"""Right-kernel proof: nothing counts before the running kernel is shown to be the one built.

Three things must agree: the GNU build id in /sys/kernel/notes with that of vmlinux, the
configuration in /proc/config.gz with the one built from, and a boot_id that was never seen before.
Then KVM must be there, in the mode that the cell is about. Beside it stands what the kernel was
told at boot.
"""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from dataclasses import dataclass

from harness.errors import HostDied, InfraError
from harness.hosts import bootargs
from harness.hosts.protocols import Shell
from harness.inventory import KvmMode

MAX_NOTES = 1 << 16
MAX_CONFIG = 1 << 20
NT_GNU_BUILD_ID = 3
# What arch/arm64/kvm/arm.c:kvm_arm_init() prints; "h" is nVHE code run with VHE's registers.
# Linux 6.2 calls nVHE "Hyp mode".
KVM_MODE_LINES: dict[str, re.Pattern[str]] = {
    "vhe": re.compile(r"kvm \[\d+\]: VHE mode initialized successfully"),
    "nvhe": re.compile(r"kvm \[\d+\]: Hyp (?:[nh]VHE )?mode initialized successfully"),
    "protected": re.compile(r"kvm \[\d+\]: Protected [nh]VHE mode initialized successfully"),
}


class WrongKernel(InfraError):
    """The host runs another kernel than the one that was built for it."""


@dataclass(frozen=True)
class Expected:
    """The kernel that must be running: hex build id and SHA-256 of its .config."""

    build_id: str
    config_sha256: str


@dataclass(frozen=True)
class Proof:
    """What the running kernel showed of itself."""

    build_id: str
    config_sha256: str
    boot_id: str
    release: str
    kvm_line: str
    cmdline: str
    """Its boot arguments, less what names the boot (bootargs.lasting())."""


def gnu_build_id(notes: bytes) -> str | None:
    """The GNU build id in a sequence of ELF notes, as hex; None if there is none.

    Layout: elf(5), "Notes (Nhdr)". Sizes come from the host and are not trusted.
    """
    at = 0
    while at + 12 <= len(notes):
        name_size, data_size, kind = struct.unpack_from("<III", notes, at)
        data_at = at + 12 + (name_size + 3) // 4 * 4
        end = data_at + data_size
        if end > len(notes):
            return None
        if kind == NT_GNU_BUILD_ID and notes[at + 12 : at + 12 + name_size] == b"GNU\0":
            return notes[data_at:end].hex()
        at = data_at + (data_size + 3) // 4 * 4
    return None


def prove(shell: Shell, expected: Expected, mode: KvmMode, seen_boot_ids: set[str]) -> Proof:
    """Check the running kernel; WrongKernel, or HostDied if KVM is absent or in another mode.

    A kernel that is the right one and yet has no KVM may be the series' fault, so that is told
    apart from a wrong kernel, which never is.
    """
    result = shell.run(
        "base64 /sys/kernel/notes; echo; base64 /proc/config.gz; echo; "
        "cat /proc/sys/kernel/random/boot_id; echo; uname -r; echo; cat /proc/cmdline; echo; "
        "ls /dev/kvm 2>&1; echo; dmesg | grep -F 'kvm [' || true"
    )
    parts = result.stdout.split("\n\n")
    if len(parts) != 7:
        raise InfraError(
            "the host answered nonsense when asked for its kernel: "
            f"{result.stdout[:200]!r}, {result.stderr[:200]!r}"
        )
    notes, config = _decode(parts[0], MAX_NOTES), _decode(parts[1], MAX_CONFIG)
    boot_id, release, cmdline, device, log = (part.strip() for part in parts[2:])
    agree(notes, config, release, expected)
    if not re.fullmatch(r"[0-9a-f-]{36}", boot_id) or boot_id in seen_boot_ids:
        raise WrongKernel(f"the host was not booted anew: boot_id {boot_id!r}")
    if not re.fullmatch(f"[ -~]{{1,{bootargs.LONGEST}}}", cmdline, re.ASCII):
        raise InfraError(f"the host sent no command line: {cmdline[:80]!r}")
    if device != "/dev/kvm":
        raise HostDied("no-kvm", f"the booted kernel has no KVM: {device}; its log: {log or '-'}")
    line, told = kvm_line(log, mode), bootargs.lasting(cmdline)
    return Proof(expected.build_id, expected.config_sha256, boot_id, release, line, told)


def agree(notes: bytes, config: bytes, release: str, expected: Expected) -> None:
    """WrongKernel unless what a host showed is of the kernel that was built.

    `notes` is its /sys/kernel/notes and `config` its /proc/config.gz.
    """
    build_id = gnu_build_id(notes) or "none"
    if build_id != expected.build_id:
        raise WrongKernel(
            f"the host runs the kernel {build_id} ({release}), built was {expected.build_id}"
        )
    digest = hashlib.sha256(_gunzip(config, MAX_CONFIG)).hexdigest()
    if digest != expected.config_sha256:
        raise WrongKernel(
            f"the running kernel's configuration is {digest[:12]}, "
            f"built from was {expected.config_sha256[:12]}"
        )


def kvm_line(log: str, mode: KvmMode) -> str:
    """What KVM says of its mode in a kernel log; HostDied if that is another one."""
    line = KVM_MODE_LINES[mode].search(log)
    if line is None:
        raise HostDied("wrong-mode", f"KVM is not in {mode} mode; its log: {log or '-'}")
    return line[0]


def _decode(text: str, limit: int) -> bytes:
    if len(text) > limit * 2:
        raise InfraError(f"the host sent {len(text)} characters where {limit} bytes are the limit")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as exc:  # binascii.Error, or characters beyond ASCII
        raise InfraError(f"the host sent no base64: {text[:80]!r}") from exc


def _gunzip(data: bytes, limit: int) -> bytes:
    """Unpack at most `limit` bytes: the data is the host's and may be a bomb."""
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        text = unpack.decompress(data, limit)
    except zlib.error as exc:
        raise InfraError(f"/proc/config.gz of the host is damaged: {exc}") from exc
    if unpack.unconsumed_tail:
        raise InfraError(f"/proc/config.gz of the host unpacks to more than {limit} bytes")
    if not unpack.eof:
        raise InfraError("/proc/config.gz of the host is damaged: it is cut off")
    return text
