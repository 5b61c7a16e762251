# SPDX-License-Identifier: GPL-2.0-only
"""VMs that live together: whose fault it is if one gets no memory, and what is not judged."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest
from fake_guest import start

from harness.checks.claim import Claim
from harness.checks.test_crowd import PLENTY, available, have_crowd, tells_of_shared
from harness.checks.test_leaks import Reading
from harness.guest_errors import GuestBroke, GuestNoMemory
from harness.observe.slab import Cache

NO_MEMORY = "error guest the vCPU of a second VM did not start: Cannot allocate memory (errno 12)"
NO_DEVICE = "error guest the vCPU of a second VM did not start: No such device or address (errno 6)"


class Shell:
    """Has so many bytes available, now and later, of which some are CMA's."""

    def __init__(self, *amounts: int, cma: int = 0) -> None:
        self._amounts = list(amounts)
        self._cma = cma

    def read(self, path: str) -> str:
        assert path == "/proc/meminfo"
        most = self._amounts.pop(0) + self._cma
        return (
            f"MemTotal: 9999999 kB\nMemAvailable: {most >> 10} kB\nCmaFree: {self._cma >> 10} kB\n"
        )


def crowd(reply: str, *amounts: int, cma: int = 0) -> None:
    guest, _ = start(reply)
    have_crowd(guest, cast(Any, Shell(*amounts, cma=cma)))


def readings(*names: str) -> tuple[Reading, ...]:
    caches = MappingProxyType({name: Cache(64, 64, 64) for name in names})
    return (Reading(0, caches),) * 3


def unjudged(cpus: int, *names: str) -> tuple[str, ...]:
    claim = Claim(Path("unused"), "")
    tells_of_shared(readings(*names), cpus, claim)
    return claim.unjudged


def test_a_crowd_that_runs_passes_on_any_host() -> None:
    crowd("ok asked=192 made=192", 0)


def test_a_vcpu_that_gets_no_memory_where_there_is_plenty_fails() -> None:
    with pytest.raises(AssertionError, match=r"errno 12\), while 384 MiB were available"):
        crowd(NO_MEMORY, PLENTY, 2 * PLENTY)


@pytest.mark.parametrize("amounts", [(PLENTY - 4096, PLENTY), (PLENTY, PLENTY - 4096)])
def test_a_vcpu_that_gets_none_where_there_is_little_is_no_failure(
    amounts: tuple[int, int],
) -> None:
    with pytest.raises(GuestNoMemory):
        crowd(NO_MEMORY, *amounts)


def test_memory_of_cma_is_none_that_the_kernel_can_have() -> None:
    assert available(cast(Any, Shell(4096, cma=8192))) == 4096
    with pytest.raises(GuestNoMemory):
        crowd(NO_MEMORY, 4096, 4096, cma=2 * PLENTY)


def test_a_vcpu_that_fails_otherwise_broke_whatever_memory_there_is() -> None:
    with pytest.raises(GuestBroke):
        crowd(NO_DEVICE, 0, 0)


def test_what_stays_shared_is_judged_by_its_objects_on_two_cpus() -> None:
    assert not unjudged(2, "kmalloc-64")
    (why,) = unjudged(3, "kmalloc-64")
    assert "on 3 CPUs kmalloc-64 does not tell" in why
    assert unjudged(1, "kmalloc-8k")
