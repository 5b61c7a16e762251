# SPDX-License-Identifier: GPL-2.0-only
"""What is raised instead of a value when evidence is missing."""

from __future__ import annotations


class Unproven(Exception):
    """Nothing can be said: the reason names what was absent or lost.

    It is no HarnessError: neither the kernel under test nor the lab failed. A check that
    meets it ends as `unproven`, never as a pass.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
