# SPDX-License-Identifier: GPL-2.0-only
"""Which symbols the Kconfig files of a kernel tree declare, looked up once for each source."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache as memoized
from pathlib import Path

from harness.kernel import cache, config
from harness.kernel.apply import PatchedTree
from harness.kernel.source import Source


def of(tree: Source | PatchedTree) -> Callable[[str], bool]:
    """Whether a tree declares a symbol; its files are read when that is asked for the first time.

    A patched tree is asked for what its source declares, so that both get one configuration.
    """

    @memoized
    def declared() -> frozenset[str]:
        digest = tree.digest if isinstance(tree, Source) else tree.source_digest
        kept = cache.folder("symbols") / digest
        if kept.is_file():
            return frozenset(kept.read_text().split())
        found = config.declared(kconfigs(tree.dir))
        # What a series declares must not pass for its source's.
        if isinstance(tree, Source):
            _publish(kept, found)
        return found

    return lambda symbol: symbol in declared()


def kconfigs(tree: Path) -> Iterator[Path]:
    """The Kconfig files of a tree."""
    return (path for path in tree.rglob("Kconfig*") if not path.is_symlink())


def _publish(path: Path, symbols: frozenset[str]) -> None:
    """Write by rename: a file that is there is whole."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text("\n".join(sorted(symbols)) + "\n")
    new.rename(path)
