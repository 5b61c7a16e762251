# SPDX-License-Identifier: GPL-2.0-only
"""Boot arguments of hosts (Documentation/admin-guide/kernel-parameters.txt)."""

from __future__ import annotations

from collections.abc import Sequence

# What a machine's own command line may say and a test kernel must not be told: what cells set
# themselves (isolcpus adds up), what keeps messages off the console, and what a boot loader adds.
_NOT_KEPT = (
    *("kvm-arm.mode", "panic", "earlycon", "nohz_full", "isolcpus", "rcu_nocbs"),
    *("quiet", "splash", "loglevel", "console_suspend"),
    *("BOOT_IMAGE", "initrd", "watchdog.stop_on_reboot"),
)
# Seconds after a panic: long enough for the console to carry its trace out.
PANIC_SECONDS = 15


def tickless(cpus: int) -> tuple[str, ...]:
    """Keep the last CPU free of the tick and of kernel work, for a vCPU that never exits."""
    last = cpus - 1
    return (f"nohz_full={last}", f"isolcpus=nohz,domain,{last}", f"rcu_nocbs={last}")


def of_machine(own: str, asked: Sequence[str]) -> str:
    """The command line of a test kernel: the machine's own (root=, console= ...), then the cell's.

    After a panic the machine starts again, into its known-good kernel.
    """
    kept = [word for word in own.split() if word.partition("=")[0] not in _NOT_KEPT]
    return " ".join([*kept, "earlycon", f"panic={PANIC_SECONDS}", *asked])
