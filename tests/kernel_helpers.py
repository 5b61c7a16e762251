# SPDX-License-Identifier: GPL-2.0-only
"""A toy kernel tree and mails made of diffs, for the tests of harness.kernel."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Mapping
from pathlib import Path

from harness.deadline import Deadline
from harness.kernel import source

TOY = Path(__file__).parent / "data/kernel/toy"
GIT_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "A Person",
    "GIT_AUTHOR_EMAIL": "a@example.org",
    "GIT_COMMITTER_NAME": "A Person",
    "GIT_COMMITTER_EMAIL": "a@example.org",
}


def soon() -> Deadline:
    """A deadline for what takes a moment."""
    return Deadline(60)


def toy_tree(folder: Path) -> Path:
    """A fresh copy of the toy tree."""
    shutil.copytree(TOY, folder)
    return folder


def toy_source(tmp_path: Path) -> source.Source:
    """The toy tree as a source in the cache."""
    tree = tmp_path / "toy"
    return source.resolve(f"tree:{tree if tree.is_dir() else toy_tree(tree)}", soon())


def edit(path: str, changes: Mapping[str, str], tree: Path = TOY) -> str:
    """A diff in git's form that replaces texts in one file of a tree."""
    old = (tree / path).read_text()
    new = old
    for before, after in changes.items():
        assert before in new
        new = new.replace(before, after)
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), f"a/{path}", f"b/{path}"
    )
    return f"diff --git a/{path} b/{path}\n" + "".join(lines)


def create(path: str, content: str, mode: str = "100644") -> str:
    """A diff that adds a file; mode 120000 makes it a link to `content`."""
    lines = content.splitlines()
    body = "".join(f"+{line}\n" for line in lines)
    end = "" if content.endswith("\n") else "\\ No newline at end of file\n"
    return (
        f"diff --git a/{path} b/{path}\nnew file mode {mode}\n--- /dev/null\n+++ b/{path}\n"
        f"@@ -0,0 +1{',' + str(len(lines)) if len(lines) != 1 else ''} @@\n{body}{end}"
    )


def as_mail(
    subject: str, diff: str, message_id: str = "1@example.org", text: str = "Why it is so.\n"
) -> str:
    """A patch as git format-patch writes it."""
    return (
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
        "From: A Person <a@example.org>\n"
        "Date: Fri, 17 Feb 2023 04:12:30 +0000\n"
        f"Subject: {subject}\nMessage-ID: <{message_id}>\n\n{text}---\n{diff}-- \n2.39.5\n\n"
    )


AGE = {"page + 1": "page + 2"}
YOUNG = {"page & 1": "page & 3"}
