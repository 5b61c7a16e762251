# SPDX-License-Identifier: GPL-2.0-only
"""Line numbers for a kernel that was built without any: which objects, by which command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from kernel_helpers import soon, toy_source

from harness.errors import InfraError
from harness.kernel import build, elf, lines, toolchain
from harness.kernel.built import Kernel
from harness.kernel.source import Source


def note(name: str, source: str) -> str:
    return f"savedcmd_{name} := gcc -c -o {name} {source}\n\nsource_{name} := {source}\n\ndeps_\n"


def test_an_object_that_was_compiled() -> None:
    assert lines.is_compiled("mm/a.o", note("mm/a.o", "/src/mm/a.c"))
    noted = "arch/arm64/kvm/../../../virt/kvm/kvm_main.o"
    assert lines.is_compiled("virt/kvm/kvm_main.o", note(noted, "/src/virt/kvm/kvm_main.c"))


@pytest.mark.parametrize(
    "text",
    [
        "savedcmd_mm/a.o := aarch64-linux-gnu-ld -r -o mm/a.o @mm/a.mod\n",
        note("mm/a.o", "/src/mm/a.S"),
        note("mm/b.o", "/src/mm/b.c"),
        "",
    ],
)
def test_what_no_compiler_made_is_left_alone(text: str) -> None:
    assert not lines.is_compiled("mm/a.o", text)


def test_objects_of_functions() -> None:
    nm = (
        "mm/a.o:0000000000000000 T young\n"
        "mm/a.o:0000000000000040 t walk\n"
        "mm/a.o:0000000000000040 d table\n"
        "fs/b.o:0000000000000000 t walk\n"
        "arch/arm64/kvm/hyp/nvhe/a.nvhe.o:0000000000000000 t walk\n"
        "mm/c.o:                 U young\n"
    )
    symbols = lines.parse_symbols(nm)
    assert lines.objects_of(["young", "walk"], symbols) == ("mm/a.o", "fs/b.o")
    assert lines.objects_of(["walk", "young"], symbols) == ("mm/a.o", "fs/b.o")
    assert lines.objects_of(["__kvm_nvhe_walk"], symbols) == ("arch/arm64/kvm/hyp/nvhe/a.nvhe.o",)
    assert lines.objects_of(["table", "none"], symbols) == ()
    many = {f"f{n}": [f"{n}.o"] for n in range(99)}
    assert len(lines.objects_of(many, many)) == lines.MAX_OBJECTS


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Kernel, Source]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.config").write_text("CONFIG_KVM=y\n")
    source = toy_source(tmp_path)
    return build.build(
        source, fragments=[tmp_path / "a.config"], base=None, deadline=soon()
    ), source


def addr2line(vmlinux: Path, function: str) -> str:
    listed = subprocess.run(
        [f"{toolchain.PREFIX}nm", vmlinux], capture_output=True, text=True, check=True
    )
    at = next(line.split()[0] for line in listed.stdout.splitlines() if line.endswith(function))
    argv = [f"{toolchain.PREFIX}addr2line", "-e", str(vmlinux), at]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def test_the_same_kernel_with_lines(toy: tuple[Kernel, Source]) -> None:
    kernel, source = toy
    assert not elf.has_lines(kernel.vmlinux)
    assert addr2line(kernel.vmlinux, " mmu_age").startswith("??")
    made = lines.with_lines(kernel, source, kernel, ["mmu_age"], soon())
    assert elf.has_lines(made)
    assert elf.loaded(made) == elf.loaded(kernel.vmlinux)
    assert addr2line(made, " mmu_age").startswith("/src/kvm/mmu.c:")
    assert kernel.build_dir is not None
    assert not elf.has_lines(kernel.build_dir / "vmlinux"), "the build folder is for patches"


def test_another_kernel_is_refused(toy: tuple[Kernel, Source], tmp_path: Path) -> None:
    kernel, source = toy
    data = bytearray(kernel.vmlinux.read_bytes())
    at = data.index(b"kvm-harness@")
    data[at] ^= 1
    other = tmp_path / "vmlinux"
    shutil.copyfile(kernel.vmlinux, other)
    other.write_bytes(bytes(data))
    ran = kernel.model_copy(update={"vmlinux": other})
    with pytest.raises(InfraError, match="another kernel than the one that ran"):
        lines.with_lines(ran, source, kernel, ["mmu_age"], soon())
