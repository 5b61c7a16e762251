# SPDX-License-Identifier: GPL-2.0-only
"""The script of a reproducer, run by a real sh, and what is read of its console."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import proc
from harness.deadline import Deadline
from harness.reproduce import steps
from harness.reproduce.script import OVER, Boot, parse, script, without_numbers
from harness.reproduce.steps import Record

GUEST = """\
#!/bin/sh
echo "ready protocol=1 pid=$$ vmfd=4 pages=8"
while read -r line; do
    case "$line" in
    bad) echo "error data stale page=3" ;;
    dump) echo "ok dump=a_line|another|a_line" ;;
    die) exit 1 ;;
    *) echo "ok count=2 idle=0-1 exits=$$ wfe_exit_stat=9 touches=3" ;;
    esac
done
"""
# The host's, of which this machine needs to have none.
DMESG = "dmesg() { [ $# -gt 0 ] || cat LOG; }\n"


@pytest.fixture
def guest(tmp_path: Path) -> str:
    program = tmp_path / "guest"
    program.write_text(GUEST)
    program.chmod(0o755)
    (tmp_path / "log").write_text("[    1.5] WARNING: CPU: 1 PID: 7 at x.c:12 f+0x1a/0x2b\n")
    return str(program)


def boot(before: list[Record], work: list[Record], folder: Path, *titles: str) -> Boot:
    path = folder / "steps.sh"
    text = DMESG.replace("LOG", str(folder / "log"))
    path.write_text(text + script(before, work, str(folder)))
    done = proc.run(["sh", str(path)], deadline=Deadline(20), what="the script", contained=True)
    assert done.stderr == ""
    return parse(done.stdout.replace("\n", "\r\n"), titles)


def talk(guest: str, *lines: str) -> list[Record]:
    records: list[Record] = [
        {"program": 0, "start": [guest, "--pages", "8"]},
        {"program": 0, "received": "ready protocol=1 pid=79 vmfd=4 pages=8"},
    ]
    for line in lines:
        records += [{"program": 0, "send": line}, {"program": 0, "received": "ok"}]
    return records


def test_each_step_shows_what_it_led_to(guest: str, tmp_path: Path) -> None:
    file = tmp_path / "some file"
    work: list[Record] = [
        *talk(guest, "populate", "dump", "bad"),
        {"write": str(file), "text": "two\nlines\n"},
        {"read": str(file)},
        {"run": "echo said; false"},
        {"program": 0, "close": True},
    ]
    seen = boot([], work, tmp_path)
    assert (seen.begun, seen.over) == (7, True)
    assert len(steps.announced(work)) == 7
    assert seen.shown == {
        1: {"1 ready", "1 protocol=1", "1 vmfd=4", "1 pages=8"},
        2: {"1 ok", "1 count=2", "1 idle=0-1"},
        3: {"1 ok", "1 dump=a_line", "1 another", "1 a_line"},
        4: {"1 error", "1 data", "1 stale", "1 page=3"},
        5: {"1 status 0"},
        6: {"1 two", "1 lines", "1 status 0"},
        7: {"1 said", "1 status 1"},
    }


def test_preparation_is_done_and_not_shown(guest: str, tmp_path: Path) -> None:
    seen = boot([{"run": f"echo x > {tmp_path}/done"}], [{"run": "true"}], tmp_path)
    assert (tmp_path / "done").exists()
    assert seen.shown == {1: {"1 status 0"}}


def test_a_guest_that_ends_early_holds_nothing_up(guest: str, tmp_path: Path) -> None:
    seen = boot([], talk(guest, "die"), tmp_path)
    assert seen.over
    assert "1 (it" in seen.shown[2]


def test_a_trace_is_counted_by_what_it_says(guest: str, tmp_path: Path) -> None:
    (tmp_path / "trace").write_text(
        "  kvm-guest-79  [001] d..1.  12.345678: kvm_age_hva: hva: 0x0000ffffa8000000\n"
        "  sh-5  [000] .....  13.000001: kvm_age_hva: hva: 0x0000ffffa8001000\n"
        "0x80000000-0x80200000 2M AF\n"
        "MemFree:   12 kB\nSecPageTables:   8 kB\n"
        "# entries-in-buffer/entries-written: 2/2   #P:2\nentries: 2\nnow ts: 12.5\n"
    )
    seen = boot([], [{"read": f"{tmp_path}/trace"}], tmp_path)
    assert seen.shown[1] == {
        "2 kvm_age_hva: hva: X",
        "1 0x80000000-0x80200000 2M AF",
        "1 SecPageTables:   8 kB",
        "1 status 0",
    }


@pytest.mark.parametrize(
    "word",
    ["$(touch OUT)", "`touch OUT`", "'; touch OUT; '", '"; touch OUT; "', "\\'; touch OUT #"],
)
def test_what_a_run_wrote_down_is_never_more_than_a_word(
    guest: str, tmp_path: Path, word: str
) -> None:
    out = tmp_path / "out"
    hostile = word.replace("OUT", str(out))
    plain = hostile.replace(";", "")
    work: list[Record] = [
        {"program": 0, "start": [guest, hostile]},
        {"program": 0, "received": f"ready protocol=1 pid=79 {plain}"},
        {"program": 0, "send": hostile},
        {"program": 0, "received": f"ok {plain}"},
        {"write": f"{tmp_path}/{hostile.replace('/', '_')}", "text": hostile},
        {"read": hostile},
        {"program": 0, "close": True},
    ]
    assert boot([], work, tmp_path).over
    assert not out.exists()


def test_reports_are_known_by_their_words(guest: str, tmp_path: Path) -> None:
    title = without_numbers("WARNING: CPU: 0 PID: 99 at x.c:13 f+0x2c/0x30")
    seen = boot([], [], tmp_path, title, "BUG: other")
    assert seen == Boot(0, True, {}, frozenset({title}))


def test_reports_are_known_by_what_of_them_is_ascii() -> None:
    title = "WARNING: caf\xe9 \x1b[1m 12\xb5s at x.c:13"
    known = without_numbers(title)
    assert known == "WARNING: caf [Nm Ns at x.c:N"
    assert parse(f"[ 1.0] {title}\r\n", [known]).titles == {known}


def test_a_host_that_stops_shows_where() -> None:
    seen = parse("repro: 1 > a\r\nrepro: 1 < 1 ok\r\nrepro: 1 .\r\nrepro: 2 > b\r\nrep", ())
    assert seen == Boot(2, False, {1: frozenset({"1 ok"})})
    assert not parse(f"x{OVER}\n", ()).over


def test_control_characters_of_a_console_mean_nothing() -> None:
    seen = parse("repro: 1 < 1 \x1b[2Jok\xe9\x9b\r\nrepro: 1 .\r\n", ())
    assert seen.shown == {1: frozenset({"1 [2Jok"})}
