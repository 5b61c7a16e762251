# SPDX-License-Identifier: GPL-2.0-only
"""Allocations for each CPU that nobody frees, from the trace of Linux 6.12."""

from __future__ import annotations

import pytest

from harness.observe.errors import ObserveError
from harness.observe.percpu import kept
from harness.observe.trace import PERCPU_ALLOC, PERCPU_FREE, Event, Wanted
from harness.observe.trace_text import parse_trace

WANTED = Wanted(events=(PERCPU_ALLOC, PERCPU_FREE))
HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: {count}/{count}   #P:2\n"
TASK = "       kvm-guest-265     [000] .....    26.452912: "


def alloc(pointer: str, function: str = "kvm_init_stage2_mmu+0x118/0x270") -> str:
    return (
        f"{TASK}percpu_alloc_percpu: call_site={function} reserved=0 is_atomic=0 size=4 align=4 "
        f"base_addr=000000008a120686 off=14040 ptr={pointer} bytes_alloc=16 gfp_flags=GFP_KERNEL\n"
    )


def free(pointer: str) -> str:
    return f"{TASK}percpu_free_percpu: base_addr=000000008a120686 off=14040 ptr={pointer}\n"


def events(*lines: str) -> tuple[Event, ...]:
    return parse_trace(HEAD.format(count=len(lines)) + "".join(lines), WANTED.names)[0]


ONE, TWO = "00000000e3e3456b", "00000000c95f8da6"


def test_what_is_freed_is_not_kept() -> None:
    assert not kept(events(free(TWO), alloc(ONE), alloc(TWO), free(TWO), free(ONE)))


def test_what_is_kept_is_told_by_who_asked_for_it() -> None:
    srcu = "init_srcu_struct_fields+0x2a8/0x2f0"
    found = kept(
        events(alloc(ONE), free(ONE), alloc(ONE), alloc(TWO, srcu), alloc("0000000000000001"))
    )
    assert found == {"kvm_init_stage2_mmu": 2, "init_srcu_struct_fields": 1}


def test_a_function_of_a_module_is_one() -> None:
    assert kept(events(alloc(ONE, "kvm_init_stage2_mmu+0x1/0x2 [kvm]"))) == {
        "kvm_init_stage2_mmu": 1
    }


def test_a_kernel_that_does_not_tell_who_asked() -> None:
    line = f"{TASK}percpu_alloc_percpu: reserved=0 is_atomic=0 size=4 align=4 off=14040 ptr={ONE}\n"
    assert kept(events(line)) == {"an unknown function": 1}


def test_a_pointer_that_is_not_shown_is_refused() -> None:
    with pytest.raises(ObserveError, match="unknown form"):
        events(alloc("(____ptrval____)"))
