# SPDX-License-Identifier: GPL-2.0-only
"""Which kernels have PREEMPT_RT, by what they say of themselves."""

from __future__ import annotations

import pytest

from harness.observe.preempt import says_realtime

DEBIAN = "#1 SMP PREEMPT_RT Debian 6.12.43-1 (2025-08-27)\n"
PLAIN = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.43-1 (2025-08-27)\n"


@pytest.mark.parametrize(
    "text", [DEBIAN, f"{PLAIN}1\n", f"{PLAIN}CONFIG_PREEMPT_RT=y\n", f"{DEBIAN}0\n"]
)
def test_a_kernel_that_says_so_in_one_place_is_realtime(text: str) -> None:
    assert says_realtime(text)


@pytest.mark.parametrize("text", [PLAIN, f"{PLAIN}0\n", "#11 SMP kvm-harness\n", "#1 PREEMPT\n"])
def test_any_other_is_not(text: str) -> None:
    assert not says_realtime(text)
