# SPDX-License-Identifier: GPL-2.0-only
"""That other kernels must link with a series as well: whose fault it is when one does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel_helpers import AGE, as_mail, edit, soon, toy_source

from harness import series_builds
from harness.cli import main
from harness.errors import InfraError
from harness.kernel import apply, series, toolchain
from harness.kernel.build import BaseBuildError, KernelBuildError
from harness.kernel.config import ConfigError, Mismatch, Tree, Wish, read_fragments
from harness.kernel.flavor import PLAIN, WITHOUT_KVM, X86_KVM, Flavor
from harness.kernel.toolchain import Arch
from harness.results import SERIES, Check
from harness.series_builds import NAMES, SERIES_BUILDS, SeriesBuild, build_of_series

SOURCE: Any = SimpleNamespace(name="source")
WITHOUT, OTHERS = SERIES_BUILDS
WISH = Wish("KVM", "n", "f", 1)


def patched(*touched: str) -> Any:
    return SimpleNamespace(touched=touched)


def judge(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    base: Exception | None = None,
    after: Exception | None = None,
    touched: Sequence[str] = ("mm/vmscan.c",),
    which: SeriesBuild = WITHOUT,
    compiler: bool = True,
) -> Check:
    """The check's record where building the source and the patched tree ends like this."""
    (tmp_path / "log").write_text("the log\n")
    built = SimpleNamespace(log=tmp_path / "log", config=tmp_path / "log", build_id="c0ffee")

    def build(tree: object, *, base: object, fragments: object, arch: Arch, **_: object) -> object:
        assert (fragments, arch) == (which.flavor.fragments, which.arch)
        assert (tree is SOURCE) == (base is None), "the patched tree is built upon the source's"
        trouble = ends[tree is SOURCE]
        if trouble is not None:
            raise trouble
        return built

    ends = {True: base, False: after}
    monkeypatch.setattr(series_builds, "build", build)
    monkeypatch.setattr(toolchain, "compiles_for", lambda arch: compiler)
    return build_of_series(which, SOURCE, patched(*touched), tmp_path, deadline=soon())


def no_compile(kind: type[KernelBuildError] | type[BaseBuildError], tmp_path: Path) -> Exception:
    return kind("it does not compile: undefined reference", "undefined reference", tmp_path / "log")


