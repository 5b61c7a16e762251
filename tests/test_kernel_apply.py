# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

from pathlib import Path

import pytest
from kernel_helpers import AGE, YOUNG, as_mail, create, edit, soon, toy_source

from harness.errors import InfraError, UsageError
from harness.kernel import apply, cache, sandbox, series, unpack
from harness.kernel.source import Source


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(tmp_path: Path, *diffs: str) -> series.Series:
    mails = [
        as_mail(f"[PATCH {n}/{len(diffs)}] number {n}", text) for n, text in enumerate(diffs, 1)
    ]
    path = tmp_path / "t.mbox"
    path.write_text("".join(mails))
    return series.load(str(path))


def trees() -> list[str]:
    left = [*cache.folder("trees").iterdir(), *cache.folder("staging").iterdir()]
    return [path.name for path in left]


def test_a_series_changes_its_copy_and_not_the_source(tmp_path: Path) -> None:
    source = toy_source(tmp_path)
    before = {p: p.read_bytes() for p in source.dir.rglob("*") if p.is_file()}
    loaded = load(tmp_path, edit("kvm/mmu.c", AGE), edit("kvm/mmu.c", YOUNG), create("new", "x\n"))
    tree = apply.apply(loaded, source, soon())
    text = (tree.dir / "kvm/mmu.c").read_text()
    assert "page + 2" in text and "page & 3" in text
    assert (tree.dir / "new").read_text() == "x\n"
    assert {p: p.read_bytes() for p in source.dir.rglob("*") if p.is_file()} == before
    assert (tree.dir / "Makefile").samefile(source.dir / "Makefile")
    assert tree.touched == ("kvm/mmu.c", "new")
    assert apply.apply(loaded, source, soon()).dir == tree.dir


def test_the_digest_changes_with_diff_and_source_only(tmp_path: Path) -> None:
    source = toy_source(tmp_path)
    one = load(tmp_path, edit("kvm/mmu.c", AGE))
    other = load(tmp_path, edit("kvm/mmu.c", YOUNG))
    assert apply.apply(one, source, soon()).digest != apply.apply(other, source, soon()).digest
    elsewhere = source.model_copy(update={"digest": "elsewhere"})
    assert apply.apply(one, source, soon()).digest != apply.apply(one, elsewhere, soon()).digest


def test_a_hunk_that_does_not_apply_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    source = toy_source(tmp_path)
    far = {"i & 1": "i & 2", "level - 1": "level - 3"}
    stale = edit("kvm/mmu.c", far).replace("return level - 1", "return level * 9")
    with pytest.raises(UsageError) as caught:
        apply.apply(load(tmp_path, edit("kvm/mmu.c", AGE), stale), source, soon())
    message = str(caught.value)
    assert "patch 2/2 (number 2)" in message and "t.mbox" in message
    assert "kvm/mmu.c: hunk 2 of 2 (line " in message
    assert caught.value.exit_code == 2
    assert trees() == []


def test_a_patch_of_a_file_that_is_absent(tmp_path: Path) -> None:
    missing = edit("kvm/mmu.c", AGE).replace("kvm/mmu.c", "kvm/absent.c")
    with pytest.raises(UsageError, match=r"patch 1/1 .*kvm/absent\.c: No such file"):
        apply.apply(load(tmp_path, missing), toy_source(tmp_path), soon())


def test_a_patch_is_not_skipped_inside_somebody_elses_repository(tmp_path: Path) -> None:
    (tmp_path / ".git/objects").mkdir(parents=True)
    (tmp_path / ".git/refs").mkdir()
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main\n")
    tree = apply.apply(load(tmp_path, edit("kvm/mmu.c", AGE)), toy_source(tmp_path), soon())
    assert "page + 2" in (tree.dir / "kvm/mmu.c").read_text()


def test_writing_through_an_earlier_link_fails(tmp_path: Path) -> None:
    loaded = load(tmp_path, create("link", "kvm", "120000"), create("link/new.c", "x\n"))
    with pytest.raises(UsageError, match=r"patch 2/2 .*link/new\.c"):
        apply.apply(loaded, toy_source(tmp_path), soon())
    assert trees() == []


def test_a_link_that_leads_out_by_another_link_is_refused(tmp_path: Path) -> None:
    # Each of the two alone, read as text, stays inside the tree.
    loaded = load(
        tmp_path, create("a/b/up", "../..", "120000"), create("a/b/l", "up/../x", "120000")
    )
    with pytest.raises(UsageError, match=r"patch 2/2 .*a/b/l is a link out of the tree"):
        apply.apply(loaded, toy_source(tmp_path), soon())


def test_applying_writes_nothing_but_the_tree(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    box = sandbox.Sandbox(writable={tmp_path / "tree": sandbox.SOURCE})
    script = f"echo x > /src/inside; echo x > /usr/outside; echo x > {tmp_path}/outside"
    sandbox.run(box, ("sh", "-c", script), deadline=soon(), what="writing")
    assert (tmp_path / "tree/inside").exists()
    assert not (tmp_path / "outside").exists() and not Path("/usr/outside").exists()


def test_explain_falls_back_to_what_git_said(tmp_path: Path) -> None:
    patch = load(tmp_path, edit("kvm/mmu.c", AGE)).patches[0]
    said = "Checking patch x...\nerror: corrupt patch at line 7\n"
    assert apply.explain(said, patch) == "corrupt patch at line 7"
    assert apply.explain("error: patch failed: other.c:12\n", patch) == "other.c: line 12"


def test_links_out_of_an_unpacked_tree(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/in").symlink_to("Makefile")
    unpack.refuse_links_out(tmp_path / "t", "it")
    (tmp_path / "t/out").symlink_to("../x")
    with pytest.raises(UsageError, match="it: out is a link out of the tree"):
        unpack.refuse_links_out(tmp_path / "t", "it")


def test_no_copy_of_a_source_that_is_gone(tmp_path: Path) -> None:
    gone = Source(dir=tmp_path / "gone", digest="d", version="1", description="it")
    with pytest.raises(InfraError, match="copying"):
        apply.apply(load(tmp_path, edit("kvm/mmu.c", AGE)), gone, soon())
    assert trees() == []
