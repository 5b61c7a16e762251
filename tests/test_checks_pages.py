# SPDX-License-Identifier: GPL-2.0-only
"""A guest's stage 2 as kvm-guest itself reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_guest import start

from harness.checks import pages
from harness.observe import stage2
from harness.observe.collect import NoDump
from harness.observe.errors import ObserveError

SMALL = (Path(__file__).parent / "data" / "observe" / "stage2" / "small.txt").read_text()
DUMP = SMALL.replace(" ", "_").replace("\n", "|")


def refuse(monkeypatch: pytest.MonkeyPatch, why: str = "") -> None:
    """Have the kernel show stage 2, or not for that reason."""

    def refused(shell: Any, vm: str) -> None:
        assert vm == "54-4"
        if why:
            raise NoDump(why)

    monkeypatch.setattr(pages, "refuse_no_dump", refused)


def test_no_process_is_started_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)
    guest, process = start(f"ok dump={DUMP}")
    shell: Any = None
    dump = pages.dumped(guest, shell)
    assert process.sent == ["stage2"]
    assert dump.raw == SMALL
    assert dump.ranges == stage2.parse(SMALL)


def test_what_cannot_be_believed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch)
    guest, _ = start(f"ok dump={DUMP.replace('Guest', 'guest')}")
    shell: Any = None
    with pytest.raises(ObserveError, match="/sys/kernel/debug/kvm/54-4/stage2_page_tables"):
        pages.dumped(guest, shell)


def test_nothing_is_asked_of_a_kernel_that_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(monkeypatch, "this kernel has no dump of stage 2")
    guest, process = start()
    shell: Any = None
    with pytest.raises(NoDump, match="has no dump"):
        pages.dumped(guest, shell)
    assert process.sent == []
