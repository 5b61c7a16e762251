# SPDX-License-Identifier: GPL-2.0-only
"""Exit codes for `git bisect run`, which takes whatever is no verdict for one.

harness/__main__.py needs this where nothing else can be imported, so it imports next to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness import errors

_OPTIONS = ("--bis", "--each")


def asked(argv: Sequence[str]) -> bool:
    """Whether a command line asks for such exit codes, or would if it were spelt right."""
    return any(word.startswith(_OPTIONS) for word in argv)


def exit_code(code: int) -> int:
    """What `git bisect run` must get for an exit code of ours: it takes 2 to 124 for "bad"."""
    kept = (errors.EXIT_PASS, errors.EXIT_FAIL, errors.EXIT_INTERRUPTED)
    return code if code in kept else errors.EXIT_CANNOT_TELL
