# SPDX-License-Identifier: GPL-2.0-only
"""Kill runs with SIGKILL at random points, resume them, and compare with one that was left alone.

    make test-kills ARGS="-- --count 50 --seed 1"
    python tests/kill_points.py --count 50 --seed 1 -- --base-only --host n1 -m quick

By default it is a run over two emulated hosts. With --lab the hosts are two machines of a lab that
are alike, which are emulated as well (lab_rack.py). Every other run is killed twice: once in its
first life, once in its second. Every third is killed at some time, the others some time after one
of their records: most of a run's time passes before its first check.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command import Ended, argv, environment, kvm_harness
from lab_rack import rack

from harness.errors import EXIT_ERROR, EXIT_USAGE
from harness.paths import PROJECT

WAIT_SECONDS = 600.0
CHECKS = ("-m", "quick")
TWO_HOSTS = ("--base-only", "--host", "n1", "--host", "a57", "--mode", "nvhe", *CHECKS)
TWO_MACHINES = ("--base-only", "--mode", "vhe", "--mode", "nvhe", *CHECKS)


@dataclass(frozen=True)
class Killed:
    """A run that was killed."""

    folder: Path
    records: dict[Path, bytes]
    """What was on disk at that moment."""
    ended: bool
    """Whether it was over before it could be killed."""


def kill(args: Sequence[str], state: Path, when: Callable[[Path], bool]) -> Killed:
    """`kvm-harness run ARGS`, killed with SIGKILL as soon as `when` says so of its run folder."""
    process = subprocess.Popen(
        argv("run", *args),
        env=environment(state),
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        head = "run folder: "
        said = ""
        while head not in said:
            said = process.stdout.readline()
            assert said, "it ended before it named its folder"
        folder = Path(said.partition(head)[2].strip())
        until = time.monotonic() + WAIT_SECONDS
        while process.poll() is None and not when(folder):
            assert time.monotonic() < until, "the time to kill it never came"
            time.sleep(0.002)
        ended = process.poll() is not None
    finally:
        process.kill()
        process.communicate()
    return Killed(folder, complete_lines(folder), ended)


def complete_lines(folder: Path) -> dict[Path, bytes]:
    """All records of a run, without the last of a file where that was cut off."""
    found = {path: path.read_bytes() for path in folder.rglob("records.jsonl")}
    return {path: data[: data.rfind(b"\n") + 1] for path, data in found.items()}


def resume(killed: Killed, state: Path) -> Ended:
    """Go on to the end; what was recorded must be there still, unchanged, and nothing twice."""
    done = kvm_harness(["run", "--resume", str(killed.folder)], state, quiet=True)
    assert done.folder == killed.folder
    for path, data in killed.records.items():
        assert path.read_bytes().startswith(data), f"{path} was written anew"
    for path in killed.folder.rglob("records.jsonl"):
        names = [next(iter(json.loads(line).values())) for line in path.read_text().splitlines()]
        keys = [(name.get("name"), name.get("id")) for name in names]
        assert len(set(keys)) == len(keys), f"{path} has something twice: {keys}"
    return done


def comparable(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without what differs between any two runs: times, boots, counts in `observed`.

    A cell that was cut off has the console of that boot as evidence on top. Which machine of a
    group a cell runs on is for chance to say.
    """
    gone = {"started", "resumed", "seconds", "build_seconds", "cached", "boot_seconds", "boot_id"}
    gone.add("machine")

    def strip(value: dict[str, Any]) -> dict[str, Any]:
        kept = {key: each for key, each in value.items() if key not in gone | {"observed"}}
        if "evidence" in kept:
            kept["evidence"] = [path for path in kept["evidence"] if "/console-cut-" not in path]
        return kept

    return {
        **strip(summary),
        "notes": [note for note in summary["notes"] if " by machine: " not in note],
        "kernels": [strip(each) for each in summary["kernels"]],
        "cells": sorted(map(strip, summary["cells"]), key=lambda cell: str(cell["id"])),
        "checks": sorted(
            map(strip, summary["checks"]), key=lambda check: (str(check["cell"]), check["name"])
        ),
    }


def after(seconds: float) -> Callable[[Path], bool]:
    """A point in time, from now on."""
    until = time.monotonic() + seconds
    return lambda folder: time.monotonic() >= until


def after_records(count: int, seconds: float) -> Callable[[Path], bool]:
    """So long after a run has so many records: on a busy machine no time says how far it is."""
    until: list[float] = []

    def when(folder: Path) -> bool:
        if not until and sum(map(_lines, complete_lines(folder).values())) >= count:
            until.append(time.monotonic() + seconds)
        return bool(until) and time.monotonic() >= until[0]

    return when


def _lines(data: bytes) -> int:
    return data.count(b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=3, metavar="N", help="runs to kill")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), metavar="N")
    parser.add_argument("--lab", action="store_true", help="over two machines of a lab")
    parser.add_argument("args", nargs="*", help="of kvm-harness run")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        state = Path(name) / "state"
        state.mkdir()
        args = tuple(options.args) or (TWO_MACHINES if options.lab else TWO_HOSTS)
        rng = random.Random(options.seed)
        if options.lab:
            made = stack.enter_context(rack(Path(name), state))
            args = (*args, *made.options)
            # Recovery is rehearsed once, which takes a while.
            assert kvm_harness(["run", *args], state).returncode == 0
        kill_runs(args, state, options.count, rng)
    print(f"{options.count} of {options.count} ended as the one that was left alone")


def kill_runs(args: Sequence[str], state: Path, count: int, rng: random.Random) -> None:
    """Kill so many runs and resume each; SystemExit for one that ends otherwise."""
    begun = time.monotonic()
    whole = kvm_harness(["run", *args], state, quiet=True)
    seconds = time.monotonic() - begun
    assert whole.returncode not in (EXIT_USAGE, EXIT_ERROR), whole.stdout + whole.stderr
    expected = comparable(whole.summary)
    print(f"left alone it takes {seconds:.1f} s, and ends with {whole.returncode}", flush=True)
    records = sum(map(_lines, complete_lines(whole.folder).values()))
    for number in range(1, count + 1):
        if number % 3 == 0:
            points = [rng.uniform(0, seconds)]
            when = after(points[0])
        else:
            points = [rng.uniform(0, 2)]
            when = after_records(rng.randint(1, records - 1), points[0])
        killed = kill(args, state, when)
        if number % 2 == 0:
            points.append(rng.uniform(0, seconds - points[0]))
            killed = kill(["--resume", str(killed.folder)], state, after(points[1]))
        kept = sum(map(_lines, killed.records.values()))
        done = resume(killed, state)
        same = comparable(done.summary) == expected and done.returncode == whole.returncode
        at = ", ".join(f"{point:.2f}" for point in points)
        words = f"killed at {at} s, {kept} records kept: {'same' if same else 'OTHER'}"
        print(f"{number}: {words}", flush=True)
        if not same:
            print(json.dumps([expected, comparable(done.summary)], indent=1))
            sys.exit(1)


if __name__ == "__main__":
    main()
