# SPDX-License-Identifier: GPL-2.0-only
"""Boot arguments of hosts (Documentation/admin-guide/kernel-parameters.txt)."""

from __future__ import annotations


def tickless(cpus: int) -> tuple[str, ...]:
    """Keep the last CPU free of the tick and of kernel work, for a vCPU that never exits."""
    last = cpus - 1
    return (f"nohz_full={last}", f"isolcpus=nohz,domain,{last}", f"rcu_nocbs={last}")
