# SPDX-License-Identifier: GPL-2.0-only
"""Build the programs that run on hosts (guests/) for arm64, once for each state of their source."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from harness import proc
from harness.deadline import Deadline
from harness.kernel import cache
from harness.paths import PROJECT

NEED = 32 << 20  # bytes of disk


def compiler() -> str:
    """The C compiler for arm64 on this controller."""
    return "gcc" if platform.machine() == "aarch64" else "aarch64-linux-gnu-gcc"


def guest_program(deadline: Deadline, source: Path = PROJECT / "guests") -> Path:
    """The static arm64 program kvm-guest; InfraError with the compiler's words if it fails."""
    return guest_programs(deadline, source) / "kvm-guest"


def cost_program(deadline: Deadline, source: Path = PROJECT / "guests") -> Path:
    """The static arm64 program that is all of a host which counts instructions; as above."""
    return guest_programs(deadline, source) / "cost-init"


def guest_programs(deadline: Deadline, source: Path = PROJECT / "guests") -> Path:
    """The folder with all that guests/ builds; InfraError as guest_program() raises it."""
    files = sources(source)
    version = proc.run([compiler(), "--version"], deadline=deadline, what=f"{compiler()}").stdout
    identity = hashlib.sha256(version.encode())
    for path in files:
        identity.update(f"{path.relative_to(source)}\n".encode() + path.read_bytes())

    def build(folder: Path) -> None:
        proc.run(
            ["make", "-C", str(source), f"CC={compiler()}", f"O={folder}", "-j2"],
            deadline=deadline,
            what="building the programs of guests/",
            contained=True,
        )

    entry = cache.get_or_make(
        "programs",
        identity.hexdigest()[:16],
        build,
        deadline=deadline,
        what="the programs of guests/",
        need=NEED,
    )
    return entry.path


def sources(source: Path = PROJECT / "guests") -> tuple[Path, ...]:
    """All that the programs are built from, in an order that does not change."""
    found = (path for path in source.rglob("*") if path.is_file())
    return tuple(sorted(path for path in found if not _is_extra(path.relative_to(source))))


def _is_extra(path: Path) -> bool:
    """What is no source: things built by hand, and dot files that editors and checkers leave."""
    return any(part == "build" or part.startswith(".") for part in path.parts)
