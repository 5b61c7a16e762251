# SPDX-License-Identifier: GPL-2.0-only
"""A kernel is the right one only if everything that it shows says so."""

from __future__ import annotations

import base64
import gzip
import hashlib
import random
import struct
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.hosts import proof
from harness.hosts.proof import Expected, Proof, WrongKernel, gnu_build_id, prove
from harness.hosts.protocols import Result
from harness.inventory import KvmMode

# /sys/kernel/notes of a 6.12 kernel for arm64 as a host showed it.
NOTES = (Path(__file__).parent / "data/hosts/notes.bin").read_bytes()
BUILD_ID = (Path(__file__).parent / "data/hosts/notes.build-id").read_text().strip()
CONFIG = b"CONFIG_KVM=y\n" * 1000
BOOT_ID = "6f1e24a5-3cb1-44f4-9b57-3f4d0fbe84a5"
LOG = {
    "vhe": "[    0.1] kvm [1]: VHE mode initialized successfully",
    "hvhe": "[    0.1] kvm [1]: Hyp hVHE mode initialized successfully",
    "nvhe": "[    0.1] kvm [1]: Hyp nVHE mode initialized successfully",
    "nvhe-6.2": "[    0.1] kvm [1]: Hyp mode initialized successfully",
    "protected": "[    0.1] kvm [1]: Protected nVHE mode initialized successfully",
    "protected-hvhe": "[    0.1] kvm [1]: Protected hVHE mode initialized successfully",
}
EXPECTED = Expected(BUILD_ID, hashlib.sha256(CONFIG).hexdigest())


def lines(data: bytes) -> str:
    """As base64(1) prints it."""
    return base64.encodebytes(data).decode()


def note(name: bytes, kind: int, data: bytes, sizes: tuple[int, int] | None = None) -> bytes:
    name_size, data_size = sizes or (len(name), len(data))
    pad = [b"\0" * (-len(part) % 4) for part in (name, data)]
    return struct.pack("<III", name_size, data_size, kind) + name + pad[0] + data + pad[1]


class FakeShell(UnaskedShell):
    """Answers the one question of prove() as a host would, in parts that tests replace."""

    def __init__(self, **changed: str) -> None:
        parts = {
            "notes": lines(NOTES),
            "config": lines(gzip.compress(CONFIG)),
            "boot_id": f"{BOOT_ID}\n",
            "release": "6.12.117\n",
            "cmdline": "root=/dev/sda2 console=ttyAMA0 kvm_harness.cell=c1 panic=15\n",
            "device": "/dev/kvm\n",
            "log": f"[    0.0] kvm [1]: nv: 554 coarse grained\n{LOG['vhe']}\n",
        }
        self.answer = "\n".join({**parts, **changed}.values())
        self.errors = ""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        assert "/sys/kernel/notes" in command
        return Result(command, 0, self.answer, self.errors)


def shown(mode: KvmMode = "vhe", seen: frozenset[str] = frozenset(), **changed: str) -> Proof:
    return prove(FakeShell(**changed), EXPECTED, mode, set(seen))


# ---- notes ----------------------------------------------------------------------------------


def test_build_id_of_real_notes() -> None:
    assert len(BUILD_ID) == 40
    assert gnu_build_id(NOTES) == BUILD_ID


def test_build_id_among_others() -> None:
    own = note(b"GNU\0", 3, b"\x12\x34")
    assert gnu_build_id(own) == "1234"
    assert gnu_build_id(note(b"Linux\0", 0x101, b"x") + note(b"GNU\0", 1, b"abcd") + own) == "1234"
    assert gnu_build_id(note(b"Xen\0\0", 3, b"\xff") + own) == "1234", "of another owner"


@pytest.mark.parametrize(
    "notes",
    [
        b"",
        b"\0" * 11,
        b"\0" * 12,
        note(b"Linux\0", 3, b"x"),
        note(b"GNU\0", 1, b"x"),
        NOTES[:20],
        note(b"GNU\0", 3, b"x", (4, 0xFFFFFFFF)),
        note(b"GNU\0", 3, b"x", (0xFFFFFFFF, 1)),
        note(b"GNU\0", 3, b"x", (0xFFFFFFFC, 4)),
        b"\xff" * 4096,
    ],
)
def test_no_build_id(notes: bytes) -> None:
    assert gnu_build_id(notes) is None


def test_any_bytes_are_survived() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        found = gnu_build_id(rng.randbytes(rng.randrange(80)))
        assert found is None or len(found) <= 160
    for cut in range(len(NOTES)):
        assert gnu_build_id(NOTES[:cut]) in (None, BUILD_ID)
    # Empty notes make the slowest progress.
    assert gnu_build_id(b"\0" * proof.MAX_NOTES) is None


# ---- the whole proof ------------------------------------------------------------------------


