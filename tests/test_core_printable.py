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


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("\N{SOFT HYPHEN}", r"\xad"),
        ("\N{COMBINING GRAPHEME JOINER}", r"\u034f"),
        ("\N{HANGUL CHOSEONG FILLER}", r"\u115f"),
        ("\N{HANGUL FILLER}", r"\u3164"),
        ("\N{HALFWIDTH HANGUL FILLER}", r"\uffa0"),
        ("\N{MONGOLIAN VOWEL SEPARATOR}", r"\u180e"),
        ("\N{VARIATION SELECTOR-16}", r"\ufe0f"),
        ("\N{VARIATION SELECTOR-17}", r"\U000e0100"),
        ("\N{INTERLINEAR ANNOTATION ANCHOR}", r"\ufff9"),
        ("\N{TAG LATIN CAPITAL LETTER A}", r"\U000e0041"),
    ],
)
def test_what_makes_two_names_look_alike_is_spelt_out(text: str, spelt: str) -> None:
    assert printable(f"n1{text}") == f"n1{spelt}"


def test_what_is_seen_stays() -> None:
    seen = (
        "\N{HANGUL SYLLABLE HAN}\N{ARABIC LETTER ALEF}e\N{COMBINING ACUTE ACCENT}\ufffd\U0001f600"
    )
    assert printable(seen) == seen


def test_half_of_a_character_is_spelt_out() -> None:
    assert printable("a\ud800b\udfff") == "a\\ud800b\\udfff"


def test_later_lines_are_indented() -> None:
    assert printable("a\r\nb\nc\rd") == "a\n    b\n    c\\x0dd"
    assert printable("a\n\nb", "> ") == "a\n> \n> b"
