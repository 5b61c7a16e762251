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


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of which VMs the host is asked whether it shows stage 2: it does."""
    return answering(monkeypatch, "")


def answering(monkeypatch: pytest.MonkeyPatch, why: str) -> list[str]:
    """The same of a host that gives that reason, if it is one, for not doing so."""
    asked: list[str] = []

    def refusal(shell: Any, vm: str) -> str:
        asked.append(vm)
        return why

    monkeypatch.setattr(pages, "refusal", refusal)
    return asked


def test_no_process_is_started_for_it(asked: list[str]) -> None:
    guest, process = start(f"ok dump={DUMP}")
    shell: Any = None
    dump = pages.dumped(guest, shell)
    assert process.sent == ["stage2"]
    assert dump.raw == SMALL
    assert dump.ranges == stage2.parse(SMALL)
    assert asked == ["54-4"]


def test_the_host_is_asked_once_for_a_vm(asked: list[str]) -> None:
    guest, process = start(*2 * [f"ok dump={DUMP}"])
    shell: Any = None
    pages.dumped(guest, shell)
    pages.dumped(guest, shell)
    assert process.sent == ["stage2", "stage2"]
    assert asked == ["54-4"]


@pytest.mark.usefixtures("asked")
def test_what_cannot_be_believed_is_refused() -> None:
    guest, _ = start(f"ok dump={DUMP.replace('Guest', 'guest')}")
    shell: Any = None
    with pytest.raises(ObserveError, match="/sys/kernel/debug/kvm/54-4/stage2_page_tables"):
        pages.dumped(guest, shell)


def test_nothing_is_asked_of_a_kernel_that_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answering(monkeypatch, "absent")
    guest, process = start()
    shell: Any = None
    for _ in range(2):
        with pytest.raises(NoDump, match="has no dump"):
            pages.dumped(guest, shell)
    assert process.sent == []
    assert asked == ["54-4"]
