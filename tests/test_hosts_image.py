# SPDX-License-Identifier: GPL-2.0-only
"""The parts of the host's image that need no packages."""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import image, packages

RAW = serialization.Encoding.Raw


@pytest.mark.parametrize("wanted", [False, True])
def test_a_host_has_qemu_where_it_is_asked_for(
    wanted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(folder: Path, deadline: Deadline) -> None:
        (folder / "image.json").write_text('{"host_key": "ssh-ed25519 AAAA"}')

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(image, "_build", build)
    qemu = {"usr/bin/qemu-system-aarch64": tmp_path / "qemu"}
    monkeypatch.setattr(image, "vmm_files", lambda deadline: qemu)
    assert image.host_image(Deadline(20), vmm=wanted).vmm == (qemu if wanted else {})


def strings(data: bytes) -> list[bytes]:
    """The SSH strings in a file (RFC 4251, section 5)."""
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        assert at + 4 + size <= len(data)
        found.append(data[at + 4 : at + 4 + size])
        at += 4 + size
    return found


def test_dropbear_key_parsed_back() -> None:
    key = Ed25519PrivateKey.generate()
    kind, pair = strings(image.dropbear_private(key))
    assert kind == b"ssh-ed25519"
    assert len(pair) == 64
    again = Ed25519PrivateKey.from_private_bytes(pair[:32])
    assert image._openssh_public(again) == image._openssh_public(key)
    public = again.public_key().public_bytes(RAW, serialization.PublicFormat.Raw)
    assert pair[32:] == public


@pytest.mark.skipif(shutil.which("dropbearkey") is None, reason="no dropbearkey here")
def test_dropbear_reads_its_key(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key").write_bytes(image.dropbear_private(key))
    shown = subprocess.run(
        ["dropbearkey", "-y", "-f", str(tmp_path / "key")], capture_output=True, text=True
    ).stdout
    assert image._openssh_public(key) in shown


@pytest.mark.parametrize(
    ("release", "suite"),
    [
        ({"ID": "debian", "VERSION_CODENAME": "trixie"}, "trixie"),
        ({"ID": "debian"}, "bookworm"),
        ({"ID": "ubuntu", "VERSION_CODENAME": "noble"}, "bookworm"),
        ({}, "bookworm"),
    ],
)
def test_suite(monkeypatch: pytest.MonkeyPatch, release: dict[str, str], suite: str) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    assert packages.suite() == suite


class Tar:
    """A root file system in a tar, as mmdebstrap leaves it."""

    def __init__(self) -> None:
        self._data = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._data, mode="w")

    def file(self, path: str, content: bytes) -> Tar:
        info = tarfile.TarInfo(path)
        info.size = len(content)
        self._tar.addfile(info, io.BytesIO(content))
        return self

    def link(self, path: str, target: str, kind: bytes = tarfile.SYMTYPE) -> Tar:
        info = tarfile.TarInfo(path)
        info.type, info.linkname = kind, target
        self._tar.addfile(info)
        return self

    def done(self) -> tarfile.TarFile:
        self._tar.close()
        self._data.seek(0)
        return tarfile.open(fileobj=self._data)


NEEDED = {
    b"busybox": [],
    b"dropbear": ["libcrypt.so.1", "libc.so.6"],
    b"sftp": ["libc.so.6"],
    b"libcrypt": ["libc.so.6"],
    b"libc": ["ld-linux-aarch64.so.1"],
    b"loader": [],
}


@pytest.fixture(autouse=True)
def plain_binaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs here are words, and the table above says what each needs."""
    monkeypatch.setattr(packages, "_needed", lambda binary: NEEDED[binary])


def bookworm() -> Tar:
    libraries = "./lib/aarch64-linux-gnu"
    return (
        Tar()
        .file("./bin/busybox", b"busybox")
        .file("./usr/sbin/dropbear", b"dropbear")
        .file("./usr/lib/openssh/sftp-server", b"sftp")
        .file(f"{libraries}/libc.so.6", b"libc")
        .link(f"{libraries}/libcrypt.so.1", "libcrypt.so.1.1.0")
        .file(f"{libraries}/ld-linux-aarch64.so.1", b"loader")
        .link("./lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu/ld-linux-aarch64.so.1")
    )


def contents(root: tarfile.TarFile) -> dict[str, bytes]:
    return packages.with_libraries(root, image.PROGRAMS, image.PACKAGES)


def test_programs_and_all_that_they_need() -> None:
    found = contents(
        bookworm().file("./lib/aarch64-linux-gnu/libcrypt.so.1.1.0", b"libcrypt").done()
    )
    assert found == {
        "bin/busybox": b"busybox",
        "usr/sbin/dropbear": b"dropbear",
        "usr/lib/openssh/sftp-server": b"sftp",
        "lib/aarch64-linux-gnu/libc.so.6": b"libc",
        "lib/aarch64-linux-gnu/libcrypt.so.1": b"libcrypt",
        "lib/ld-linux-aarch64.so.1": b"loader",
    }


def test_packages_of_a_merged_usr() -> None:
    """Debian 13: the packages have nothing outside /usr."""
    found = contents(
        Tar()
        .file("./usr/bin/busybox", b"busybox")
        .file("./usr/sbin/dropbear", b"dropbear")
        .file("./usr/lib/openssh/sftp-server", b"sftp")
        .file("./usr/lib/aarch64-linux-gnu/libc.so.6", b"libc")
        .file("./usr/lib/aarch64-linux-gnu/libcrypt.so.1", b"libcrypt")
        .file("./usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", b"loader")
        .link("./usr/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu/ld-linux-aarch64.so.1")
        .done()
    )
    assert found["bin/busybox"] == b"busybox"
    assert found["lib/ld-linux-aarch64.so.1"] == b"loader"
    assert found["usr/lib/aarch64-linux-gnu/libc.so.6"] == b"libc"


def test_a_library_that_is_missing_is_named() -> None:
    with pytest.raises(InfraError, match=r"libcrypt\.so\.1\.1\.0 is in none of the packages"):
        contents(bookworm().done())
    with pytest.raises(InfraError, match=r"sbin/dropbear needs libcrypt\.so\.1, which no"):
        contents(
            Tar()
            .file("./bin/busybox", b"busybox")
            .file("./usr/sbin/dropbear", b"dropbear")
            .file("./usr/lib/openssh/sftp-server", b"loader")
            .done()
        )
    without = Tar().file("./bin/busybox", b"dropbear").done()
    with pytest.raises(InfraError, match=r"usr/lib/openssh/sftp-server is in none"):
        contents(without)


def test_links_without_end() -> None:
    libraries = "./lib/aarch64-linux-gnu"
    root = bookworm().link(f"{libraries}/libcrypt.so.1.1.0", "libcrypt.so.1").done()
    with pytest.raises(InfraError, match="libcrypt"):
        contents(root)


def test_hard_links_and_absolute_links() -> None:
    libraries = "./lib/aarch64-linux-gnu"
    root = (
        bookworm()
        .link(f"{libraries}/libcrypt.so.1.1.0", "/opt/real")
        .file("./opt/first", b"libcrypt")
        .link("./opt/real", "./opt/first", tarfile.LNKTYPE)
        .done()
    )
    assert contents(root)["lib/aarch64-linux-gnu/libcrypt.so.1"] == b"libcrypt"


def test_init_says_what_is_waited_for() -> None:
    assert f'echo "{image.UP}"' in image.INIT.read_text().splitlines()
