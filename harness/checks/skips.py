# SPDX-License-Identifier: GPL-2.0-only
"""A guest that not every CPU or kernel can have: the check is skipped where it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.errors import InfraError
from harness.guests import Guest


def guest_or_skip(start: Callable[[], Guest], refusal: str, reason: str) -> Guest:
    """What `start` makes; skips for `reason` if kvm-guest says the words `refusal` instead."""
    try:
        return start()
    except InfraError as exc:
        if refusal in str(exc):
            pytest.skip(reason)
        raise
