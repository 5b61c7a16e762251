# SPDX-License-Identifier: GPL-2.0-only
"""The name that a kernel has in the cache."""

from __future__ import annotations

from harness.kernel import toolchain
from harness.kernel.built import key_of

TOOLS = toolchain.Toolchain("gcc version 12", "1.45.0")


def test_the_key_is_of_all_that_makes_a_kernel() -> None:
    keys = {
        key_of("tree", "CONFIG_KVM=y\n", TOOLS),
        key_of("other", "CONFIG_KVM=y\n", TOOLS),
        key_of("tree", "CONFIG_KVM=n\n", TOOLS),
        key_of("tree", "CONFIG_KVM=y\n", toolchain.Toolchain("gcc version 13", "1.45.0")),
        key_of("tree", "CONFIG_KVM=y\n", toolchain.Toolchain("gcc version 12", "1.46.0")),
    }
    assert len(keys) == 5
