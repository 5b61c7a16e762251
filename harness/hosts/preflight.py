# SPDX-License-Identifier: GPL-2.0-only
"""Before the checks: is this the CPU that the inventory says, and does nothing move its pages?"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator

from harness.errors import InfraError
from harness.hosts.protocols import Shell
from harness.inventory import QemuHost
from harness.observe import collect, lru_gen

# What moves or merges pages in the background; 0 turns it off, or (khugepaged) keeps it from making
# room for itself. Tested memory of 4 KiB pages is beyond khugepaged anyway (MADV_NOHUGEPAGE).
# Documentation/admin-guide/sysctl/vm.rst and mm/transhuge.rst.
BACKGROUND = (
    "/proc/sys/vm/compaction_proactiveness",
    "/sys/kernel/mm/transparent_hugepage/khugepaged/defrag",
    "/sys/kernel/mm/ksm/run",
)

VMM = "qemu-system-aarch64"


def require_af(host: QemuHost, shell: Shell) -> None:
    """InfraError unless CPU and kernel agree with the inventory on FEAT_HAFDBS.

    Asked of the base kernel only: a patched one that lost it is what the checks are there for.
    Two witnesses: MIDR_EL1 of each CPU that is known, and bit 0x2 of lru_gen/enabled, which the
    kernel shows only where hardware manages AF at stage 1.
    """
    for number, midr in collect.cpus(shell).items():
        model = midr.model
        if model is not None and model.hafdbs != (host.af == "hardware"):
            raise InfraError(
                f"the inventory says af: {host.af}, but CPU {number} is a {model.name}"
            )
    enabled = lru_gen.parse_enabled(shell.read(lru_gen.ENABLED))
    if bool(enabled & lru_gen.Enabled.MM_WALK) != (host.af == "hardware"):
        raise InfraError(
            f"the inventory says af: {host.af}, but lru_gen/enabled is {int(enabled):#06x}"
        )


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
