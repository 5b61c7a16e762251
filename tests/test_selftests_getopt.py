# SPDX-License-Identifier: GPL-2.0-only
"""The options of a selftest, read from its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.selftests import getopt
from harness.selftests.table import FOLDER

CALL = 'while ((opt = getopt(argc, argv, "hm:b:lr:p")) != -1) {'
OPTIONS = {"h", "m:", "b:", "l", "r:", "p"}


@pytest.mark.parametrize(
    "source",
    [
        CALL,
        f"int main(void)\n{{\n\t{CALL}\n",
        CALL.replace("argv, ", "argv,\n\t\t\t"),
        CALL.replace('"h', '"+:h'),
    ],
)
def test_a_call_with_a_plain_string(source: str) -> None:
    assert getopt.options(source) == OPTIONS


def test_an_argument_that_may_be_left_out_is_another_kind() -> None:
    assert getopt.options('getopt(argc, argv, "a::b")') == {"a::", "b"}


@pytest.mark.parametrize(
    "source",
    [
        "",
        "getopt(argc, argv, OPTIONS)",
        'getopt(argc, argv, "lr:" "p")',
        'getopt(argc, argv, "l-r")',
        'getopt(argc, argv, "")',
        CALL + CALL,
        'getopt_long(argc, argv, "lr:p", longer, NULL)',
        'not_getopt(argc, argv, "lr:p")',
        'getopt(argc, argv, "' + "l" * 300 + '")',
    ],
)
def test_what_is_not_surely_known_is_not_known(source: str) -> None:
    assert getopt.options(source) == frozenset()


def test_a_file_of_the_tree_and_no_link_out_of_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / FOLDER).mkdir(parents=True)
    (tree / FOLDER / "a_test.c").write_text(CALL)
    assert getopt.of_tree(tree, "a_test") == OPTIONS
    assert getopt.of_tree(tree, "no_test") == frozenset()
    (tmp_path / "outside.c").write_text(CALL)
    (tree / FOLDER / "link_test.c").symlink_to(tmp_path / "outside.c")
    assert getopt.of_tree(tree, "link_test") == frozenset()
    (tree / FOLDER / "long_test.c").write_text(" " * getopt.LIMIT + CALL)
    assert getopt.of_tree(tree, "long_test") == frozenset()
