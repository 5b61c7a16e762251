# SPDX-License-Identifier: GPL-2.0-only
"""Make text that came from a host, a patch or a build safe to show on a terminal.

A terminal obeys control characters (ECMA-48): a kernel's log could clear the screen, or write a
verdict of its own.
"""

from __future__ import annotations

import re

UNSEEN = (
    "\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""What changes the direction of text (Unicode's UAX #9), or takes no room, so that two names can
look like one: Default_Ignorable_Code_Point of DerivedCoreProperties.txt (soft hyphen, Hangul
fillers, variation selectors, tags), separators of lines, and marks of annotations; as the inside of
a regular expression's []."""
# C0 and C1 but for tab and newline, these, and halves of surrogate pairs, which no encoding can
# write.
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f\x7f-\x9f{UNSEEN}\ud800-\udfff]")


def printable(text: str, indent: str = "    ") -> str:
    r"""The text with control characters spelt out (\x1b) and a plain newline for \r\n.

    Lines after the first are indented, so that none of them can look like a line of the harness.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return f"\n{indent}".join(_CONTROL.sub(_spelt, line) for line in lines)


def one_line(text: str) -> str:
    """The text without control characters in one line, white space of any kind as one space."""
    return " ".join(printable(" ".join(text.split())).split())


def clip(text: str, limit: int) -> str:
    """The text, or its first `limit` characters and how many more there are."""
    over = len(text) - limit
    return text if over <= 0 else f"{text[:limit]} [and {over} characters more]"


def plain_name(text: str) -> str:
    """A name of which nothing is left that any format gives a meaning to.

    For hosts, checks and their like, which are short and have only letters, digits and `_.+-[]` in
    a run of this harness; "_" stands for everything else.
    """
    return re.sub(r"[^A-Za-z0-9_.+=\[\]()/ -]", "_", " ".join(text.split()))[:80] or "_"


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