def test_the_right_kernel() -> None:
    found = shown()
    assert found == Proof(
        BUILD_ID,
        EXPECTED.config_sha256,
        BOOT_ID,
        "6.12.117",
        "kvm [1]: VHE mode initialized successfully",
        "console=ttyAMA0 panic=15",
    )


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("vhe", "vhe"),
        ("nvhe", "nvhe"),
        ("nvhe", "hvhe"),
        ("nvhe", "nvhe-6.2"),
        ("protected", "protected"),
        ("protected", "protected-hvhe"),
    ],
)
def test_modes(mode: KvmMode, line: str) -> None:
    assert shown(mode, log=LOG[line]).kvm_line in LOG[line]


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("vhe", "nvhe"),
        ("vhe", "hvhe"),
        ("vhe", "nvhe-6.2"),
        ("vhe", "protected"),
        ("vhe", "protected-hvhe"),
        ("nvhe", "vhe"),
        ("nvhe", "protected"),
        ("nvhe", "protected-hvhe"),
        ("protected", "vhe"),
        ("protected", "nvhe"),
        ("protected", "hvhe"),
        ("protected", "nvhe-6.2"),
    ],
)
def test_another_mode(mode: KvmMode, line: str) -> None:
    with pytest.raises(HostDied, match=f"KVM is not in {mode} mode") as caught:
        shown(mode, log=LOG[line])
    assert caught.value.kind == "wrong-mode"
    assert LOG[line] in str(caught.value)


def test_no_mode_at_all() -> None:
    with pytest.raises(HostDied) as caught:
        shown(log="")
    assert caught.value.kind == "wrong-mode"


def test_no_kvm() -> None:
    log = "[    0.1] kvm [1]: HYP mode not available"
    with pytest.raises(HostDied, match=r"no KVM: ls: /dev/kvm: No such.*HYP mode not") as caught:
        shown(device="ls: /dev/kvm: No such file or directory\n", log=log)
    assert caught.value.kind == "no-kvm"


def test_another_build_id() -> None:
    other = note(b"GNU\0", 3, bytes(20))
    with pytest.raises(WrongKernel, match=f"{'00' * 20}.*built was {BUILD_ID}"):
        shown(notes=lines(other))
    with pytest.raises(WrongKernel, match="the kernel none"):
        shown(notes=lines(note(b"Linux\0", 3, b"x")))


def test_another_configuration() -> None:
    other = CONFIG + b"# CONFIG_ARM64_HW_AFDBM is not set\n"
    with pytest.raises(WrongKernel, match="configuration is"):
        shown(config=lines(gzip.compress(other)))


@pytest.mark.parametrize("boot_id", [BOOT_ID, "", "x" * 36, BOOT_ID.upper(), f"{BOOT_ID}0"])
def test_a_boot_id_that_proves_no_boot(boot_id: str) -> None:
    with pytest.raises(WrongKernel, match="not booted anew"):
        shown(seen=frozenset({BOOT_ID}), boot_id=f"{boot_id}\n")


@pytest.mark.parametrize(
    "nonsense", ["", "\n" * 50, "no\n\nsense", "a\n\n" * 6 + "a", "\ufffd\n\n" * 6, "\x1b[2J" * 9]
)
def test_nonsense(nonsense: str) -> None:
    shell = FakeShell()
    shell.answer = nonsense
    with pytest.raises(InfraError) as caught:
        prove(shell, EXPECTED, "vhe", set())
    assert "\x1b" not in str(caught.value)


def test_a_kernel_that_tells_nothing_of_itself() -> None:
    shell = FakeShell(config="")
    shell.errors = "base64: /proc/config.gz: No such file or directory\n"
    with pytest.raises(InfraError, match=r"/proc/config\.gz: No such file"):
        prove(shell, EXPECTED, "vhe", set())


@pytest.mark.parametrize("part", ["notes", "config"])
@pytest.mark.parametrize("text", ["!!!!\n", "abc\n", "\ufffd\ufffd\n"])
def test_no_base64(part: str, text: str) -> None:
    with pytest.raises(InfraError, match="no base64"):
        prove(FakeShell(**{part: text}), EXPECTED, "vhe", set())


@pytest.mark.parametrize("cmdline", ["", "\ufffd", "quiet\x1b[2J", "x" * 5000, "a\nb"])
def test_no_command_line(cmdline: str) -> None:
    with pytest.raises(InfraError, match="no command line") as caught:
        shown(cmdline=f"{cmdline}\n")
    assert "\x1b" not in str(caught.value)


def test_damaged_configuration() -> None:
    packed = gzip.compress(CONFIG)
    with pytest.raises(InfraError, match="damaged"):
        shown(config=lines(b"x" + packed))
    for cut in (5, 30, len(packed) - 1):
        with pytest.raises(InfraError, match="damaged"):
            shown(config=lines(packed[:cut]))


def test_bombs() -> None:
    with pytest.raises(InfraError, match="unpacks to more than"):
        shown(config=lines(gzip.compress(bytes(64 << 20))))
    with pytest.raises(InfraError, match="are the limit"):
        shown(notes="A" * (1 << 20) + "\n")
