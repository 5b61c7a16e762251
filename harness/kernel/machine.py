# SPDX-License-Identifier: GPL-2.0-only
"""A machine's own configuration as the start of a kernel's, in the place of allnoconfig."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

_SYMBOL = re.compile(r"(?:# )?CONFIG_(\w+)(?:=| is not set$)", re.ASCII)


@dataclass(frozen=True)
class MachineConfig:
    """What a kernel for a machine starts from (harness/hosts/machine_config.py reads it).

    `text` has one setting a line. `loaded` are the modules to which it is trimmed, in sorted order;
    None to keep all that it names.
    """

    text: str
    loaded: tuple[str, ...] | None = None

    @property
    def key(self) -> list[str]:
        """What of it decides how a kernel is built: two machines with the same share kernels."""
        trimmed = [] if self.loaded is None else ["trimmed", *self.loaded]
        return ["machine", self.text, *trimmed]

    @property
    def lsmod(self) -> str:
        """The loaded modules as lsmod(8) lists them, for `make localmodconfig`."""
        return "Module Size Used by\n" + "".join(f"{name} 0 0\n" for name in self.loaded or ())


def merged(text: str, fragments: str, symbols: Collection[str]) -> str:
    """A .config with fragments laid over it, which set `symbols`.

    They stand at the end: of a choice, kconfig takes what is set last.
    """
    kept = [
        line
        for line in text.splitlines()
        if (found := _SYMBOL.match(line)) is None or found[1] not in symbols
    ]
    return "\n".join([*kept, fragments])
