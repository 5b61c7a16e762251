# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest

from harness.kernel import buildlog

COMPILER = """  CC      arch/arm64/kvm/mmu.o
In file included from /src/include/linux/kvm_host.h:12,
/src/arch/arm64/kvm/mmu.c: In function 'user_mem_abort':
/src/arch/arm64/kvm/mmu.c:40:9: warning: unused variable 'x' [-Wunused-variable]
/src/arch/arm64/kvm/mmu.c:1501:17: error: 'pgt' undeclared (first use in this function)
/src/arch/arm64/kvm/mmu.c:1600:1: error: expected ';'
make[5]: *** [/src/scripts/Makefile.build:229: arch/arm64/kvm/mmu.o] Error 1
"""
FATAL = "/src/kernel/fork.c:8:10: fatal error: linux/none.h: No such file or directory\n"
RELATIVE = "../mm/vmscan.c:7: error: x\n"
LINKER = """  LD      .tmp_vmlinux1
aarch64-linux-gnu-ld: arch/arm64/kvm/mmu.o: in function `f':
/src/arch/arm64/kvm/mmu.c:7: undefined reference to `nowhere'
make[2]: *** [/src/scripts/Makefile.vmlinux:34: vmlinux] Error 1
"""
MAKE = """make[3]: *** No rule to make target 'x.o', needed by 'built-in.a'.  Stop.
make: *** [Makefile:224: __sub-make] Error 2
"""
MODPOST = 'ERROR: modpost: "f" undefined!\nmake: *** [x] Error 1\n'


@pytest.mark.parametrize(
    ("log", "first"),
    [
        (
            COMPILER,
            "arch/arm64/kvm/mmu.c:1501:17: 'pgt' undeclared (first use in this function)",
        ),
        (FATAL, "kernel/fork.c:8:10: linux/none.h: No such file or directory"),
        (RELATIVE, "mm/vmscan.c:7: x"),
        (LINKER, "arch/arm64/kvm/mmu.c:7: undefined reference to `nowhere'"),
        (MAKE, "No rule to make target 'x.o', needed by 'built-in.a'.  Stop."),
        (MODPOST, 'ERROR: modpost: "f" undefined!'),
        ("make: *** [x] Error 2\n/src/a.c:1:1: error: later\n", "a.c:1:1: later"),
        ("  CC      init/error.o\n  all is well\n", None),
    ],
)
def test_the_first_error(log: str, first: str | None) -> None:
    assert buildlog.first_error(log.splitlines(keepends=True)) == first


@pytest.mark.parametrize(
    ("line", "lacking"),
    [
        ("/tmp/ccX.s: fatal error: error writing to x: No space left on device", "disk"),
        ("gcc: fatal error: Killed signal terminated program cc1", "memory"),
        ("cc1: out of memory allocating 65536 bytes", "memory"),
        ("mm/oom_kill.c:1:1: error: x", None),
    ],
)
def test_what_the_machine_ran_out_of(line: str, lacking: str | None) -> None:
    assert buildlog.ran_out(["  CC      x.o\n", line]) == lacking


@pytest.mark.parametrize(
    ("line", "step"),
    [
        (b"  CC      mm/vmscan.o\n", "CC mm/vmscan.o"),
        (b"  CC [M]  drivers/x.o\n", "CC drivers/x.o"),
        (b"  HOSTCC  scripts/kconfig/conf.o\n", "HOSTCC scripts/kconfig/conf.o"),
        (b"make[1]: Entering directory '/build'\n", None),
        (b"In file included from x:\n", None),
        (b"  note: something\n", None),
    ],
)
def test_steps(line: bytes, step: str | None) -> None:
    assert buildlog.step(line) == step
