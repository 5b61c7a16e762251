# SPDX-License-Identifier: GPL-2.0-only
"""The script of a bare run, run by a real sh: it does the recorded work and says if it did not."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import proc, replay
from harness.checks.collect import Collector
from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.hosts.proof import Expected, prove
from harness.hosts.protocols import Process, Result
from harness.hosts.recorder import LONGEST, Journal, RecordedShell
from harness.replay import Outcome

Record = dict[str, object]

# Answers each line; its process id, what it heard, and that it has ended can be seen from outside.
GUEST = """\
#!/bin/sh
mkdir -p {folder}/kvm/$$-4; echo s > {folder}/kvm/$$-4/s2
echo "ready protocol=1 pid=$$ vmfd=4"
while read -r line; do
    echo "$line" >> {folder}/heard
    case "$line" in
    bad) echo "error hung vcpu=0" ;;
    late) exit 1 ;;
    batch) echo "ok a=1;ok;ok b=2" ;;
    half) echo "ok a=1;error usage;ok b=2" ;;
    *) echo "ok done=$line" ;;
    esac
done
sleep 0.1
echo over >> {folder}/heard
"""


@pytest.fixture
def guest(tmp_path: Path) -> str:
    program = tmp_path / "guest"
    program.write_text(GUEST.replace("{folder}", str(tmp_path)))
    program.chmod(0o755)
    return str(program)


def talk(guest: str, *lines: tuple[str, str], number: int = 0, pid: int = 79) -> list[Record]:
    records: list[Record] = [
        {"program": number, "start": [guest]},
        {"program": number, "received": f"ready protocol=1 pid={pid} vmfd=4"},
    ]
    for sent, received in lines:
        records += [
            {"program": number, "send": sent},
            {"program": number, "received": received},
        ]
    return records


def run(records: list[Record], folder: Path) -> tuple[Outcome, str]:
    path = folder / "run.sh"
    path.write_text(replay.script(records, str(folder)))
    done = proc.run(["sh", str(path)], deadline=Deadline(20), what="the script", contained=True)
    assert done.stderr == ""
    console = f"boot\r\n{done.stdout}{replay.OVER}\r\n"
    return replay.outcome(console), console


def test_the_same_work(guest: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    records: list[Record] = [
        {"run": f"echo one > {file}"},
        *talk(guest, ("populate", "ok x=1"), ("batch", "ok a=7;ok;ok b=9")),
        {"write": str(file), "text": "two\n"},
        {"read": str(file)},
        {"program": 0, "close": True},
        {"program": 0, "close": True},
        {"run": f"cp {tmp_path}/heard {tmp_path}/heard-then"},
    ]
    found, console = run(records, tmp_path)
    assert found == Outcome(
        same=3, replies=3, commands_failed=0, commands=2, files_failed=0, files=2
    )
    replay.check_outcome(found, console)
    assert file.read_text() == "two\n"
    # What followed the guest's end came after it.
    assert (tmp_path / "heard-then").read_text().split() == ["populate", "batch", "over"]


@pytest.mark.parametrize(
    ("line", "recorded", "told"),
    [
        ("bad", "ok x=1", 'reply 2 begins with "error hung vcpu=0", recorded was ok'),
        ("populate", "error hung vcpu=0", 'reply 2 begins with "ok done=populate", recorded was'),
        ("half", "ok a=1;ok;ok b=2", 'reply 2 begins with "ok a=1;error usage;ok b=2"'),
        ("populate", "okay x", "reply 2 begins"),
        ("late", "ok", 'reply 2 begins with "", recorded was ok'),
    ],
)
def test_another_reply_is_told(
    guest: str, tmp_path: Path, line: str, recorded: str, told: str
) -> None:
    records: list[Record] = [*talk(guest, (line, recorded)), {"program": 0, "close": True}]
    found, console = run(records, tmp_path)
    assert (found.same, found.replies) == (1, 2)
    assert told in console
    with pytest.raises(InfraError, match="other work than the cell"):
        replay.check_outcome(found, console)


@pytest.mark.parametrize("number", [1, 2])
def test_a_read_or_write_that_fails_spoils_the_run(tmp_path: Path, number: int) -> None:
    records: list[Record] = [{"read": f"{tmp_path}/none"}, {"write": "/dev/none/x", "text": "y"}]
    found, console = run(records[:number], tmp_path)
    assert (found.files_failed, found.files) == (number, number)
    assert f"failed: cat {tmp_path}/none" in console
    with pytest.raises(InfraError, match="failed: cat"):
        replay.check_outcome(found, console)


@pytest.mark.parametrize("command", ["false", "exit 3", "echo 'unfinished", "(", "sh -euc 'false'"])
def test_a_command_that_fails_is_counted_and_ends_nothing(tmp_path: Path, command: str) -> None:
    records: list[Record] = [{"run": command}, {"run": f"touch {tmp_path}/after"}]
    found, console = run(records, tmp_path)
    assert (found.commands_failed, found.commands) == (1, 2)
    assert f"failed: {command}" in console
    assert (tmp_path / "after").exists()
    replay.check_outcome(found, console)


def test_a_loop_that_says_nothing(tmp_path: Path) -> None:
    records: list[Record] = [
        {"program": 0, "start": ["sh", "-c", "echo; read -r _"]},
        {"program": 0, "received": ""},
        {"program": 0, "close": True},
    ]
    found, _ = run(records, tmp_path)
    assert (found.same, found.replies) == (1, 1)


def test_where_checks_begin_is_no_work(tmp_path: Path) -> None:
    found, _ = run([{"check": "test_x"}, {"run": "true"}, {"check": ""}], tmp_path)
    assert found == Outcome(0, 0, 0, 1, 0, 0)


@pytest.mark.parametrize("cut", ["kvm-harness: replay: 1 of", replay.OVER])
def test_a_script_that_did_not_end(tmp_path: Path, cut: str) -> None:
    _, console = run([], tmp_path)
    assert replay.outcome(console).replies == 0
    with pytest.raises(InfraError, match="did not come to its end"):
        replay.outcome(console.replace(cut.replace("1 of", "0 of"), ""))


def test_pids_and_no_other_numbers_become_those_of_this_boot(guest: str, tmp_path: Path) -> None:
    """4096 stands for a PID that is a common number as well."""
    kvm = tmp_path / "kvm"
    out = tmp_path / "out"
    records: list[Record] = [
        *talk(guest, pid=4096),
        {"run": f"echo 4096 > {out}.procs"},
        {"run": f"sh -euc 'cat {kvm}/4096-4/s2 > {out}.nested'"},
        {"run": f"echo - 2 0 4 200 4096 >> {out}.rest; echo 4096 pages >> {out}.rest"},
        {"write": f"{out}.evict", "text": "- 2 0 4 200 4096\n"},
        {"read": f"{kvm}/4096-4/s2"},
        {"program": 0, "send": "touch read 0 4096"},
        {"program": 0, "received": "ok"},
        {"program": 0, "close": True},
    ]
    found, console = run(records, tmp_path)
    assert (found.commands_failed, found.files_failed) == (0, 0), console
    pid = (tmp_path / "out.procs").read_text().strip()
    assert pid.isdigit()
    assert pid != "4096"
    assert (tmp_path / "out.nested").read_text() == "s\n"
    assert (tmp_path / "out.rest").read_text() == "- 2 0 4 200 4096\n4096 pages\n"
    assert (tmp_path / "out.evict").read_text() == "- 2 0 4 200 4096\n"
    assert "touch read 0 4096" in (tmp_path / "heard").read_text()


def test_guests_at_the_same_time_end_one_by_one(guest: str, tmp_path: Path) -> None:
    """A guest that held another's input open would keep it from its end, and the script too."""
    records: list[Record] = [
        *talk(guest, ("a", "ok"), number=0, pid=70),
        *talk(guest, ("b", "ok"), number=1, pid=71),
        {"program": 0, "close": True},
        {"program": 1, "send": "c"},
        {"program": 1, "received": "ok"},
        *talk(guest, ("d", "ok"), number=2, pid=72),
        {"program": 1, "close": True},
        {"program": 2, "close": True},
    ]
    found, _ = run(records, tmp_path)
    assert (found.same, found.replies) == (7, 7)
    heard = (tmp_path / "heard").read_text().split()
    assert heard == ["a", "b", "over", "c", "d", "over", "over"]


