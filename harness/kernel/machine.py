# SPDX-License-Identifier: GPL-2.0-only
"""A machine's own configuration as the start of a kernel's, in the place of allnoconfig."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from harness.records import write_text_atomically

_SYMBOL = re.compile(r"(?:# )?CONFIG_(\w+)(?:=| is not set$)", re.ASCII)


@dataclass(frozen=True)
class MachineConfig:
    """What a kernel for a machine starts from (harness/hosts/machine_config.py reads it).

    `text` has one setting a line. `loaded` are the modules to which it is trimmed, in sorted order;
    None to keep all that it names.
    """

    text: str
    loaded: tuple[str, ...] | None = None

    def __str__(self) -> str:
        """What it is, in words."""
        lines = self.text.splitlines()
        as_modules = sum(line.endswith("=m") for line in lines)
        words = f"{len(lines)} settings, {as_modules} of them modules"
        return words if self.loaded is None else f"{words}, trimmed to {len(self.loaded)} loaded"

    @property
    def key(self) -> list[str]:
        """What of it decides how a kernel is built: two machines with the same share kernels."""
        trimmed = [] if self.loaded is None else ["trimmed", *self.loaded]
        return ["machine", self.text, *trimmed]

    @property
    def digest(self) -> str:
        """Its name in records."""
        return hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:16]

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


def keep(config: MachineConfig, folder: Path, name: str) -> None:
    """Write what was read of the machine `name` to a folder, which may be there already."""
    folder.mkdir(exist_ok=True)
    if config.loaded is not None:
        write_text_atomically(
            folder / f"{name}.modules", "".join(f"{one}\n" for one in config.loaded)
        )
    # Last: where it is, all is.
    write_text_atomically(folder / f"{name}.config", config.text)


def kept(folder: Path, name: str) -> MachineConfig | None:
    """What keep() has written there, None if it has not."""
    try:
        text = (folder / f"{name}.config").read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    modules = folder / f"{name}.modules"
    return MachineConfig(text, tuple(modules.read_text().split()) if modules.exists() else None)
