# SPDX-License-Identifier: GPL-2.0-only
"""harness.guest_line: exchanges with a kvm-guest that answers, or does not."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_guest import READY, FakeProcess, FakeShell, start

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, HostDied, InfraError
from harness.guests import Guest


def test_a_line_is_in_the_transcript_before_it_is_acted_on(tmp_path: Path) -> None:
    transcript = tmp_path / "guest.txt"
    guest, process = start("ok", "garbage", EOFError(), transcript=transcript)
    guest.drain()
    with pytest.raises(InfraError):
        guest.flush()
    seen: list[str] = []
    process.send = lambda line: seen.append(transcript.read_text())  # type: ignore[method-assign]
    with pytest.raises(InfraError):
        guest.flags()
    lines = [f"< {READY}", "> drain", "< ok", "> flush", "< garbage", "> flags"]
    assert seen == ["\n".join(lines) + "\n"]
    assert transcript.read_text().splitlines() == [*lines, "! end of output"]


def test_the_end_of_the_program_is_told_with_its_errors() -> None:
    guest, process = start(EOFError())
    with pytest.raises(InfraError, match=r"ended instead of .*'drain'.*: Segmentation fault"):
        guest.drain()
    with pytest.raises(InfraError, match="cannot be asked 'flush', since it ended"):
        guest.flush()
    assert process.sent == ["drain"]


def test_no_answer_in_time() -> None:
    guest, process = start(DeadlineExceeded("inner"))
    with pytest.raises(DeadlineExceeded, match=r"kvm-guest's reply to 'drain' after 30 s"):
        guest.drain()
    with pytest.raises(InfraError, match="never came"):
        guest.flush()
    assert process.sent == ["drain"]


def test_a_dead_host_is_passed_on() -> None:
    guest, _ = start(HostDied("panic", "Kernel panic"))
    with pytest.raises(HostDied, match="Kernel panic"):
        guest.drain()


def test_an_outer_deadline_bounds_each_exchange() -> None:
    process = FakeProcess([READY, "ok"])
    guest = Guest.start(FakeShell(process), vcpus=2, deadline=Deadline(5, clock=lambda: 100.0))
    guest.drain()
    assert process.budgets == [5, 5]


def test_leaving_the_context_ends_the_program() -> None:
    guest, process = start()
    with pytest.raises(ZeroDivisionError), guest:
        raise ZeroDivisionError
    assert process.closed == 1
    with pytest.raises(InfraError, match="it was closed"):
        guest.drain()
