# SPDX-License-Identifier: GPL-2.0-only
"""What a Linux guest needs on its host, by path: its kernel, its initramfs, what starts QEMU."""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.deadline import Deadline
from harness.hosts import cpio
from harness.kernel import cache
from harness.linux_guest.machine import INITRAMFS, KERNEL, VMM
from harness.programs import guest_programs

NEED = 16 << 20  # bytes of disk


def linux_guest_files(kernel: Path, deadline: Deadline) -> dict[str, Path]:
    """The files for a guest with that kernel, made unless cached; paths without the leading /."""
    programs = guest_programs(deadline)
    archive = initramfs((programs / "linux-guest-init").read_bytes())
    entry = cache.get_or_make(
        "programs",
        f"linux-guest-{hashlib.sha256(archive).hexdigest()[:16]}",
        lambda folder: _write(folder / "initramfs.cpio", archive),
        deadline=deadline,
        what="the initramfs of Linux guests",
        need=NEED,
    )
    files = {
        VMM: programs / "linux-guest-vmm",
        KERNEL: kernel,
        INITRAMFS: entry.path / "initramfs.cpio",
    }
    return {path.lstrip("/"): file for path, file in files.items()}


def initramfs(init: bytes) -> bytes:
    """An archive with one program, and the console that the kernel gives it."""
    entries = (
        cpio.char_device("dev/console", 5, 1),
        cpio.file("init", init, 0o755),
        cpio.directory("proc"),
    )
    return cpio.archive(entries)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
