# SPDX-License-Identifier: GPL-2.0-only
"""What is said of SSH beside OpenSSH: right ratios, right shares, and each way in its turn."""

from __future__ import annotations

import json

from harness.bench_ssh import Measured, Work, describe, exchanges_of, in_turns

FOUND = Measured(command=0.001, put=2.0, shared=0.01, alone=0.2, scp=1.6, sftp=2.5)


def test_the_figures_in_words() -> None:
    text = "\n".join(describe(FOUND, Work(cells=3, seconds=40.0, exchanges=800, sent=25_000_000)))
    assert "1.0 ms, with OpenSSH's client 10.0 ms: ratio 0.10" in text
    assert (
        "50 MB and their SHA-256: 2.00 s; scp 1.60 s, ratio 1.25; sftp 2.50 s, ratio 0.80" in text
    )
    # 800 ms, and half of 2 s, of 40 s.
    assert "800 exchanges are 2.00 %, 25 MB of kernels and programs 2.50 %" in text


def test_what_a_cell_asked_of_its_host_is_counted() -> None:
    lines: list[dict[str, object]] = [
        {"at": 0.1, "check": "test_x"},
        {"at": 0.2, "run": "true"},
        {"at": 0.3, "read": "/proc/vmstat"},
        {"at": 0.4, "write": "/sys/x", "text": "1"},
        {"at": 0.5, "program": 0, "send": "touch"},
        {"at": 0.6, "program": 0, "received": "ok"},
        {"at": 0.7, "program": 0, "close": True},
    ]
    assert exchanges_of("".join(json.dumps(line) + "\n" for line in lines)) == 4


def test_ways_take_turns() -> None:
    done: list[str] = []
    ways = (lambda: done.append("a"), lambda: done.append("b"))
    found = in_turns(ways, 2, check=lambda: done.append("looked"))
    assert done == ["a", "looked", "b", "looked"] * 2
    assert len(found) == 2
