# SPDX-License-Identifier: GPL-2.0-only
"""What a report says of the compiler."""

from __future__ import annotations

from harness.kernel.toolchain import Toolchain

SAID = """\
Using built-in specs.
Target: aarch64-linux-gnu
gcc version 12.2.0 (Debian 12.2.0-14)\x20
GNU ld (GNU Binutils for Debian) 2.40
Target: x86_64-linux-gnu
gcc version 13.1.0 (of the machine that builds)
"""


def test_the_compiler_for_arm64_and_its_linker() -> None:
    gcc = "aarch64-linux-gnu-gcc version 12.2.0 (Debian 12.2.0-14)"
    assert Toolchain(SAID, "1.45.0").compiler == f"{gcc}, GNU ld (GNU Binutils for Debian) 2.40"


def test_a_compiler_that_does_not_say() -> None:
    assert Toolchain("clang", "1.45.0").compiler == ""
