# SPDX-License-Identifier: GPL-2.0-only
"""What VMs by the hundred leave behind, judged from readings."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import pytest
from test_checks_leaks import Resting

from harness.checks.charged import Charged
from harness.checks.claim import Claim
from harness.checks.test_churn import LOST, WAYS, Churned, judge, judge_percpu
from harness.checks.test_leaks import RESTING, Reading
from harness.observe.slab import Cache
from harness.observe.trace import PERCPU_ALLOC, PERCPU_FREE, Counts, Event, Wanted
from harness.observe.unproven import Unproven

AT_REST = Charged(user=2, kernel=1, objects=184, cpus=2)
WANTED = Wanted(events=(PERCPU_ALLOC, PERCPU_FREE))
FREED = (("call_site=kvm_init_stage2_mmu+0x1/0x2", PERCPU_ALLOC), ("", PERCPU_FREE))


def judged(
    charges: tuple[Charged, ...] = (AT_REST,) * 3,
    lost: tuple[int, ...] = (0, 0, 0),
    objects: tuple[int, ...] = (64, 64, 64),
    vmalloc: tuple[int, ...] = (900, 900, 900),
    trace: tuple[tuple[str, str], ...] = FREED,
) -> None:
    caches = [MappingProxyType({"kmalloc-64": Cache(active, 64, 64)}) for active in objects]
    readings = tuple(
        Reading(pages, cache, vmalloc=given)
        for pages, cache, given in zip(lost, caches, vmalloc, strict=True)
    )
    events = tuple(
        Event(at, 0, "kvm-guest", 7, name, text, {"ptr": 9})
        for at, (text, name) in enumerate(trace)
    )
    counts = Counts(WANTED, {}, 0, {}, events, "")
    claim = Claim(Path("unused"), "")
    churned = Churned(charges, readings, counts)
    judge(churned, WAYS["idle"], cast(Any, Resting(*objects[-1:] * RESTING)), claim, 0)
    judge_percpu(churned, WAYS["idle"], claim)


def grown(user: int, kernel: int, objects: int) -> Charged:
    return Charged(
        AT_REST.user + user, AT_REST.kernel + kernel, AT_REST.objects + objects, AT_REST.cpus
    )


def test_vms_that_leave_nothing_pass() -> None:
    judged()


def test_what_is_charged_once_is_no_leak() -> None:
    judged((AT_REST, grown(3, 9, 64), grown(3, 9, 64)))


def test_a_byte_of_objects_both_times_is_a_leak() -> None:
    with pytest.raises(AssertionError, match=r"leave behind .* 1 bytes of objects"):
        judged((AT_REST, grown(0, 0, 1), grown(0, 0, 2)))


def test_pages_of_a_process_both_times_are_a_leak() -> None:
    with pytest.raises(AssertionError, match="1 pages of processes"):
        judged((AT_REST, grown(1, 0, 0), grown(2, 0, 0)))


def test_pages_of_the_kernel_are_a_leak_when_they_are_as_many_as_cpus() -> None:
    judged((AT_REST, grown(0, 1, 0), grown(0, 2, 0)))
    with pytest.raises(AssertionError, match="2 pages of the kernel"):
        judged((AT_REST, grown(0, 2, 0), grown(0, 4, 0)))


def test_pages_that_nothing_accounts_for_are_bounded() -> None:
    judged(lost=(0, LOST - 1, 2 * LOST))
    with pytest.raises(AssertionError, match=f"{LOST} pages behind"):
        judged(lost=(0, LOST, 2 * LOST))


def test_pages_of_vmalloc_are_bounded_too() -> None:
    judged(vmalloc=(900, 900 + LOST - 1, 900 + 2 * LOST))
    with pytest.raises(AssertionError, match=rf"{LOST} pages behind that vmalloc\(\) gave"):
        judged(vmalloc=(900, 900 + LOST, 900 + 2 * LOST))


def test_an_object_for_each_vm_is_a_leak_though_it_is_not_charged() -> None:
    with pytest.raises(AssertionError, match="kmalloc-64"):
        judged(objects=(64, 256, 448))


def test_an_allocation_for_each_cpu_that_is_not_freed_is_a_leak() -> None:
    with pytest.raises(AssertionError, match="1 by kvm_init_stage2_mmu"):
        judged(trace=FREED[:1])


def test_a_memcg_that_is_charged_for_nothing_proves_nothing() -> None:
    with pytest.raises(Unproven, match="charges none"):
        judged((Charged(2, 0, 0),) * 3)
