# SPDX-License-Identifier: GPL-2.0-only
"""How many cells run at once when nobody says."""

from __future__ import annotations

import pytest

from harness import prepare
from harness.inventory import QemuHost


def host(memory_mib: int) -> QemuHost:
    return QemuHost(
        kind="qemu", cpu="some", af="hardware", kvm_modes=("vhe",), memory_mib=memory_mib
    )


def test_one_for_each_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {0, 1})
    assert prepare.cells_at_once([]) == 2


def test_as_many_as_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(
        "harness.observe.vmstat.parse_meminfo", lambda _text: {"MemAvailable": 5 << 30}
    )
    assert prepare.cells_at_once([host(2048), host(1024)]) == 2
    assert prepare.cells_at_once([host(8192)]) == 1
