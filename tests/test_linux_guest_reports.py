# SPDX-License-Identifier: GPL-2.0-only
"""What a guest's kernel may complain of."""

from __future__ import annotations

import pytest

from harness.linux_guest.test_linux_guest import complaints
from harness.observe.klog import splats

STALL = "[   40.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [linux-guest-ini:1]\n"
BAD_PAGE = "[   41.000000] BUG: Bad page state in process linux-guest-ini  pfn:40200\n"


@pytest.mark.parametrize(("emulated", "found"), [(True, 1), (False, 2)])
def test_a_stall_is_excused_where_the_host_is_emulated(emulated: bool, found: int) -> None:
    reports = splats(STALL + BAD_PAGE)
    assert len(reports) == 2
    bad = complaints(reports, emulated=emulated)
    assert len(bad) == found
    assert "Bad page" in bad[-1].headline
