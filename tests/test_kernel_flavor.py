# SPDX-License-Identifier: GPL-2.0-only
"""The configurations of a run's kernels: what each of them asks for."""

from __future__ import annotations

from harness.kernel.config import Tree, read_fragments
from harness.kernel.flavor import DEBUG, PLAIN

TREE = Tree("6.12.117", lambda symbol: True)


def test_a_debug_kernel_is_the_plain_one_and_what_looks_for_trouble() -> None:
    assert DEBUG.fragments[: len(PLAIN.fragments)] == PLAIN.fragments
    plain = read_fragments(PLAIN.fragments, TREE).wishes
    debug = read_fragments(DEBUG.fragments, TREE).wishes
    asked = {name: wish.value for name, wish in debug.items() if name not in plain}
    wanted = ("KASAN", "PROVE_LOCKING", "PROVE_RCU", "DEBUG_VM", "DEBUG_ATOMIC_SLEEP",
              "PAGE_POISONING", "PREEMPT")  # fmt: skip
    assert {asked[name] for name in wanted} == {"y"}
    assert all(debug[name] == wish for name, wish in plain.items())


def test_what_the_command_line_switches_is_switched_on() -> None:
    """Page poisoning is built in, but sleeps without this; KASAN tells of one access alone."""
    assert {"page_poison=1", "kasan_multi_shot"} <= set(DEBUG.cmdline)
    assert PLAIN.cmdline == ()
    assert DEBUG.slowdown > PLAIN.slowdown == 1
