# SPDX-License-Identifier: GPL-2.0-only
"""However a run ends, nothing that it started is left, and what it recorded is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from command import argv, environment, kvm_harness

from harness.paths import PROJECT

pytestmark = pytest.mark.integration

WAIT_SECONDS = 300.0
GONE_SECONDS = 15.0


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number."""

    pid: int
    started: str
    parent: int
    command: str


def processes() -> dict[int, Process]:
    """All processes that are not zombies (proc(5), stat: fields 3, 4 and 22)."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if fields[0] != "Z":
                pid = int(folder.name)
                found[pid] = Process(pid, fields[19], int(fields[1]), line)
    return found


def started_by(pid: int) -> set[Process]:
    """A process and everything below it."""
    everything = processes()
    family = {pid}
    while more := {one.pid for one in everything.values() if one.parent in family} - family:
        family |= more
    return {everything[pid] for pid in family if pid in everything}


def still_there(family: set[Process]) -> set[Process]:
    now = processes()
    return {one for one in family if one.pid in now and now[one.pid].started == one.started}


def wait_until(what: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.05)
    return what()


def run_folder(state: Path) -> Path | None:
    return next(iter((state / "kvm-harness" / "runs").glob("*")), None)


def in_a_check(state: Path) -> bool:
    """One check has been recorded, so the next one is at work."""
    folder = run_folder(state)
    records = [] if folder is None else list(folder.glob("cells/*/records.jsonl"))
    return any('"check"' in path.read_text() for path in records)


def booting(state: Path) -> bool:
    folder = run_folder(state)
    return folder is not None and any(folder.glob("cells/*/console.log"))


def building(state: Path) -> bool:
    """The compiler is at work, in its sandbox."""
    return any("cc1" in one.command for one in started_by(os.getpid()))


def uncached_series(folder: Path) -> str:
    """A series that no cache has: it must be built."""
    path = folder / "0001-x.patch"
    name = "arch/arm64/kvm/mmu.c"
    path.write_text(
        f"Subject: [PATCH] x\n\n---\n--- a/{name}\n+++ b/{name}\n"
        f"@@ -1,3 +1,4 @@\n // SPDX-License-Identifier: GPL-2.0-only\n+/* {uuid.uuid4()} */\n"
        " /*\n  * Copyright (C) 2012 - Virtual Open Systems and Columbia University\n"
    )
    return str(path)


# SIGTERM goes the way of SIGINT (harness/cli.py), so one stage is enough for it.
@pytest.mark.parametrize(
    ("signum", "stage"),
    [
        (signal.SIGTERM, in_a_check),
        *(
            (signum, stage)
            for signum in (signal.SIGINT, signal.SIGKILL)
            for stage in (building, booting, in_a_check)
        ),
    ],
)
def test_nothing_is_left(
    signum: signal.Signals, stage: Callable[[Path], bool], tmp_path: Path
) -> None:
    args = ["run", "--host", "n1", "--mode", "vhe"]
    args += ["--series", uncached_series(tmp_path)] if stage is building else ["--base-only"]
    family: set[Process] = set()

    def reached() -> bool:
        family.update(started_by(process.pid))
        return stage(tmp_path)

    with subprocess.Popen(
        argv(*args),
        env=environment(tmp_path),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            assert wait_until(reached, WAIT_SECONDS), "the stage was never reached"
            family.update(started_by(process.pid))
            process.send_signal(signum)
            output, _ = process.communicate(timeout=GONE_SECONDS + 15)
        finally:
            process.kill()
    assert len(family) > 2
    assert wait_until(lambda: not still_there(family), GONE_SECONDS), still_there(family)
    folder = run_folder(tmp_path)
    assert folder is not None
    if signum == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 130, output
        assert Path(output.rstrip().splitlines()[-1]) == folder
        summary = json.loads((folder / "summary.json").read_text())
        assert (summary["verdict"], summary["reason"]) == ("error", "interrupted")
    if signum != signal.SIGKILL or stage is in_a_check:
        assert not list(folder.glob("cells/*/initramfs*"))
    if stage is in_a_check:
        kept = "".join(path.read_text() for path in folder.glob("cells/*/records.jsonl"))
        assert '"outcome": "pass"' in kept
        assert "KeyboardInterrupt" not in kept
        assert "SystemExit" not in kept
    if stage is building and signum == signal.SIGKILL:
        # Nor does what it left unfinished in the cache disturb the next run.
        done = kvm_harness([*args, "-k", "test_page_idle"], tmp_path / "next")
        assert done.returncode == 0
        assert not done.summary["kernels"][1]["cached"]
