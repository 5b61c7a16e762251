# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import pytest
from kernel_helpers import create, edit

from harness.kernel import diff

PLAIN = "--- a/mm/x.c\t2023-02-17\n+++ b/mm/x.c\t2023-02-17\n@@ -1 +1 @@\n-a\n+b\n"


def paths(text: str) -> list[tuple[str, ...]]:
    return [file.paths for file in diff.files(text.encode())]


def test_files_and_hunks_of_a_patch() -> None:
    text = (
        "diff --git a/a.c b/a.c\nindex 1..2 100644\n--- a/a.c\n+++ b/a.c\n"
        "@@ -3,2 +3,3 @@ f()\n x\n+y\n z\n@@ -40 +41 @@\n-p\n+q\n"
        "diff --git a/b.c b/c.c\nsimilarity index 100%\nrename from b.c\nrename to c.c\n"
        "diff --git a/s.sh b/s.sh\nold mode 100644\nnew mode 100755\n"
    )
    files = diff.files(text.encode())
    assert [f.paths for f in files] == [("a.c",), ("b.c", "c.c"), ("s.sh",)]
    assert files[0].hunks == (3, 40)


def test_a_diff_without_git_headers() -> None:
    assert paths(PLAIN) == [("mm/x.c",)]


def test_content_that_looks_like_a_header_is_content() -> None:
    text = "--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n--- a/../../etc/passwd\n+++ b/../../etc/passwd\n y\n"
    assert paths(text) == [("x",)]


def test_quoted_names_are_undone() -> None:
    text = '--- "a/gr\\303\\274n\\t\\".c"\n+++ "b/gr\\303\\274n\\t\\".c"\n@@ -1 +1 @@\n-a\n+b\n'
    assert paths(text) == [('grün\t".c',)]


@pytest.mark.parametrize(
    "path",
    [
        "../evil",
        "a/../../evil",
        "/etc/passwd",
        ".git/config",
        "sub/.GIT/hooks/x",
        "a//b",
        "./a",
        "",
    ],
)
def test_a_path_that_leaves_the_tree_is_refused(path: str) -> None:
    text = PLAIN.replace("mm/x.c", path)
    with pytest.raises(diff.DiffError, match="path"):
        diff.files(text.encode())


def test_a_quoted_path_that_climbs_is_refused() -> None:
    text = '--- /dev/null\n+++ "b/\\056\\056/evil"\n@@ -0,0 +1 @@\n+x\n'
    with pytest.raises(diff.DiffError, match=r"'\.\./evil' climbs out"):
        diff.files(text.encode())


@pytest.mark.parametrize("side", ["rename to ../evil", "copy from ../../etc/passwd"])
def test_a_rename_that_climbs_is_refused(side: str) -> None:
    text = f"diff --git a/x b/x\nsimilarity index 100%\nrename from x\n{side}\n"
    with pytest.raises(diff.DiffError, match="climbs out"):
        diff.files(text.encode())


def test_a_change_of_mode_alone_that_climbs_is_refused() -> None:
    text = "diff --git a/../x b/../x\nold mode 100644\nnew mode 100755\n"
    with pytest.raises(diff.DiffError, match="climbs out"):
        diff.files(text.encode())


@pytest.mark.parametrize("target", ["/etc", "../..", "../../x", ".."])
def test_a_link_out_of_the_tree_is_refused(target: str) -> None:
    with pytest.raises(diff.DiffError, match="link out of the tree"):
        diff.files(create("link" if target == ".." else "sub/link", target, "120000").encode())


def test_a_link_inside_the_tree_is_kept() -> None:
    (file,) = diff.files(create("sub/link", "../kvm", "120000").encode())
    assert file.link == "../kvm"


def test_a_diff_cut_short_is_refused() -> None:
    cut = edit("kvm/mmu.c", {"page + 1": "page + 2"})
    with pytest.raises(diff.DiffError, match="middle of a hunk"):
        diff.files("\n".join(cut.splitlines()[:-3]).encode())


def test_a_name_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(diff.DiffError, match="not UTF-8"):
        diff.files(PLAIN.encode().replace(b"x.c", b"x\xfc.c"))


def test_extract_leaves_text_and_signature_out() -> None:
    body = "Why.\n---\n x | 2 +-\n\n" + PLAIN + "-- \n2.39.5\n\n"
    assert diff.extract(body.encode()) == PLAIN.encode()
    assert diff.extract(b"Words only.\n--- \n") == b""
