# SPDX-License-Identifier: GPL-2.0-only
"""Turn what a cell did to its host (commands.jsonl) into a script that does the same by itself.

With it QEMU can be run bare: the same kernel, guests and commands, without harness, SSH or pytest.
What the harness collects for itself (proof of the kernel, counters and log around each check) is
left out: it is no part of the work that the harness is measured against.

The script says on the console how its replies and commands compare with the record. PIDs become
those of the new boot; other recorded numbers stay as they are. They repeat because the boot, the
guests and their order do, but nothing guarantees it: the memcg's id and the generations in commands
to lru_gen (a memcg id is the lowest free one; max_seq rises by aging alone), and the VM's file
descriptor. Where they differ the kernel refuses the command or the path is absent, and the script
counts it as failed; only an lru_gen walk with too low a max_seq is ignored in silence. Random
numbers of the kernel (addresses, PFNs) differ and are not compared.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import InfraError, UsageError
from harness.hosts import cpio, qemu
from harness.hosts.image import HostImage
from harness.hosts.recorder import LONGEST
from harness.observe.collect import snapshot_script
from harness.observe.text import as_script

SCRIPT = "replay/run.sh"
# init.sh looks for this word; the script runs instead of the SSH server, then power goes off.
CMDLINE = "kvm_harness.replay"
SAYS = "kvm-harness: replay:"
# What init.sh prints after the script.
OVER = "kvm-harness: replay is over"
# Two descriptors for each guest that runs at the same time: sh has no more than nine.
_DESCRIPTORS = ((3, 4), (5, 6), (7, 8))
# How proof.prove() begins.
_PROOF = "base64 /sys/kernel/notes;"
_SNAPSHOT = re.compile(r"set -eu\necho '([0-9a-f]{32}) vmstat'\n")

# A guest gets none of the script's descriptors: one that held another's input would keep it alive.
_BEGIN = """\
cd FOLDER
same=0 commands_failed=0 files_failed=0
# begin N PROGRAM...: start a guest whose standard streams are inN and outN
begin() {
    n=$1; shift
    mkfifo in$n out$n
    "$@" <in$n >out$n 2>/dev/null 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- &
}
# tell DESCRIPTOR LINE, hear DESCRIPTOR: talk to a guest
tell() {
    printf '%s\\n' "$2" >&$1
}
hear() {
    read -r reply <&$1
}
# expect N WORDS PATTERN: compare a reply, by the first word of each of its parts
expect() {
    case "$reply " in
    $3) same=$((same + 1)) ;;
    *) printf 'SAYS reply %s begins with "%.60s", recorded was %s\\n' "$1" "$reply" "$2" ;;
    esac
}
failed() {
    printf 'SAYS failed: %.100s\\n' "$1"
}
# command TEXT, file TEXT: in a shell of its own
command_() {
    # Not before `&&`: what is there heeds no `set -e` of its own.
    (eval "$1") >/dev/null 2>&1 </dev/null
    [ $? -ne 0 ] || return 0
    commands_failed=$((commands_failed + 1)); failed "$1"
}
file_() {
    (eval "$1") >/dev/null 2>&1 </dev/null
    [ $? -ne 0 ] || return 0
    files_failed=$((files_failed + 1)); failed "$1"
}
"""
_TOLD = re.compile(
    rf"^{SAYS} (?P<same>\d+) of (?P<replies>\d+) replies as recorded; "
    r"failed: (?P<commands_failed>\d+) of (?P<commands>\d+) commands, "
    r"(?P<files_failed>\d+) of (?P<files>\d+) reads and writes\r?$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Outcome:
    """What a bare run says of itself: how many replies of guests came as recorded, and how many
    commands, and reads and writes of files, failed."""

    same: int
    replies: int
    commands_failed: int
    commands: int
    files_failed: int
    files: int


def read_journal(path: Path) -> list[dict[str, object]]:
    """The records of a commands.jsonl; UsageError if there is none."""
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as exc:
        raise UsageError(f"no record of a cell's commands in {path}: {exc}") from exc


def script(records: Iterable[dict[str, object]], folder: str = "/tmp") -> str:
    """The script that gives the same commands in the same order and waits for each reply.

    `folder` is where on the host its FIFOs go. UsageError for a record that cannot be repeated.
    """
    writer = _written(records)
    begin = _BEGIN.replace("SAYS", SAYS).replace("FOLDER", shlex.quote(folder))
    return "\n".join([begin, *writer.lines, writer.summary()]) + "\n"


def body(records: Iterable[Mapping[str, object]]) -> list[str]:
    """The lines of such a script that do the work, by functions for whoever uses them to define.

    They are `begin N PROGRAM...`, `tell DESCRIPTOR LINE`, `hear DESCRIPTOR`, which sets `reply`,
    `expect N WORDS PATTERN` after it, `command_ TEXT`, `file_ TEXT`. UsageError as from script().
    """
    return _written(records).lines


def outcome(console: str) -> Outcome:
    """What the script said at its end; InfraError if it did not come to it."""
    told = _TOLD.search(console)
    if told is None or OVER not in console:
        raise InfraError("the bare QEMU run did not come to its end")
    return Outcome(**{name: int(value) for name, value in told.groupdict().items()})


def check_outcome(found: Outcome, console: str) -> None:
    """InfraError unless the bare run did the cell's work: then its time compares with nothing.

    Reads and writes must all succeed, as they did in the cell; a command may fail that a check
    expects to fail, so those are counted only.
    """
    if found.same == found.replies and found.files_failed == 0:
        return
    said = [line.strip() for line in console.splitlines() if line.startswith(SAYS)]
    # What came first is the cause of the rest; the last line is the tally.
    told = "\n".join([*said[:3], *said[3:][-1:]])
    raise InfraError(f"the bare QEMU run did other work than the cell:\n{told}")


def own_collection(command: str) -> bool:
    """Whether a command only collects what the harness wants to know around checks."""
    if command == "dmesg" or command.startswith(_PROOF):
        return True
    nonce = _SNAPSHOT.match(command)
    return nonce is not None and command == as_script(snapshot_script(nonce[1], None))


def _written(records: Iterable[Mapping[str, object]]) -> _Writer:
    writer = _Writer()
    for record in records:
        writer.add(record)
    return writer


class _Writer:
    """Writes the script line by line and counts what it must come to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._free = list(_DESCRIPTORS)
        self._used: dict[object, tuple[int, int]] = {}
        self._pids: dict[str, str] = {}
        self._replies = self._commands = self._files = 0

    def add(self, record: Mapping[str, object]) -> None:
        """The lines for one record."""
        number = record.get("program")
        if "check" in record or "output" in record:
            return
        if "start" in record:
            self._start(number, record["start"])
        elif number in self._used:
            self._talk(number, record)
        elif number is None:
            self._command(record)

    def summary(self) -> str:
        """The line that tells how it went."""
        return (
            f'echo "{SAYS} $same of {self._replies} replies as recorded; '
            f"failed: $commands_failed of {self._commands} commands, "
            f'$files_failed of {self._files} reads and writes"'
        )

    def _start(self, number: object, argv: object) -> None:
        assert isinstance(argv, Sequence)
        if not self._free:
            raise UsageError(f"cannot replay more than {len(_DESCRIPTORS)} guests at once")
        there, back = self._used[number] = self._free.pop(0)
        self.lines.append(f"begin {number} {shlex.join(str(word) for word in argv)}")
        self.lines.append(f"JOB{number}=$!; exec {there}>in{number} {back}<out{number}")

    def _talk(self, number: object, record: Mapping[str, object]) -> None:
        there, back = self._used[number]
        if "send" in record:
            line = _whole(str(record["send"]))
            self.lines.append(f"tell {there} {shlex.quote(line)}")
        elif "received" in record:
            self._reply(number, back, str(record["received"]))
        elif "close" in record:
            self._free.insert(0, self._used.pop(number))
            self.lines.append(f'exec {there}>&- {back}<&-; wait "$JOB{number}"')

    def _reply(self, number: object, back: int, text: str) -> None:
        self._replies += 1
        words = [part.partition(" ")[0] for part in text.split(";")]
        # A loop of sh that only says that it goes on sends empty lines.
        if not all(re.fullmatch(r"[a-z]*", word) for word in words):
            raise UsageError(f"cannot replay a reply that begins with {text[:60]!r}")
        alone = len(words) == 1
        pattern = f"{words[0]} *" if alone else ";".join(f"{word}*" for word in words)
        self.lines.append(f"hear {back}")
        self.lines.append(f"expect {self._replies} '{';'.join(words)}' '{pattern}'")
        greeting = re.match(r"ready .*\bpid=(\d+) ", text)
        if greeting is not None:
            name = f"PID{number}"
            self._pids[greeting[1]] = name
            self.lines.append(f"{name}=${{reply#*pid=}}; export {name}=${{{name}%% *}}")

    def _command(self, record: Mapping[str, object]) -> None:
        if "run" in record:
            command = _whole(str(record["run"]))
            if own_collection(command):
                return
            self._commands += 1
            self.lines.append(f"command_ {shlex.quote(self._renumbered(command, str))}")
            return
        if "read" in record:
            command = f"cat {self._path(record['read'])}"
        elif "write" in record:
            text = shlex.quote(_whole(str(record["text"])))
            command = f"printf %s {text} > {self._path(record['write'])}"
        else:
            raise UsageError(f"cannot replay {sorted(set(record) - {'at'})}")
        self._files += 1
        self.lines.append(f"file_ {shlex.quote(command)}")

    def _path(self, path: object) -> str:
        return self._renumbered(str(path), shlex.quote)

    def _renumbered(self, text: str, quote: Callable[[str], str]) -> str:
        """Put this boot's PIDs where a recorded one stands for a process, and nowhere else.

        The variables are exported: a script in single quotes within the command finds them too.
        """
        if not self._pids:
            return quote(text)
        pids = "|".join(self._pids)
        pieces = re.split(rf"(?:(?<=kvm/)|(?<=\becho ))({pids})(?=-\d| >)", text)
        return "".join(
            f"${{{self._pids[piece]}}}" if at % 2 else (quote(piece) if piece else "")
            for at, piece in enumerate(pieces)
        )


def _whole(text: str) -> str:
    if len(text) >= LONGEST:
        raise UsageError(f"cannot replay what the record cut off: {text[:60]!r}")
    return text


def initramfs(
    image: HostImage, programs: dict[str, Path], records: Iterable[dict[str, object]], target: Path
) -> None:
    """Write the host's initramfs with the script in it."""
    qemu.overlay(image.initramfs, programs, target)
    with target.open("ab") as out:
        out.write(cpio.archive([cpio.file(SCRIPT, script(records).encode(), 0o755)]))
