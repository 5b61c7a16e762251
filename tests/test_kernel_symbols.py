# SPDX-License-Identifier: GPL-2.0-only
"""What a tree declares is looked up once, and a series cannot change it for its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.kernel import cache, symbols
from harness.kernel.apply import PatchedTree
from harness.kernel.source import Source


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tree(folder: Path, *declared: str) -> Path:
    folder.mkdir()
    (folder / "Kconfig").write_text("".join(f"config {name}\n\tbool\n" for name in declared))
    return folder


def source(folder: Path) -> Source:
    return Source(dir=folder, digest="s", version="6.2.1", description="a tree")


def patched(folder: Path) -> PatchedTree:
    return PatchedTree(
        dir=folder, digest="p", source_digest="s", version="6.2.1", description="x", touched=()
    )


def test_it_is_looked_up_once(tmp_path: Path) -> None:
    folder = tree(tmp_path / "a", "KVM")
    assert symbols.of(source(folder))("KVM")
    (folder / "Kconfig").unlink()
    assert symbols.of(source(folder))("KVM") and not symbols.of(source(folder))("SWAP")


def test_a_patched_tree_is_asked_for_what_its_source_declares(tmp_path: Path) -> None:
    knows = symbols.of(source(tree(tmp_path / "a", "KVM")))
    assert knows("KVM")
    assert not symbols.of(patched(tree(tmp_path / "b", "KVM", "NEW")))("NEW")


def test_what_a_series_declares_is_not_kept_for_its_source(tmp_path: Path) -> None:
    assert symbols.of(patched(tree(tmp_path / "b", "KVM", "NEW")))("NEW")
    assert not symbols.of(source(tree(tmp_path / "a", "KVM")))("NEW")
    assert [path.name for path in cache.folder("symbols").iterdir()] == ["s"]
