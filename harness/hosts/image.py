# SPDX-License-Identifier: GPL-2.0-only
"""The user space of an emulated host: an arm64 initramfs made from Debian packages.

The SSH host key and the harness's own login key are made with the image; the first is
pinned, no password and no key of the user's is ever involved.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.deadline import Deadline
from harness.hosts import cpio, packages
from harness.hosts.vmm import vmm_files
from harness.kernel import cache

PACKAGES = ("busybox-static", "dropbear-bin", "openssh-sftp-server")
# What is taken from the packages: programs, and (by following ELF's DT_NEEDED) their libraries.
PROGRAMS = ("bin/busybox", "usr/sbin/dropbear", "usr/lib/openssh/sftp-server")
INIT = Path(__file__).with_name("init.sh")
NEED = 256 << 20  # bytes of disk while packages are unpacked
UP = "kvm-harness: host is up"


@dataclass(frozen=True)
class HostImage:
    """An initramfs and the keys that go with it."""

    initramfs: Path
    host_key: str
    """Public host key in OpenSSH's form, "ssh-ed25519 AAAA..."; the only one to be accepted."""
    login_key: Path
    """Private key that logs in as root."""
    digest: str
    vmm: dict[str, Path] = field(default_factory=dict)
    """QEMU and its libraries by the path that each has on the host, for hosts that need one."""


def host_image(deadline: Deadline, *, vmm: bool = False) -> HostImage:
    """The image from the cache, built first if need be (about 10 s and 60 MB of packages).

    With `vmm` it has a QEMU, as a host of the lab has its distribution's.
    """
    recipe = "\n".join([packages.suite(), *PACKAGES, *PROGRAMS, INIT.read_text(), _own_source()])
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    entry = cache.get_or_make(
        "images",
        digest,
        lambda folder: _build(folder, deadline),
        deadline=deadline,
        what="the host image",
        need=NEED,
    )
    folder = entry.path
    record = json.loads((folder / "image.json").read_text())
    return HostImage(
        folder / "initramfs.cpio.gz",
        record["host_key"],
        folder / "login_key",
        digest,
        vmm_files(deadline) if vmm else {},
    )


def _own_source() -> str:
    modules = (__file__, cpio.__file__, packages.__file__)
    return "".join(Path(module).read_text() for module in modules)


def _build(folder: Path, deadline: Deadline) -> None:
    root = packages.unpack(
        PACKAGES, folder, deadline, "unpacking arm64 packages for the host image"
    )
    host_key = Ed25519PrivateKey.generate()
    login_key = Ed25519PrivateKey.generate()
    login_public = _openssh_public(login_key)
    entries = [
        cpio.char_device("dev/console", 5, 1),
        cpio.file("init", INIT.read_bytes(), 0o755),
        cpio.file("etc/dropbear/host_key", dropbear_private(host_key), 0o600),
        cpio.file("root/.ssh/authorized_keys", f"{login_public}\n".encode(), 0o600),
        cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        cpio.file("etc/group", b"root:x:0:\n"),
        cpio.file("etc/shells", b"/bin/sh\n"),
        *(cpio.directory(path) for path in ("proc", "sys", "dev", "tmp", "run", "usr/bin")),
        *(
            cpio.file(path, body, 0o755)
            for path, body in packages.with_libraries(root, PROGRAMS, PACKAGES).items()
        ),
        cpio.symlink("usr/lib/sftp-server", "openssh/sftp-server"),
    ]
    (folder / "initramfs.cpio.gz").write_bytes(gzip.compress(cpio.archive(entries), 6, mtime=0))
    key_file = folder / "login_key"
    key_file.touch(mode=0o600)
    key_file.write_bytes(
        login_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    paramiko.Ed25519Key.from_private_key_file(str(key_file))
    record = folder / "image.json"
    record.write_text(
        json.dumps({"host_key": _openssh_public(host_key), "suite": packages.suite()})
    )


def _openssh_public(key: Ed25519PrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def dropbear_private(key: Ed25519PrivateKey) -> bytes:
    """A host key in dropbear's own format, so that its tools need not be on the controller.

    Two SSH strings (RFC 4251, section 5): the algorithm, then seed and public key.
    """
    raw = serialization.Encoding.Raw
    seed = key.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
    public = key.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
    return b"".join(len(part).to_bytes(4, "big") + part for part in (b"ssh-ed25519", seed + public))