class Host:
    """A Shell that answers what the harness's own collection wants to hear, as far as it goes."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        return Result(command, 0, "", "")

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        return ""

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None: ...

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None: ...

    def start(self, argv: Sequence[str]) -> Process:
        raise AssertionError("no program is started")


def test_what_the_harness_collects_for_itself_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "commands.jsonl"
    with contextlib.closing(Journal(path)) as journal:
        shell = RecordedShell(Host(), journal, replay.own_collection)
        with pytest.raises(InfraError, match="asked for its kernel"):
            prove(shell, Expected("0", "0"), "vhe", set())
        with pytest.raises(InfraError):
            Collector(shell).after()
        shell.run("dmesg")
        taken = len(replay.read_journal(path))
        for command in ("dmesg | grep -c x", "set -eu\ncat /proc/vmstat", "echo 'open"):
            shell.run(command)
    assert taken == 3
    records = replay.read_journal(path)
    asked = [record for record in records if "run" in record]
    assert [replay.own_collection(str(record["run"])) for record in asked] == (
        3 * [True] + 3 * [False]
    )
    found, _ = run(records, tmp_path)
    assert found.commands == 3


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ([{"put": "/tmp/x"}], "'put'"),
        ([{"run": "x" * LONGEST}], "cut off"),
        ([{"program": 0, "start": ["a"]}, {"program": 0, "send": "x" * LONGEST}], "cut off"),
        ([{"program": 0, "start": ["a"]}, {"program": 0, "received": "*"}], "reply that begins"),
        ([{"program": at, "start": ["a"]} for at in range(4)], "3 guests at once"),
    ],
)
def test_what_cannot_be_repeated(records: list[Record], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        replay.script(records)


@pytest.mark.parametrize("text", [None, "{", '{"at": 1}\nx\n'])
def test_a_journal_that_is_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "commands.jsonl"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=r"commands\.jsonl"):
        replay.read_journal(path)
    path.write_text(json.dumps({"at": 0.5, "run": "true"}) + "\n")
    assert replay.read_journal(path) == [{"at": 0.5, "run": "true"}]
