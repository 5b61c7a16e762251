# SPDX-License-Identifier: GPL-2.0-only
"""What one check did, cut out of the record of a whole cell."""

from __future__ import annotations

from harness.reproduce import steps
from harness.reproduce.steps import Record

RECORDS: list[Record] = [
    {"at": 0.0, "run": "base64 /sys/kernel/notes; and so on"},
    {"at": 0.1, "run": "echo quiet"},
    {"at": 0.2, "check": "test_one"},
    {"at": 0.3, "run": "dmesg"},
    {"at": 0.4, "run": "echo one"},
    {"at": 0.5, "check": "test_two[a]"},
    {"at": 0.6, "put": "/tmp/tests/it's"},
    {"at": 0.7, "program": 3, "start": ["kvm-guest", "--pages", "8"]},
    {"at": 0.8, "program": 3, "received": "ready pid=7"},
    {"at": 0.9, "program": 3, "send": "race 1 2"},
    {"at": 1.0, "program": 3, "received": "error data stale page=3"},
    {"at": 1.1, "run": "dmesg"},
]


def test_the_steps_of_one_check() -> None:
    assert steps.preparation(RECORDS) == [{"at": 0.1, "run": "echo quiet"}]
    assert steps.of_check(RECORDS, "test_one") == [{"at": 0.4, "run": "echo one"}]
    assert steps.of_check(RECORDS, "test_two") is None
    two = steps.of_check(RECORDS, "test_two[a]")
    assert two is not None
    assert steps.announced(two)[1:] == ["kvm-guest --pages 8", "send race 1 2"]
    assert steps.errors(two) == {3: ("error", "data", "stale")}


def test_files_that_a_check_copies_come_from_the_initramfs() -> None:
    two = steps.of_check(RECORDS, "test_two[a]")
    assert two is not None
    quoted = "'/replay/put/it'\"'\"'s' '/tmp/tests/it'\"'\"'s'"
    assert str(two[0]["run"]).startswith(f"cp {quoted} && chmod 755 ")


def test_how_far_two_hosts_were_asked_for_the_same() -> None:
    one = ["run echo 12 > x", "send a", "read /kvm/7-4/s2", "run rmdir x"]
    other = ["run echo 99 > x", "send a", "read /kvm/8-4/s2", "send b"]
    assert steps.common(one, other) == 3
    assert steps.common(one, one) == 4
    assert steps.common(one, []) == 0


def test_what_guests_replied_is_as_the_script_shows_it() -> None:
    records: list[Record] = [{"start": ["guest"]}, {"received": "ready pid=1"}, {"send": "age"}]
    records += [{"received": "ok path=a|old=1 old=1"}, {"run": "cat x"}]
    records += [{"output": "b\na\nb\n", "status": 1}, {"read": "/x"}, {"output": "", "status": 0}]
    assert steps.shown(records, str) == {
        1: frozenset({"1 ready", "1 pid=1"}),
        2: frozenset({"1 ok", "1 path=a", "2 old=1"}),
        3: frozenset({"1 a", "2 b", "1 status 1"}),
        4: frozenset({"1 status 0"}),
    }
