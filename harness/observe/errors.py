# SPDX-License-Identifier: GPL-2.0-only
"""The error for a text of a host that is truncated, malformed or contradicts itself."""

from __future__ import annotations

from harness.errors import InfraError

SHOWN = 120


class ObserveError(InfraError):
    """A text that a host gave cannot be believed.

    `source` names the file on the host, `line` counts from 1 (0: the file as a whole).
    """

    def __init__(self, source: str, line: int, problem: str) -> None:
        super().__init__(f"{source}:{line}: {problem}" if line else f"{source}: {problem}")
        self.source = source
        self.line = line


class Impossible(ObserveError):
    """What a kernel says of its own tables cannot be so: they, or what reads them, are broken.

    The text is whole, so this is the kernel's fault and not the lab's.
    """


def shown(text: str) -> str:
    """A line of a host as it may stand in a message: quoted, escaped and cut short."""
    return ascii(text if len(text) <= SHOWN else text[:SHOWN] + "...")
