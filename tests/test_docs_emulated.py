# SPDX-License-Identifier: GPL-2.0-only
"""Documents with outcomes of emulated hosts say what such hosts cannot show."""

from __future__ import annotations

import pytest

from harness.paths import PROJECT
from harness.report.text import EMULATION


@pytest.mark.parametrize("name", ["cost-mutants.md", "false-alarms.md", "kernels.md"])
def test_what_emulated_hosts_cannot_show(name: str) -> None:
    assert EMULATION in " ".join((PROJECT / "docs" / name).read_text().split())
