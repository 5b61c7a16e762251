# SPDX-License-Identifier: GPL-2.0-only
"""That a kernel must link without KVM as well: whose fault it is when it does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel_helpers import AGE, as_mail, edit, soon, toy_source

from harness import without_kvm
from harness.errors import InfraError
from harness.kernel import apply, series
from harness.kernel.build import BaseBuildError, KernelBuildError
from harness.kernel.config import ConfigError, Mismatch, Tree, Wish, read_fragments
from harness.kernel.flavor import PLAIN, WITHOUT_KVM, Flavor
from harness.results import SERIES, Check
from harness.without_kvm import build_without_kvm, reaches_beyond

SOURCE: Any = SimpleNamespace(name="source")
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
) -> Check:
    """The check's record where building the source and the patched tree ends like this."""
    (tmp_path / "log").write_text("the log\n")
    built = SimpleNamespace(log=tmp_path / "log", config=tmp_path / "log", build_id="c0ffee")

    def build(tree: object, *, base: object, fragments: object, **_: object) -> object:
        assert fragments == WITHOUT_KVM.fragments
        assert (tree is SOURCE) == (base is None), "the patched tree is built upon the source's"
        trouble = ends[tree is SOURCE]
        if trouble is not None:
            raise trouble
        return built

    ends = {True: base, False: after}
    monkeypatch.setattr(without_kvm, "build", build)
    return build_without_kvm(SOURCE, patched(*touched), tmp_path, deadline=soon())


def no_compile(kind: type[KernelBuildError] | type[BaseBuildError], tmp_path: Path) -> Exception:
    return kind("it does not compile: undefined reference", "undefined reference", tmp_path / "log")


def test_it_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = judge(tmp_path, monkeypatch)
    assert (check.cell, check.name, check.outcome) == (SERIES, "build_without_kvm", "pass")
    assert "c0ffee" in check.observed and "mm/vmscan.c" in check.observed
    assert {(tmp_path / path).read_text() for path in check.evidence} == {"the log\n"}
    assert check.evidence[0].startswith("series/build_without_kvm/")


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
    assert reaches_beyond(("arch/arm64/kvm/mmu.c", path)) == (path,)


def test_kvm_and_nothing_but_what_hangs_on_it_is_off() -> None:
    tree = Tree("6.12.117", lambda symbol: True)
    plain = read_fragments(PLAIN.fragments, tree).wishes
    without = read_fragments(WITHOUT_KVM.fragments, tree).wishes
    off = {name for name, wish in without.items() if wish.value != plain.get(name, wish).value}
    assert {"KVM", "VIRTUALIZATION"} <= off
    assert {without[name].value for name in off} == {"n"}
    assert "LRU_GEN" not in off and "IDLE_PAGE_TRACKING" not in off


@pytest.mark.integration
def test_real_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the toy tree: one that links, one that calls what is not there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fragment = tmp_path / "a.config"
    fragment.write_text("CONFIG_NR_CPUS=4\n# CONFIG_KVM is not set\n")
    monkeypatch.setattr(without_kvm, "WITHOUT_KVM", Flavor("toy", (fragment,)))
    source = toy_source(tmp_path)

    def check(diff: str) -> Check:
        (tmp_path / "t.mbox").write_text(as_mail("[PATCH] one", diff))
        tree = apply.apply(series.load(str(tmp_path / "t.mbox")), source, soon())
        return build_without_kvm(source, tree, tmp_path, deadline=soon())

    assert check(edit("kvm/mmu.c", AGE)).outcome == "pass"
    assert "# CONFIG_KVM is not set" in (tmp_path / "series/build_without_kvm/config").read_text()
    broken = check(edit("kvm/start.c", {"mmu_age(41)": "kvm_stub(41)"}))
    assert broken.outcome == "fail"
    assert "kvm_stub" in broken.observed
