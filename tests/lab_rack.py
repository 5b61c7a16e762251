# SPDX-License-Identifier: GPL-2.0-only
"""Two machines of a lab that are alike, each as lab_bed.py has it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab_bed import Lab, lab

GROUP = "rack"
NAMES = ("left", "right")


@dataclass(frozen=True)
class Rack:
    """The machines by their names, and an inventory that has them as a group."""

    inventory: Path
    machines: dict[str, Lab]

    @property
    def options(self) -> tuple[str, ...]:
        """Of a run over the group; one that was killed keeps its lease for two minutes."""
        return ("--inventory", str(self.inventory), "--host", GROUP, "--wait", "300")


@contextlib.contextmanager
def rack(folder: Path, state: Path) -> Iterator[Rack]:
    """Switch both on; the user whose state that is trusts them."""
    with contextlib.ExitStack() as stack:
        machines: dict[str, Lab] = {}
        head, found = "", ""
        for name in NAMES:
            (folder / name).mkdir()
            made = machines[name] = stack.enter_context(lab(folder / name))
            made.pin(state)
            head, _, its = made.inventory.read_text().partition("hosts:\n")
            found += its.replace("  lab:\n", f"  {name}:\n    group: {GROUP}\n")
        path = folder / "inventory.yaml"
        path.write_text(f"{head}hosts:\n{found}")
        yield Rack(path, machines)
