# SPDX-License-Identifier: GPL-2.0-only
"""Before the checks: is this the CPU that the inventory says, and does nothing move its pages?"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator, Sequence

from harness.errors import InfraError
from harness.hosts.protocols import Shell
from harness.inventory import QemuHost, SshHost
from harness.observe import lru_gen
from harness.observe.af import Expected

# What moves or merges pages in the background; 0 turns it off, or (khugepaged) keeps it from making
# room for itself. Tested memory of 4 KiB pages is beyond khugepaged anyway (MADV_NOHUGEPAGE).
# Documentation/admin-guide/sysctl/vm.rst and mm/transhuge.rst.
BACKGROUND = (
    "/proc/sys/vm/compaction_proactiveness",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
    "/sys/kernel/mm/ksm/run",
)

VMM = "qemu-system-aarch64"


def require_cpus(host: QemuHost | SshHost, expected: Sequence[Expected]) -> None:
    """InfraError if the inventory is wrong about FEAT_HAFDBS of a CPU.

    Asked of any kernel, since none changes its CPU: what the checks of a patched one find in spite
    of it would be blamed on the series.
    """
    for kind in expected:
        if kind.hafdbs is not None and kind.hafdbs != (host.af == "hardware"):
            has = "has" if kind.hafdbs else "lacks"
            raise _inventory_wrong(host, f"{kind.name} {has} FEAT_HAFDBS: {kind.why}", expected)


def require_af(host: QemuHost | SshHost, expected: Sequence[Expected], shell: Shell) -> None:
    """InfraError unless the kernel agrees with the inventory on who manages the access flag.

    Asked of the base kernel only: a patched one that lost it is what the checks are there for.
    Two witnesses: what is expected at stage 2, and bit 0x2 of lru_gen/enabled, which the kernel
    shows only where hardware manages AF at stage 1 on all CPUs.
    """
    for kind in expected:
        if kind.af != host.af and kind.hafdbs is None:
            raise _inventory_wrong(host, f"on {kind.name} it is {kind.af}: {kind.why}", expected)
        if kind.af != host.af:
            raise InfraError(
                f"on {kind.name} this kernel leaves the access flag to {kind.af}, which is not "
                f"what the CPU can do; such a host cannot be tested: {kind.why}"
            )
    enabled = lru_gen.parse_enabled(shell.read(lru_gen.ENABLED))
    if bool(enabled & lru_gen.Enabled.MM_WALK) != (host.af == "hardware"):
        raise InfraError(
            f"the inventory says af: {host.af}, but lru_gen/enabled is {int(enabled):#06x}"
        )


def _inventory_wrong(
    host: QemuHost | SshHost, but: str, expected: Sequence[Expected]
) -> InfraError:
    text = f"the inventory says af: {host.af}, but {but}"
    if len({kind.af for kind in expected}) > 1:
        text += "; CPUs that differ in it cannot be tested together"
    return InfraError(text)


def require_vmm(shell: Shell) -> str:
    """What QEMU the host has for Linux guests, as it says; InfraError if none that runs there.

    That of an emulated host came with it; one of the lab has its distribution's own.
    """
    found = shell.run(f"{VMM} --version", check=False)
    if found.status != 0:
        raise InfraError(
            f"the host has no {VMM} that runs, which --linux-guest needs "
            f"(Debian: apt-get install qemu-system-arm): {found.stderr.strip()[-200:]}"
        )
    return found.stdout.partition("\n")[0].strip()[:200]


@contextlib.contextmanager
def quiet(shell: Shell) -> Iterator[None]:
    """Keep compaction, khugepaged and KSM off the tested pages; as it was before afterwards."""
    files = " ".join(shlex.quote(path) for path in BACKGROUND)
    before = shell.run(
        f"for f in {files}; do [ -w $f ] && echo $f $(cat $f) && echo 0 > $f; done; true"
    ).stdout
    yield
    # Not after an error: the host may be dead, and what is to be told is that error.
    for line in before.splitlines():
        path, _, value = line.partition(" ")
        if path in BACKGROUND and value.strip().isdigit():
            shell.write(path, f"{value.strip()}\n")
