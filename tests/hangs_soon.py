# SPDX-License-Identifier: GPL-2.0-only
"""test_page_idle with a guest whose program may take a quarter of the time over a command.

A kernel that hangs is waited for as long, with a CPU that spins. A cell imports this file.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from harness.checks.test_drivers import test_page_idle  # noqa: F401
from harness.guests import Guest

SECONDS = 5.0


@pytest.fixture
def guest(guest: Callable[..., Guest]) -> Callable[..., Guest]:
    """That of all checks, but for its time."""
    return partial(guest, timeout=SECONDS)
