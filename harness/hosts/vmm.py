# SPDX-License-Identifier: GPL-2.0-only
"""QEMU for emulated hosts, so that Linux guests run under KVM in them.

A host of the lab has its distribution's own. For one that is made here, Debian's arm64 QEMU is
unpacked with the libraries that it needs: about 50 MiB that only runs with Linux guests carry.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from harness.deadline import Deadline
from harness.hosts import packages
from harness.kernel import cache

PACKAGES = ("qemu-system-arm",)
# The machine `virt` with devices on virtio-mmio needs none of QEMU's firmware files.
PROGRAMS = ("usr/bin/qemu-system-aarch64",)
NEED = 512 << 20  # bytes of disk while packages are unpacked


def vmm_files(deadline: Deadline) -> dict[str, Path]:
    """QEMU and its libraries, by the path that each has on the host, unpacked unless cached."""
    source = Path(__file__).read_text() + Path(packages.__file__).read_text()
    recipe = "\n".join([packages.suite(), *PACKAGES, *PROGRAMS, source])
    entry = cache.get_or_make(
        "vmm",
        hashlib.sha256(recipe.encode()).hexdigest()[:16],
        lambda folder: _unpack(folder, deadline),
        deadline=deadline,
        what="QEMU for emulated hosts",
        need=NEED,
    )
    files = (path for path in entry.path.rglob("*") if path.is_file())
    return {str(path.relative_to(entry.path)): path for path in sorted(files)}


def _unpack(folder: Path, deadline: Deadline) -> None:
    what = "unpacking arm64 packages of QEMU for emulated hosts"
    with packages.unpack(PACKAGES, folder, deadline, what) as root:
        found = packages.with_libraries(root, PROGRAMS, PACKAGES)
    for path, body in found.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
