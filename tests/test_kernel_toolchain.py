# SPDX-License-Identifier: GPL-2.0-only
"""What a report says of the compiler, and what the name of a machine's kernel does."""

from __future__ import annotations

import re

import pytest

from harness.errors import InfraError
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


DEFAULTS = """\
The following options are target specific:
  -march=                     \t\tarmv8-a
  -mfix-cortex-a53-843419     \t\t[enabled]

  Known AArch64 ABIs (for use with the -mabi= option):
    ilp32 lp64
"""
# The same compiler at home: a build for another machine, installed elsewhere.
AT_HOME = re.sub(r"(?s)Target: x86.*", "", f"COLLECT_GCC=/usr/bin/gcc\n{SAID}")


def test_a_compiler_is_the_same_wherever_it_runs() -> None:
    cross, native = Toolchain(SAID, "1.45.0", DEFAULTS), Toolchain(AT_HOME, "", DEFAULTS)
    assert cross.target == native.target
    assert cross.target[:2] == (
        "gcc version 12.2.0 (Debian 12.2.0-14)",
        "GNU ld (GNU Binutils for Debian) 2.40",
    )
    assert cross.compiler == native.compiler


@pytest.mark.parametrize(
    ("said", "defaults"),
    [
        (SAID.replace("12.2.0-14", "12.2.0-15"), DEFAULTS),
        (SAID.replace("2.40", "2.41"), DEFAULTS),
        (SAID, DEFAULTS.replace("[enabled]", "[disabled]")),
        (SAID, DEFAULTS.replace("armv8-a", "armv8.2-a")),
    ],
)
def test_another_version_or_other_defaults_are_another_compiler(said: str, defaults: str) -> None:
    assert Toolchain(said, "", defaults).target != Toolchain(SAID, "", DEFAULTS).target


def test_what_known_values_there_are_is_no_default() -> None:
    more = DEFAULTS.replace("ilp32 lp64", "ilp32 lp64 native")
    assert Toolchain(SAID, "", more).target == Toolchain(SAID, "", DEFAULTS).target


@pytest.mark.parametrize(("said", "defaults"), [("clang", DEFAULTS), (SAID, "")])
def test_a_compiler_that_does_not_say_names_no_kernel(said: str, defaults: str) -> None:
    with pytest.raises(InfraError, match="do not say which"):
        Toolchain(said, "", defaults).target  # noqa: B018
