# SPDX-License-Identifier: GPL-2.0-only
"""A guest that not every CPU or kernel can have: the check is skipped where it is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from harness.errors import InfraError
from harness.guests import Guest

# What kvm-guest says of a guest that it cannot have here.
NO_EAGER_SPLIT = "this kernel splits no blocks eagerly"
NO_MANUAL_LOG = "this kernel has no such manual dirty log"
NO_RING = "this kernel has no such dirty ring"
FEW_BITS = "bits of physical address"


def guest_or_skip(start: Callable[[], Guest], refusal: str, reason: str) -> Guest:
    """What `start` makes; skips for `reason` if kvm-guest says the words `refusal` instead."""
    try:
        return start()
    except InfraError as exc:
        if refusal in str(exc):
            pytest.skip(reason)
        raise