@pytest.mark.parametrize("which", SERIES_BUILDS, ids=NAMES)
def test_it_links(which: SeriesBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = judge(tmp_path, monkeypatch, which=which)
    assert (check.cell, check.name, check.outcome) == (SERIES, which.name, "pass")
    assert "c0ffee" in check.observed and "mm/vmscan.c" in check.observed
    assert {(tmp_path / path).read_text() for path in check.evidence} == {"the log\n"}
    assert check.evidence[0].startswith(f"series/{which.name}/")


def test_the_series_does_not_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = no_compile(KernelBuildError, tmp_path)
    check = judge(tmp_path, monkeypatch, after=trouble)
    assert (check.outcome, check.observed) == ("fail", "undefined reference")
    assert [(tmp_path / path).read_text() for path in check.evidence] == ["the log\n"]


def test_the_series_does_not_let_go_of_kvm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trouble = ConfigError("CONFIG_KVM: wanted n, got y", (Mismatch(WISH, "y"),))
    check = judge(tmp_path, monkeypatch, after=trouble)
    assert check.outcome == "fail"
    assert "wanted n, got y" in check.reason


@pytest.mark.parametrize("kind", ["compile", "configure"])
def test_nor_does_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Nothing can be said of a series then."""
    trouble = no_compile(BaseBuildError, tmp_path)
    if kind == "configure":
        trouble = ConfigError("CONFIG_KVM: wanted n, got y", (Mismatch(WISH, "y"),))
    check = judge(tmp_path, monkeypatch, base=trouble)
    assert check.outcome == "unproven"
    assert str(trouble) in check.reason


def test_without_a_compiler_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = InfraError("built all the same")
    check = judge(tmp_path, monkeypatch, base=never, which=OTHERS, compiler=False)
    assert check.outcome == "unproven"
    assert "x86_64-linux-gnu-gcc" in check.reason


def test_a_full_disk_is_no_fault_of_a_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = judge(tmp_path, monkeypatch, after=InfraError("disk full"))
    assert (check.outcome, check.reason) == ("error", "disk full")


def test_it_is_not_built_for_what_only_kvm_is_built_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = InfraError("built all the same")
    inside = ("arch/arm64/kvm/mmu.c", "virt/kvm/kvm_main.c", "Documentation/virt/kvm/api.rst")
    check = judge(tmp_path, monkeypatch, base=never, touched=inside)
    assert check.outcome == "skip"
    assert check.reason


@pytest.mark.parametrize(
    "path",
    [
        *("arch/arm64/kvm/Kconfig", "virt/kvm/Kconfig", "arch/arm64/kernel/image-vars.h"),
        *("arch/arm64/include/asm/kvm_host.h", "include/linux/kvm_host.h", "mm/vmscan.c"),
        *("drivers/virt/kvm/a.c", "arch/arm64/kvm.c"),
    ],
)
def test_what_every_kernel_is_built_from(path: str) -> None:
    assert WITHOUT.built_from(("arch/arm64/kvm/mmu.c", path)) == (path,)


@pytest.mark.parametrize(
    "path",
    [
        *("virt/kvm/kvm_main.c", "include/linux/kvm_host.h", "arch/x86/kvm/mmu/mmu.c"),
        *("arch/Kconfig", "arch/x86/include/asm/kvm_host.h", "mm/vmscan.c"),
    ],
)
def test_what_a_kernel_for_x86_is_built_from(path: str) -> None:
    elsewhere = ("arch/arm64/kvm/mmu.c", "arch/riscv/kvm/mmu.c", "Documentation/virt/kvm/api.rst")
    assert OTHERS.built_from((*elsewhere, path)) == (path,)


def test_what_is_of_arm64_alone_is_not_built_for_x86(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = InfraError("built all the same")
    inside = ("arch/arm64/kvm/mmu.c", "arch/arm64/include/asm/kvm_host.h", "tools/kvm/a.c")
    check = judge(tmp_path, monkeypatch, base=never, touched=inside, which=OTHERS)
    assert check.outcome == "skip"
    assert "x86-64" in check.reason


def test_kvm_and_nothing_but_what_hangs_on_it_is_off() -> None:
    tree = Tree("6.12.117", lambda symbol: True)
    plain = read_fragments(PLAIN.fragments, tree).wishes
    without = read_fragments(WITHOUT_KVM.fragments, tree).wishes
    off = {name for name, wish in without.items() if wish.value != plain.get(name, wish).value}
    assert {"KVM", "VIRTUALIZATION"} <= off
    assert {without[name].value for name in off} == {"n"}
    assert "LRU_GEN" not in off and "IDLE_PAGE_TRACKING" not in off


def test_for_x86_kvm_is_built_in() -> None:
    """As a module it would be linked without a look at what is missing."""
    wishes = read_fragments(X86_KVM.fragments, Tree("6.12.117", lambda symbol: True)).wishes
    assert {wishes[name].value for name in ("KVM", "KVM_INTEL", "KVM_AMD", "64BIT")} == {"y"}


@pytest.mark.parametrize("narrowing", [["--base-only"], ["-k", "range"], ["--each-patch"]])
def test_other_kernels_are_not_asked_for_where_they_would_not_be_built(
    narrowing: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--build-others", *narrowing])
    assert ended.value.code
    assert "--build-others goes with a whole run" in capsys.readouterr().err


@pytest.mark.integration
@pytest.mark.parametrize("one", SERIES_BUILDS, ids=NAMES)
def test_real_builds(one: SeriesBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the toy tree: one that links, one that calls what is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fragment = tmp_path / "a.config"
    fragment.write_text("CONFIG_NR_CPUS=4\n# CONFIG_KVM is not set\n")
    which = replace(one, flavor=Flavor("toy", (fragment,)))
    source = toy_source(tmp_path)

    def check(diff: str) -> Check:
        (tmp_path / "t.mbox").write_text(as_mail("[PATCH] one", diff))
        tree = apply.apply(series.load(str(tmp_path / "t.mbox")), source, soon())
        return build_of_series(which, source, tree, tmp_path, deadline=soon())

    assert check(edit("kvm/mmu.c", AGE)).outcome == "pass"
    assert "# CONFIG_KVM is not set" in (tmp_path / "series" / one.name / "config").read_text()
    broken = check(edit("kvm/start.c", {"mmu_age(41)": "kvm_stub(41)"}))
    assert broken.outcome == "fail"
    assert "kvm_stub" in broken.observed
