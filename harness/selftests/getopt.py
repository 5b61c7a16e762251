# SPDX-License-Identifier: GPL-2.0-only
"""Which options a selftest takes: from its source, since they differ from tree to tree."""

from __future__ import annotations

import re
from pathlib import Path

from harness.selftests.table import FOLDER

LIMIT = 1 << 20
"""Characters of a source that are read; a series decides how long it is."""
# The names of the variables are those that all of them have; getopt_long() is another call.
_CALL = re.compile(r'\bgetopt\s*\(\s*argc\s*,\s*argv\s*,\s*"(?P<options>[^"\n]{0,200})"\s*\)')
_STRING = re.compile(r"[-+:]{0,2}(?P<letters>(?:[A-Za-z0-9]:{0,2})+)")
_OPTION = re.compile(r"[A-Za-z0-9]:{0,2}")


def options(source: str) -> frozenset[str]:
    """The options of a C source as getopt(3) writes them: `l` is a flag, `r:` has an argument.

    Empty where there is not exactly one call of getopt() with a plain string: then nothing is known
    of them.
    """
    calls = [found["options"] for found in _CALL.finditer(source)]
    string = _STRING.fullmatch(calls[0]) if len(calls) == 1 else None
    return frozenset(_OPTION.findall(string["letters"])) if string else frozenset()


def of_tree(tree: Path, name: str) -> frozenset[str]:
    """The options of a selftest in a kernel's tree; empty if its source is no plain file there."""
    path = tree / FOLDER / f"{name}.c"
    # A series may put a link there.
    if not path.is_file() or path.resolve() != tree.resolve() / FOLDER / f"{name}.c":
        return frozenset()
    with path.open(errors="replace") as source:
        return options(source.read(LIMIT))
