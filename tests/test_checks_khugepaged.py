# SPDX-License-Identifier: GPL-2.0-only
"""khugepaged as a driver: what its tracepoint says, and that it is left as it was found."""

from __future__ import annotations

from dataclasses import replace

import pytest
from fake_shell import UnaskedShell

from harness.checks import khugepaged
from harness.checks.khugepaged import FOLDER, SETTINGS, Scan
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.observe.errors import ObserveError
from harness.observe.trace import Event
from harness.observe.unproven import Unproven

# As seen on Linux 6.12.117.
SEEN = (
    "mm=0000000088280563, scan_pfn=0x48307, writable=1, referenced=314, none_or_zero=1, "
    "status=exceed_none_pte, unmapped=0"
)


def event(text: str) -> Event:
    return Event(0, 0, "khugepaged", 35, khugepaged.SCAN, text, {})


def asked(time: int, hva: int) -> Event:
    return Event(time, 0, "khugepaged", 35, "kvm:kvm_test_age_hva", "", {"hva": hva})


def scan_at(time: int, text: str) -> Event:
    return replace(event(text), time=time)


class Host(UnaskedShell):
    """Its khugepaged ends `pace` scans between two looks at it."""

    def __init__(self, pace: int = 1) -> None:
        self.files = {f"{FOLDER}/{name}": "511\n" for name in SETTINGS}
        self.written: list[str] = []
        self.pace = pace
        self.ended = 7

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        if path == f"{FOLDER}/full_scans":
            self.ended += self.pace
            return f"{self.ended}\n"
        return self.files[path]

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        self.files[path] = text
        self.written.append(f"{path.removeprefix(FOLDER)} {text.strip()}")


@pytest.fixture(autouse=True)
def _no_naps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(khugepaged, "POLL", 0.0)


def test_scan_of_a_range_is_told_by_its_pfn_or_by_the_page_that_was_asked_for_last() -> None:
    later = SEEN.replace("0x48307", f"{khugepaged.NO_PFN:#x}")
    other = SEEN.replace("referenced=314", "referenced=9")
    others_later = later.replace("referenced=314", "referenced=9")
    scanned = [scan_at(5, later), scan_at(6, others_later), scan_at(9, others_later)]
    questions = [asked(5, 0x7000), asked(4, 0x6000), asked(8, 0x6000)]
    found = khugepaged.scans_of(scanned, questions, 0x1, 0x7000)
    assert [scan.young for scan in found] == [314]
    found = khugepaged.scans_of([event(SEEN), event(other)], (), 0x48307, 0x7000)
    assert [scan.young for scan in found] == [314, 9]
    assert khugepaged.scans_of([event(SEEN)], questions, 0x48308, 0x7000) == ()


def test_what_a_scan_found() -> None:
    early = SEEN.replace("0000000088280563", "(____ptrval____)")
    later = SEEN.replace("writable=1, ", "")  # as the source of Linux 7.3 has it
    assert (
        khugepaged.scans([event(SEEN), event(early), event(later)])
        == (Scan(pfn=0x48307, young=314, absent=1, status="exceed_none_pte"),) * 3
    )


@pytest.mark.parametrize("text", ["", SEEN[:-1], SEEN.replace("314", "-1"), f"{SEEN} more=1"])
def test_another_form_is_no_answer(text: str) -> None:
    with pytest.raises(ObserveError, match="unknown form"):
        khugepaged.scans([event(text)])


def test_settings_are_put_back_even_after_a_failure() -> None:
    host = Host()
    with khugepaged.busy(host):
        assert host.files[f"{FOLDER}/max_ptes_none"] == "0\n"
    assert set(host.files.values()) == {"511\n"}
    with pytest.raises(InfraError, match="first"), khugepaged.busy(host):
        raise InfraError("first")
    assert set(host.files.values()) == {"511\n"}


def test_the_scan_under_way_does_not_count() -> None:
    host = Host()
    khugepaged.wait_full_scans(host, 2, 1.0)
    assert host.ended == 8 + 1 + 2


def test_a_khugepaged_that_does_not_scan_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(khugepaged, "SCAN_SECONDS", 0.01)
    with pytest.raises(Unproven, match="no 2 scans"):
        khugepaged.wait_full_scans(Host(pace=0), 2, 1.0)
