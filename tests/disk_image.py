# SPDX-License-Identifier: GPL-2.0-only
"""A disk with a Debian that boots by UEFI and GRUB, with systemd and OpenSSH, made without root.

The packages are unpacked and no script of theirs is run, so what those would do is done here, as
far as this machine needs it. GRUB is the one that Debian's packages bring whole. Its
grub.cfg the machine makes itself, when it is started for the first time (FINISH).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tarfile
import uuid
from dataclasses import dataclass
from pathlib import Path

import gpt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness import proc
from harness.deadline import Deadline
from harness.hosts import cpio, packages
from harness.kernel import cache

PACKAGES = (
    *("base-files", "base-passwd", "bash", "dash", "coreutils", "debianutils", "findutils", "grep"),
    *("bsdutils", "diffutils", "gzip", "hostname", "kmod", "libc-bin", "login", "mawk", "mount"),
    *("ncurses-bin", "perl-base", "procps", "sed", "sysvinit-utils", "tar", "util-linux"),
    *("dbus", "openssh-server", "systemd", "systemd-sysv", "udev", "kexec-tools"),
    *("grub-common", "grub-efi-arm64-bin", "grub2-common", "qemu-efi-aarch64"),
    *("linux-image-cloud-arm64", "initramfs-tools", "busybox-static"),
)
FIRMWARE = ("usr/share/AAVMF/AAVMF_CODE.fd", "usr/share/AAVMF/AAVMF_VARS.fd")
GRUB = "usr/lib/grub/arm64-efi/monolithic/grubaa64.efi"
# Not on the disk: what only people read, and what the firmware is.
_LEFT_OUT = tuple(
    f"usr/share/{name}/"
    for name in ("doc", "man", "info", "locale", "perl", "AAVMF", "qemu-efi-aarch64")
)
# Where packages of before Debian 13 still have what is in /usr.
_MERGED = ("bin", "lib", "sbin")

MIB = 1 << 20
DISK, ESP_AT, ESP_SIZE = 3072 * MIB, MIB, 64 * MIB
ROOT_AT = ESP_AT + ESP_SIZE
ROOT_SIZE = DISK - ROOT_AT - MIB
UNPACK_SECONDS, MAKE_SECONDS = 1800.0, 300.0
NEED = 4 << 30
# Names that never change: nothing is told apart by them.
_DISK_ID, _ESP_ID, ROOT_ID, FS_ID = (
    uuid.UUID(f"4b564d48-6172-6e65-7373-00000000000{n}") for n in range(1, 5)
)
MACHINE_ID = "4b564d486172" + "0" * 20

# Not everybody's PATH has it.
_MKE2FS = shutil.which("mke2fs", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or "mke2fs"
_SERVICES = {
    "multi-user.target.wants": ("ssh.service", "systemd-networkd.service"),
    "sysinit.target.wants": ("systemd-pstore.service",),
}
_MASKED = ("serial-getty@ttyAMA0.service", "getty@tty1.service")
_USERS = ("sshd", "messagebus", "systemd-network", "systemd-resolve", "systemd-timesync")
COMMAND_LINE = "console=ttyAMA0 panic=15"
# What its owner would have run, and packages do when they are installed.
FINISH = """\
set -e
PATH=$PATH:/usr/sbin:/sbin
release=$(uname -r)
depmod "$release"
update-grub
grep -q next_entry /boot/grub/grub.cfg
grep -q custom.cfg /boot/grub/grub.cfg
grep -q "initrd.*/boot/initrd.img-$release" /boot/grub/grub.cfg"""
_FILES = {
    "etc/fstab": f"UUID={FS_ID} / ext4 defaults 0 0\n",
    "etc/hostname": "lab\n",
    "etc/hosts": "127.0.0.1 localhost lab\n",
    "etc/machine-id": f"{MACHINE_ID}\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
    "etc/systemd/network/lab.network": "[Match]\nType=ether\n[Network]\nDHCP=ipv4\n",
    # There is no configuration of PAM: a script makes it.
    "etc/ssh/sshd_config": "HostKey /etc/ssh/host_key\nUsePAM no\nPasswordAuthentication no\n",
    "etc/default/grub": (
        "GRUB_DEFAULT=0\nGRUB_TIMEOUT=1\nGRUB_DISTRIBUTOR=Debian\nGRUB_TERMINAL=console\n"
        f'GRUB_CMDLINE_LINUX="{COMMAND_LINE}"\n'
    ),
}
# Of the machine's own kernel, in its initramfs, which serves one with its drivers built in as well.
# mkinitramfs takes minutes under emulation.
_MODULES = ("virtio_mmio", "virtio_blk", "virtio_net")
_INIT = b"""\
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod $module 2>/dev/null; done
until [ -b /dev/vda2 ]; do /bin/busybox sleep 0.1; done
/bin/busybox mount -t ext4 /dev/vda2 /root
exec /bin/busybox switch_root /root /sbin/init
"""
# Read by the GRUB that the firmware starts: that of the packages looks for it in this place.
_FIRST_CFG = (
    f"search --no-floppy --fs-uuid --set=root {FS_ID}\n"
    "set prefix=($root)/boot/grub\n"
    "configfile $prefix/grub.cfg\n"
)


@dataclass(frozen=True)
class Files:
    """What a machine is made of."""

    disk: Path
    firmware: tuple[Path, Path]
    """Its code, and what its variables are in the beginning."""
    host_key: str
    login_key: Path


def files(folder: Path) -> Files:
    """What make() has made there."""
    return Files(
        folder / "disk.img",
        (folder / "code.fd", folder / "vars.fd"),
        (folder / "host_key").read_text().strip(),
        folder / "login_key",
    )


def digest() -> str:
    """Of all that decides what an image is."""
    recipe = [
        packages.suite(),
        *PACKAGES,
        Path(__file__).read_text(),
        Path(gpt.__file__).read_text(),
    ]
    return hashlib.sha256("\n".join(recipe).encode()).hexdigest()[:16]


def make(folder: Path) -> Files:
    """An image that boots once, to be finished; all files are in `folder`."""
    source = _packages()
    root = folder / "root"
    shutil.copytree(source / "root", root, symlinks=True)
    login, host = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    _configure(root, login, host)
    _first_boot(root)
    for name, path in zip(("code.fd", "vars.fd"), FIRMWARE, strict=True):
        shutil.copy(source / Path(path).name, folder / name)
    (folder / "host_key").write_text(_public(host))
    _secret(folder / "login_key", login)
    _disk(folder, root, source / Path(GRUB).name)
    shutil.rmtree(root)
    return files(folder)


def _packages() -> Path:
    """The files of the packages, by the way of the host image's (hosts/packages.py)."""
    key = hashlib.sha256("\n".join([packages.suite(), *PACKAGES]).encode()).hexdigest()[:16]
    entry = cache.get_or_make(
        "images",
        f"disk-packages-{key}",
        _unpack,
        deadline=Deadline(UNPACK_SECONDS),
        what="packages for a disk",
        need=NEED,
    )
    return entry.path


