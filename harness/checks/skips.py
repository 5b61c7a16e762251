# SPDX-License-Identifier: GPL-2.0-only
"""What not every CPU or kernel can have: the check is skipped where kvm-guest refuses it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from harness.errors import InfraError

Made = TypeVar("Made")

# What kvm-guest says of a guest that it cannot have here, or of something that it cannot do.
NO_EAGER_SPLIT = "this kernel splits no blocks eagerly"
NO_MANUAL_LOG = "this kernel has no such manual dirty log"
NO_RING = "this kernel has no such dirty ring"
FEW_BITS = "bits of physical address"
NO_UFFD = "no write protection by userfaultfd"
NO_SCAN = "no PAGEMAP_SCAN for writes"
NO_MOVE = "no move by userfaultfd"


def or_skip(make: Callable[[], Made], refusal: str, reason: str) -> Made:
    """What `make` returns; skips for `reason` if kvm-guest says the words `refusal` instead."""
    try:
        return make()
    except InfraError as exc:
        if refusal in str(exc):
            pytest.skip(reason)
        raise
