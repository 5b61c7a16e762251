# SPDX-License-Identifier: GPL-2.0-only
"""Selftests of a toy tree through the real sandbox, make and cross compiler."""

from __future__ import annotations

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from kernel_helpers import as_mail, edit, soon, toy_tree

from harness.kernel import apply, series
from harness.kernel.source import Source, resolve
from harness.selftests import build

HEADERS = """
headers:
\t@mkdir -p $(O)/usr/include/linux
\t@echo '#define ANSWER 0' > $(O)/usr/include/linux/toy.h
"""
# As the kernel's own: the flags are the makefile's, to which the environment's are added.
MAKEFILE = """\
TEST_GEN_PROGS_arm64 = access_tracking_perf_test arm64/page_fault_test dirty_log_test
TEST_GEN_PROGS := $(patsubst %,$(OUTPUT)/%,$(TEST_GEN_PROGS_$(ARCH)))
LDFLAGS += -pthread
$(OUTPUT)/%: %.c
\t@mkdir -p $(@D)
\t@test -d $(abs_objdir)/tools
\t$(CROSS_COMPILE)gcc $(KHDR_INCLUDES) $(LDFLAGS) $< -o $@
"""
PROGRAM = "#include <linux/toy.h>\nint main(void) { return ANSWER; }\n"
KVM = "tools/testing/selftests/kvm"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tree_with_selftests(tmp_path: Path) -> Source:
    tree = toy_tree(tmp_path / "toy")
    with (tree / "Makefile").open("a") as out:
        out.write(HEADERS)
    (tree / KVM / "arm64").mkdir(parents=True)
    (tree / KVM / "Makefile").write_text(MAKEFILE)
    for name in ("access_tracking_perf_test", "arm64/page_fault_test", "set_memory_region_test"):
        (tree / KVM / f"{name}.c").write_text(PROGRAM)
    (tree / KVM / "dirty_log_test.c").write_text("int main(void) { return nonsense; }\n")
    return resolve(f"tree:{tree}", soon())


def test_each_is_built_static_and_what_does_not_compile_is_told(tmp_path: Path) -> None:
    source = tree_with_selftests(tmp_path)
    built = build.build(source, soon())
    assert sorted(built.programs) == ["access_tracking_perf_test", "page_fault_test"]
    assert list(built.broken) == ["dirty_log_test"]
    assert "dirty_log_test.c:1:" in built.broken["dirty_log_test"]
    assert "nonsense" in built.broken["dirty_log_test"]
    for program in built.programs.values():
        with program.open("rb") as handle:
            elf = ELFFile(handle)
            assert elf.header["e_machine"] == "EM_AARCH64"
            assert "PT_INTERP" not in [segment.header["p_type"] for segment in elf.iter_segments()]
    assert build.build(source, soon()) == built


def test_a_tree_without_selftests_has_none(tmp_path: Path) -> None:
    tree = toy_tree(tmp_path / "toy")
    built = build.build(resolve(f"tree:{tree}", soon()), soon())
    assert (built.programs, built.broken) == ({}, {})


def test_headers_that_cannot_be_made_break_all(tmp_path: Path) -> None:
    tree = toy_tree(tmp_path / "toy")
    (tree / KVM).mkdir(parents=True)
    (tree / KVM / "Makefile").write_text(MAKEFILE)
    built = build.build(resolve(f"tree:{tree}", soon()), soon())
    assert built.programs == {}
    assert "headers" in built.broken["dirty_log_test"]


def test_a_series_has_selftests_of_its_own(tmp_path: Path) -> None:
    source = tree_with_selftests(tmp_path)
    fix = edit(f"{KVM}/dirty_log_test.c", {"nonsense": "0"}, tmp_path / "toy")
    patch = tmp_path / "fix.patch"
    patch.write_text(as_mail("[PATCH] selftests: mend", fix))
    patched = apply.apply(series.load(str(patch)), source, soon())
    assert build.differ(patched.touched)
    mended = build.build(patched, soon())
    assert mended.broken == {}
    assert mended.programs["dirty_log_test"].is_file()
    assert build.build(source, soon()).broken


def test_options_are_those_of_each_tree_also_where_the_cache_has_the_programs(
    tmp_path: Path,
) -> None:
    source = tree_with_selftests(tmp_path)
    assert build.build(source, soon()).options["access_tracking_perf_test"] == frozenset()
    other = {"return": 'getopt(argc, argv, "hr:l"); return'}
    text = edit(f"{KVM}/access_tracking_perf_test.c", other, tmp_path / "toy")
    patch = tmp_path / "more.patch"
    patch.write_text(as_mail("[PATCH] selftests: more options", text))
    patched = apply.apply(series.load(str(patch)), source, soon())
    for _ in range(2):
        built = build.build(patched, soon())
        assert "access_tracking_perf_test" in built.broken
        assert built.options["access_tracking_perf_test"] == {"h", "r:", "l"}


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("tools/testing/selftests/kvm/dirty_log_test.c", True),
        ("tools/include/linux/bitmap.h", True),
        ("include/uapi/linux/kvm.h", True),
        ("arch/arm64/include/uapi/asm/kvm.h", True),
        ("arch/arm64/kvm/mmu.c", False),
        ("include/linux/kvm_host.h", False),
        ("Documentation/virt/kvm/api.rst", False),
    ],
)
def test_which_series_have_selftests_of_their_own(path: str, own: bool) -> None:
    assert build.differ(("arch/arm64/kvm/arm.c", path)) is own
    assert not build.differ(())