def _unpack(folder: Path) -> None:
    what = "unpacking packages for a disk"
    with packages.unpack(PACKAGES, folder, Deadline(UNPACK_SECONDS), what) as tar:
        for member in tar:
            member.name = _place(member.name)
            if member.name in (*FIRMWARE, GRUB):
                (folder / Path(member.name).name).write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
            if not member.name.startswith(_LEFT_OUT) and not member.isdev():
                if member.islnk():
                    member.linkname = _place(member.linkname)
                _add(tar, member, folder / "root")


def _add(tar: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    """Unpack it, but no link in the place of a folder: these are made by _configure()."""
    if member.name in _MERGED and not member.isdir():
        return
    tar.extract(member, root, set_attrs=not member.issym(), filter="tar")


def _place(name: str) -> str:
    name = os.path.normpath(name).lstrip("/")
    first, _, rest = name.partition("/")
    return f"usr/{name}" if first in _MERGED and rest else name


def _configure(root: Path, login: Ed25519PrivateKey, host: Ed25519PrivateKey) -> None:
    """What the scripts of the packages would have done, as far as it is missed."""
    for name in _MERGED:
        shutil.rmtree(root / name, ignore_errors=True)
        (root / name).symlink_to(f"usr/{name}")
    for name in ("dev", "proc", "run", "sys", "tmp", "boot/grub", "root/.ssh", "boot/efi"):
        (root / name).mkdir(parents=True, exist_ok=True)
    for name, text in _FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    _users(root)
    (root / "root/.ssh/authorized_keys").write_text(f"{_public(login)}\n")
    (root / "root/.ssh").chmod(0o700)
    _secret(root / "etc/ssh/host_key", host)
    units = root / "etc/systemd/system"
    for target, names in _SERVICES.items():
        (units / target).mkdir(exist_ok=True)
        for name in names:
            (units / target / name).symlink_to(f"/usr/lib/systemd/system/{name}")
    for name in _MASKED:
        (units / name).symlink_to("/dev/null")
    (units / "default.target").symlink_to("/usr/lib/systemd/system/multi-user.target")
    env = b"# GRUB Environment Block\n"
    (root / "boot/grub/grubenv").write_bytes(env.ljust(1024, b"#"))


def release(root: Path) -> str:
    """Of the kernel that the packages brought."""
    (found,) = (path.name for path in (root / "usr/lib/modules").iterdir())
    return found


def _first_boot(root: Path) -> None:
    """An initramfs with its drivers, and a grub.cfg without a menu, for as long as it is needed."""
    initrd = f"initrd.img-{release(root)}"
    modules = {path.stem: path for path in (root / "usr/lib/modules").rglob("*.ko")}
    entries = [
        cpio.char_device("dev/console", 5, 1),
        cpio.file("init", _INIT, 0o755),
        *(cpio.directory(name) for name in ("bin", "dev", "modules", "root")),
        cpio.file("bin/busybox", (root / "usr/bin/busybox").read_bytes(), 0o755),
    ]
    order: list[str] = []
    for name in _MODULES:
        _needed(name, modules, order)
    for number, name in enumerate(order):
        body = modules[name].read_bytes()
        entries.append(cpio.file(f"modules/{number:02}-{name}.ko", body, 0o644))
    (root / "boot" / initrd).write_bytes(cpio.archive(entries))
    (root / "boot/initrd.img").symlink_to(initrd)
    (root / "boot/grub/grub.cfg").write_text(
        f"search --no-floppy --fs-uuid --set=root {FS_ID}\n"
        f"linux /boot/vmlinuz-{release(root)} {COMMAND_LINE}\n"
        f"initrd /boot/{initrd}\n"
        "boot\n"
    )


def _needed(name: str, modules: dict[str, Path], order: list[str]) -> None:
    """Add a module to `order`, after those that it says it depends on; built-in ones are none."""
    if name in order or name not in modules:
        return
    found = re.search(rb"\0depends=([^\0]*)\0", b"\0" + modules[name].read_bytes())
    for other in found[1].decode().split(",") if found else ():
        _needed(other.replace("-", "_"), modules, order)
    order.append(name)


def _users(root: Path) -> None:
    """Nobody has a password."""
    master = root / "usr/share/base-passwd"
    passwd = (master / "passwd.master").read_text().replace(":*:", ":x:")
    group = (master / "group.master").read_text().replace(":*:", ":x:")
    for number, name in enumerate(_USERS, 990):
        passwd += f"{name}:x:{number}:{number}::/:/usr/sbin/nologin\n"
        group += f"{name}:x:{number}:\n"
    names = [line.partition(":")[0] for line in passwd.splitlines()]
    (root / "etc/passwd").write_text(passwd)
    (root / "etc/group").write_text(group)
    (root / "etc/shadow").write_text("".join(f"{name}:*:19000:0:99999:7:::\n" for name in names))


def _disk(folder: Path, root: Path, grub: Path) -> None:
    """The disk: a partition with GRUB, for the firmware, and one with all else."""
    disk = folder / "disk.img"
    with disk.open("wb") as image:
        image.truncate(DISK)
    gpt.write(
        disk,
        _DISK_ID,
        (
            gpt.Partition(gpt.ESP, _ESP_ID, ESP_AT, ESP_SIZE),
            gpt.Partition(gpt.LINUX_ROOT_ARM64, ROOT_ID, ROOT_AT, ROOT_SIZE),
        ),
    )
    first = folder / "grub.cfg"
    first.write_text(_FIRST_CFG)
    esp = ("-i", f"{disk}@@{ESP_AT}")
    sectors = str(ESP_SIZE // gpt.SECTOR)
    # In a user's name space, so that all files are root's whoever makes them.
    as_root = ("bwrap", "--unshare-user", "--uid", "0", "--gid", "0", "--dev-bind", "/", "/")
    for argv in (
        ("mformat", *esp, "-T", sectors, "-h", "64", "-s", "32", "::"),
        ("mmd", *esp, "::/EFI", "::/EFI/BOOT", "::/EFI/debian"),
        ("mcopy", *esp, str(grub), "::/EFI/BOOT/BOOTAA64.EFI"),
        ("mcopy", *esp, str(first), "::/EFI/debian/grub.cfg"),
        (
            *(*as_root, _MKE2FS, "-q", "-t", "ext4", "-U", str(FS_ID), "-d", str(root)),
            *("-E", f"offset={ROOT_AT}", str(disk), f"{ROOT_SIZE >> 10}k"),
        ),
    ):
        proc.run(argv, deadline=Deadline(MAKE_SECONDS), what=f"{argv[0]} for a disk")
    first.unlink()


def _public(key: Ed25519PrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
    )


def _secret(path: Path, key: Ed25519PrivateKey) -> None:
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
