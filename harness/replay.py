# SPDX-License-Identifier: GPL-2.0-only
"""Turn what a cell did to its host (commands.jsonl) into a script that does the same by itself.

With it QEMU can be run bare: the same kernel, guests and commands, without harness, SSH or pytest.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from harness.errors import UsageError
from harness.hosts import cpio, qemu
from harness.hosts.image import HostImage

SCRIPT = "replay/run.sh"
# init.sh looks for this word; the script runs instead of the SSH server, then power goes off.
CMDLINE = "kvm_harness.replay"
# Two descriptors for each guest that runs at the same time: sh has no more than nine.
_DESCRIPTORS = ((3, 4), (5, 6), (7, 8))

_BEGIN = """\
# begin N PROGRAM...: start a guest whose standard streams are /tmp/inN and /tmp/outN
begin() {
    n=$1; shift
    mkfifo /tmp/in$n /tmp/out$n
    "$@" </tmp/in$n >/tmp/out$n &
}
"""


def read_journal(path: Path) -> list[dict[str, object]]:
    """The records of a commands.jsonl; UsageError if there is none."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as exc:
        raise UsageError(f"no record of a cell's commands in {path}: {exc}") from exc


def script(records: Iterable[dict[str, object]]) -> str:
    """The script that gives the same commands in the same order and waits for each reply."""
    lines = [_BEGIN]
    free = list(_DESCRIPTORS)
    used: dict[object, tuple[int, int]] = {}
    pids: dict[str, str] = {}
    for record in records:
        number = record.get("program")
        if "start" in record:
            used[number] = there, back = free.pop(0)
            argv = [str(word) for word in record["start"]]  # type: ignore[attr-defined]
            lines.append(f"begin {number} {shlex.join(argv)}")
            lines.append(f"exec {there}>/tmp/in{number} {back}</tmp/out{number}")
        elif "received" in record and number in used:
            lines.append(f"read -r reply <&{used[number][1]}")
            greeting = re.match(r"ready .*\bpid=(\d+) ", str(record["received"]))
            if greeting is not None:
                pids[greeting[1]] = f"PID{number}"
                lines.append(f"PID{number}=${{reply#*pid=}}; PID{number}=${{PID{number}%% *}}")
        elif "send" in record and number in used:
            lines.append(f"echo {shlex.quote(str(record['send']))} >&{used[number][0]}")
        elif "close" in record and number in used:
            there, back = used.pop(number)
            free.insert(0, (there, back))
            lines.append(f"exec {there}>&- {back}<&-")
        elif number is None:
            lines.append(_command(record, pids))
    return "\n".join(lines) + "\n"


def _command(record: dict[str, object], pids: dict[str, str]) -> str:
    """A command in a shell of its own; the recorded PIDs become those of this boot by sed."""
    if "read" in record:
        command = f"cat {shlex.quote(str(record['read']))}"
    elif "write" in record:
        text, path = shlex.quote(str(record["text"])), shlex.quote(str(record["write"]))
        command = f"printf %s {text} > {path}"
    else:
        command = str(record.get("run", "true"))
    for pid, variable in pids.items():
        command = re.sub(rf"\b{pid}\b", f"@{variable}@", command)
    found = sorted(set(re.findall(r"@(PID\d+)@", command)))
    quoted = shlex.quote(command)
    if not found:
        return f"sh -c {quoted} >/dev/null 2>&1 </dev/null"
    swaps = " ".join(f'-e "s/@{name}@/${name}/g"' for name in found)
    return f"printf %s {quoted} | sed {swaps} | sh >/dev/null 2>&1"


def initramfs(
    image: HostImage, programs: dict[str, Path], records: Iterable[dict[str, object]], target: Path
) -> None:
    """Write the host's initramfs with the script in it."""
    qemu.overlay(image.initramfs, programs, target)
    with target.open("ab") as out:
        out.write(cpio.archive([cpio.file(SCRIPT, script(records).encode(), 0o755)]))
