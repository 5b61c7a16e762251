# SPDX-License-Identifier: GPL-2.0-only
"""Make text that came from a host, a patch or a build safe to show on a terminal.

A terminal obeys control characters (ECMA-48): a kernel's log could clear the screen, or write a
verdict of its own.
"""

from __future__ import annotations

import re

# C0 and C1 but for tab and newline, and what reverses the direction of text (Unicode's UAX #9).
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str, indent: str = "    ") -> str:
    r"""The text with control characters spelt out (\x1b) and a plain newline for \r\n.

    Lines after the first are indented, so that none of them can look like a line of the harness.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    return f"\n{indent}".join(_CONTROL.sub(_spelt, line) for line in lines)


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
