# SPDX-License-Identifier: GPL-2.0-only
"""Lines of a width that holds, and words that lose their power."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from harness.printable import clip, one_line, plain_name
from harness.report.lines import columns, cut, wrap

WIDE = "\N{CJK UNIFIED IDEOGRAPH-6D4B}"
TEXTS = (
    "",
    "a",
    "one two three four",
    "x" * 50,
    f"a {'y' * 23} b",
    WIDE * 30,
    "e\u0301" * 30,
    "a  b\tc",
)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("width", [8, 10, 20])
def test_wrapped_lines_hold_the_width_and_the_words(text: str, width: int) -> None:
    lines = list(wrap(text, width, "> ", "  > "))
    assert all(max(cell_len(line), len(line)) <= width for line in lines)
    assert lines[0].startswith(">")
    assert all(line.startswith("  > ") for line in lines[1:])
    words = [lines[0][2:], *(line[4:] for line in lines[1:])]
    assert "".join("".join(words).split()) == "".join(text.split())


def test_lines_are_as_long_as_they_can_be() -> None:
    assert list(wrap("one two three", 7)) == ["one two", "three"]
    assert list(wrap("one two three", 6)) == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("line", "shown"), [("abcdef", "abcdef"), ("abcdefg", "abcd.."), (WIDE * 4, f"{WIDE * 2}..")]
)
def test_cut(line: str, shown: str) -> None:
    assert cut(line, 6) == shown


def test_a_character_that_joins_another_counts() -> None:
    """A thousand accents on one letter would else be one column."""
    assert columns("e" + "\u0301" * 1000) == 1001


def test_one_line() -> None:
    assert one_line(" a\r\n\tb\x1b[2J\u202e\u2028c ") == r"a b\x1b[2J\u202e c"


def test_clip() -> None:
    assert clip("abc", 3) == "abc"
    assert clip("abcde", 3) == "abc [and 2 characters more]"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("n1-vhe-patched-sw-af", "n1-vhe-patched-sw-af"),
        ("test_split[thp]", "test_split[thp]"),
        ("patched +sw-af", "patched +sw-af"),
        ("", "_"),
        ("a # SKIP\nok 1", "a _ SKIP ok 1"),
        ("Tested-by: A <a@b>", "Tested-by_ A _a_b_"),
        ("x" * 100, "x" * 80),
    ],
)
def test_plain_name(text: str, name: str) -> None:
    assert plain_name(text) == name
