# SPDX-License-Identifier: GPL-2.0-only
"""The script that does a check's steps again inside a bare host, and what its console then says.

Each step is announced as `repro: N > WORDS`. What it showed follows as lines `repro: N < COUNT
LINE`, sorted, with what differs from boot to boot left out, and `repro: N .` when it is over. At
the end come the kernel's log and `repro: over`. A host that stops in a step shows which.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness import proc, replay
from harness.deadline import Deadline
from harness.reproduce.steps import Record

OVER = "repro: over"
SED_SECONDS = 30.0

# What is left out: a trace's tasks, CPUs, times and buffers; addresses; KVM's counters of exits; of
# meminfo all but stage-2 tables.
_SHOWN = r"""
/ \[[0-9][0-9]*\] .*[0-9]\.[0-9][0-9]*: /{
s/^.* [0-9]*\.[0-9][0-9]*: //
s/0x[0-9a-f]*/X/g
}
/^SecPageTables:/!{
/^[A-Z][A-Za-z0-9_()]*: *[0-9]* kB$/d
}
/^bytes: /d
/^entries: /d
/^oldest event ts: /d
/^now ts: /d
/^# entries-in-buffer/d
/^[a-z_]*exit[a-z_]*=[0-9]*$/d
/^[a-z]*_us=[0-9]*$/d
/^touches=[0-9]*$/d
/^pid=[0-9]*$/d
/^slot_hva=/d
/^map=/d
s/[0-9a-f]\{32\}/NONCE/g
"""
# What the kernel reports (WARN, lockdep) is on its way to the console at any time, also into the
# middle of our lines. So all but a panic or an Oops stays off it, and the log is shown at the end.
_BEGIN = r"""
cd FOLDER
step=0 observed=
cat >shown.sed <<'END'
SHOWN
END
begun() {
    step=$((step + 1))
    [ -z "$observed" ] || printf 'repro: %s > %.200s\n' "$step" "$1" | tr -cd '\11\12\40-\176'
}
shown() {
    if [ -n "$observed" ]; then
        tr -cd '\11\12\40-\176' | sed -f shown.sed | sort | uniq -c |
            sed "s/^ */repro: $step < /"
        echo "repro: $step ."
    else
        cat >/dev/null
    fi
}
# begin N PROGRAM...: start a guest whose standard streams are inN and outN
begin() {
    n=$1; shift
    begun "$*"
    mkfifo in$n out$n
    "$@" <in$n >out$n 2>/dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- &
}
# tell DESCRIPTOR LINE, hear DESCRIPTOR: talk to a guest
tell() {
    begun "$2"
    printf '%s\n' "$2" >&$1
}
hear() {
    read -r reply <&$1 || reply='(it has ended)'
}
expect() {
    printf '%s\n' "$reply" | tr ' |' '\n\n' | shown
}
# command_ TEXT, file_ TEXT: in a shell of its own
command_() {
    begun "$1"
    { (eval "$1") 2>&1 </dev/null; echo "status $?"; } | shown
}
file_() {
    command_ "$1"
}
"""
_CHECK = """\
dmesg -c >/dev/null; dmesg -n 1
step=0 observed=yes"""
_END = f"""\
dmesg | tr -cd '\\11\\12\\40-\\176' | sed 's/^/repro: log /'
echo '{OVER}'"""
_LINE = re.compile(r"^repro: (\d+) (?:> .*|< (?P<shown>.*)|(?P<end>\.))$")
# run.sh of a reproducer leaves out the same.
_PLAIN = re.compile(r"[^\t\n -~]")
_NUMBER = re.compile("0x[0-9a-f]*|[0-9]+")


def script(before: Sequence[Record], steps: Sequence[Record], folder: str = "/tmp") -> str:
    """What /init of the host runs: the cell's preparation, then the steps of the check.

    `folder` is where on the host its FIFOs go. UsageError for a record that cannot be repeated.
    """
    begin = _BEGIN.replace("FOLDER", shlex.quote(folder)).replace("SHOWN", _SHOWN.strip()).lstrip()
    lines = [begin, *replay.body(before), _CHECK, *replay.body(steps), _END]
    return "\n".join(lines) + "\n"


def plain(text: str) -> str:
    """A text as a step shows it, by the same sed."""
    argv = ["sed", _SHOWN]
    data = _PLAIN.sub("", text).encode()
    return proc.run(argv, deadline=Deadline(SED_SECONDS), what="sed", stdin=data).stdout


@dataclass(frozen=True)
class Boot:
    """What one boot showed."""

    begun: int
    """The last step that began, 0 if none did."""
    over: bool
    """Whether it came to the end of the script."""
    shown: Mapping[int, frozenset[str]] = field(default_factory=dict)
    """The lines of each step that ended."""
    titles: frozenset[str] = frozenset()
    """Those of the kernel's reports that were looked for and are on the console."""


def parse(console: str, titles: Iterable[str]) -> Boot:
    """What a console says of the script; `titles` are those that without_numbers() gives."""
    begun, over = 0, False
    found: dict[int, set[str]] = {}
    ended: set[int] = set()
    plain = _PLAIN.sub("", console)
    for line in plain.split("\n"):
        over = over or line == OVER
        match = _LINE.match(line)
        if match is None:
            continue
        step = int(match[1])
        begun = max(begun, step)
        if match["end"]:
            ended.add(step)
        elif match["shown"] is not None:
            found.setdefault(step, set()).add(match["shown"])
    plain = without_numbers(console)
    return Boot(
        begun,
        over,
        {step: frozenset(found.get(step, ())) for step in ended},
        frozenset(title for title in titles if title in plain),
    )


def without_numbers(text: str) -> str:
    """The text with N for each number: CPU, PID and offsets differ from boot to boot.

    And without what is not ASCII, as run.sh reads a console's log.
    """
    return _NUMBER.sub("N", _PLAIN.sub("", text))
