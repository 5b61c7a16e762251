# SPDX-License-Identifier: GPL-2.0-only
"""Text of others is shown, never obeyed."""

from __future__ import annotations

import pytest

from harness.printable import printable


@pytest.mark.parametrize(
    "text", ["", "plain", "a\tb", "\N{SNOWMAN} [bold] \\x1b", "\xe9\U0001f600"]
)
def test_plain_text_stays(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize("code", [*range(9), *range(11, 32), *range(0x7F, 0xA0)])
def test_control_characters_are_spelt_out(code: int) -> None:
    assert printable(f"a{chr(code)}b") == f"a\\x{code:02x}b"


def test_direction_and_line_separators_are_spelt_out() -> None:
    assert printable("a\u202eb\u2066c\u2028d") == "a\\u202eb\\u2066c\\u2028d"
    assert printable("a\u061cb\u200ec\u200fd") == "a\\u061cb\\u200ec\\u200fd"
    assert printable("a\u200bb\ufeffc") == "a\\u200bb\\ufeffc"


def test_what_takes_no_room_is_spelt_out() -> None:
    assert printable("a\u200bb\u2060c\ufeffd") == "a\\u200bb\\u2060c\\ufeffd"


def test_half_of_a_character_is_spelt_out() -> None:
    assert printable("a\ud800b\udfff") == "a\\ud800b\\udfff"


def test_later_lines_are_indented() -> None:
    assert printable("a\r\nb\nc\rd") == "a\n    b\n    c\\x0dd"
    assert printable("a\n\nb", "> ") == "a\n> \n> b"
