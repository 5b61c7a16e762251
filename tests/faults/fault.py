# SPDX-License-Identifier: GPL-2.0-only
"""A fault of a machine of the lab: what is done, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fault_scene import Scene, Strike

Edit = Callable[[str], str]
Verdict = Literal["error", "fail", "pass", "killed"]
Lease = Literal["free", "another's", "runs out", "damaged"]
STAGES = ("look", "health", "rehearsal", "deploy", "boot", "check", "collect", "home")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what must be told of it."""

    stage: str
    name: str
    words: str = ""
    """A pattern that the reason, or the error that ended the run, matches; of a run that passes,
    the cell's diary."""
    verdict: Verdict = "error"
    sabotage: str = ""
    """A script that is run on the machine before the run."""
    setup: Callable[[Scene], None] | None = None
    """Done before the run as well."""
    strikes: tuple[Strike, ...] = ()
    edit: Edit = str
    """What becomes of the inventory."""
    check: str = "test_before"
    """Which checks of faults_on_host.py run (pytest -k)."""
    patch: str = ""
    """A statement that a patch puts into what ages pages, with the harness's own check for it."""
    death: str | None = None
    aside: bool = False
    """The machine must be set aside."""
    same_boot: bool = False
    """Nothing may have started it again."""
    home: bool = True
    """Whether the run brings the machine home; else nobody could, or it is another's by then."""
    lease: Lease = "free"
    """How the machine's lease is at the end; it runs out by itself where nobody could end it."""
    passes: tuple[str, ...] = ()
    """Checks that must have passed all the same."""
    diary: str = ""
    """A pattern that the cell's diary must match besides."""
    resume: bool = False
    """Whether the run that was killed goes on, instead of a new one."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.name}"
