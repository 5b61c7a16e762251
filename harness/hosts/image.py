# SPDX-License-Identifier: GPL-2.0-only
"""The user space of an emulated host: an arm64 initramfs made from Debian packages.

mmdebstrap unpacks the packages without running anything of them, so any user on any architecture
can do it. The SSH host key and the harness's own login key are made with the image; the first is
pinned, no password and no key of the user's is ever involved.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import posixpath
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import cpio
from harness.kernel import cache

PACKAGES = ("busybox-static", "dropbear-bin", "openssh-sftp-server")
# What is taken from the packages: programs, and (by following ELF's DT_NEEDED) their libraries.
PROGRAMS = ("bin/busybox", "usr/sbin/dropbear", "usr/lib/openssh/sftp-server")
LIBRARY_FOLDERS = ("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu")
LOADER = "lib/ld-linux-aarch64.so.1"
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


def suite() -> str:
    """The Debian release that images are made from: the controller's own, else Debian 12."""
    release = platform.freedesktop_os_release() if Path("/etc/os-release").exists() else {}
    own = release.get("VERSION_CODENAME", "") if release.get("ID") == "debian" else ""
    return own or "bookworm"


def host_image(deadline: Deadline) -> HostImage:
    """The image from the cache, built first if need be (about 10 s and 60 MB of packages)."""
    recipe = "\n".join([suite(), *PACKAGES, *PROGRAMS, INIT.read_text(), _own_source()])
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
    return HostImage(folder / "initramfs.cpio.gz", record["host_key"], folder / "login_key", digest)


def _own_source() -> str:
    return Path(__file__).read_text() + Path(cpio.__file__).read_text()


def _build(folder: Path, deadline: Deadline) -> None:
    root = _unpack_packages(folder, deadline)
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
        *_programs(root),
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
    record.write_text(json.dumps({"host_key": _openssh_public(host_key), "suite": suite()}))


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


def _unpack_packages(folder: Path, deadline: Deadline) -> tarfile.TarFile:
    tarball = folder / "packages.tar"
    proc.run(
        [
            "mmdebstrap",
            "--mode=chrootless",
            "--variant=extract",
            "--architectures=arm64",
            f"--include={','.join(PACKAGES)}",
            suite(),
            str(tarball),
        ],
        deadline=deadline,
        what="unpacking arm64 packages for the host image",
        contained=True,
    )
    data = tarball.read_bytes()
    tarball.unlink()
    return tarfile.open(fileobj=io.BytesIO(data))


def _programs(root: tarfile.TarFile) -> list[cpio.Entry]:
    """The programs and every library that they need, at the paths the loader looks in."""
    members = {posixpath.normpath(member.name): member for member in root.getmembers()}

    def data(path: str) -> bytes:
        """The content behind a path, through its symbolic links.

        From Debian 13 on the packages themselves have /usr/bin/X where they had /bin/X.
        """
        for _ in range(8):
            member = members.get(path) or members.get(f"usr/{path}")
            if member is None:
                break
            if member.issym() or member.islnk():
                base = "" if member.islnk() else posixpath.dirname(path)
                path = posixpath.normpath(posixpath.join("/", base, member.linkname)).lstrip("/")
                continue
            content = root.extractfile(member)
            if content is not None:
                return content.read()
            break
        raise InfraError(f"host image: {path} is in none of the packages {', '.join(PACKAGES)}")

    taken: dict[str, bytes] = {}
    todo = [*PROGRAMS]
    while todo:
        path = todo.pop()
        if path in taken:
            continue
        taken[path] = data(path)
        for library in _needed(taken[path]):
            if library == posixpath.basename(LOADER):
                todo.append(LOADER)
                continue
            found = [f"{place}/{library}" for place in LIBRARY_FOLDERS]
            todo += [path for path in found if path in members][:1]
            if not any(path in members for path in found):
                raise InfraError(f"host image: {path} needs {library}, which no package brought")
    entries = [cpio.Entry(path, stat.S_IFREG | 0o755, body) for path, body in taken.items()]
    return [*entries, cpio.symlink("usr/lib/sftp-server", "openssh/sftp-server")]


def _needed(binary: bytes) -> list[str]:
    section = ELFFile(io.BytesIO(binary)).get_section_by_name(".dynamic")
    if not isinstance(section, DynamicSection):
        return []
    return [tag.needed for tag in section.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]  # type: ignore[attr-defined]
