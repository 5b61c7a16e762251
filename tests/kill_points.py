# SPDX-License-Identifier: GPL-2.0-only
"""Kill runs with SIGKILL at random points, resume them, and compare with one that was left alone.

    python tests/kill_points.py --count 50 --seed 1 -- --base-only --host n1 -m quick

Every other run is killed twice: once in its first life, once in its second.
"""

from __future__ import annotations

import argparse
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

from harness.paths import PROJECT

WAIT_SECONDS = 600.0


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
    done = kvm_harness(["run", "--resume", str(killed.folder)], state)
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

    A cell that was cut off has the console of that boot as evidence on top.
    """
    gone = {"started", "resumed", "seconds", "build_seconds", "cached", "boot_seconds", "boot_id"}

    def strip(value: dict[str, Any]) -> dict[str, Any]:
        kept = {key: each for key, each in value.items() if key not in gone | {"observed"}}
        if "evidence" in kept:
            kept["evidence"] = [path for path in kept["evidence"] if "/console-cut-" not in path]
        return kept

    return {
        **strip(summary),
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("args", nargs="*", help="of kvm-harness run")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as name:
        state = Path(name)
        begun = time.monotonic()
        whole = kvm_harness(["run", *options.args], state)
        seconds = time.monotonic() - begun
        expected = comparable(whole.summary)
        for number in range(1, options.count + 1):
            points = [rng.uniform(0, seconds)]
            killed = kill(options.args, state, after(points[0]))
            kept = sum(data.count(b"\n") for data in killed.records.values())
            if number % 2 == 0:
                points.append(rng.uniform(0, seconds - points[0]))
                killed = kill(["--resume", str(killed.folder)], state, after(points[1]))
            done = resume(killed, state)
            same = comparable(done.summary) == expected and done.returncode == whole.returncode
            at = ", ".join(f"{point:.2f}" for point in points)
            print(f"{number}: killed at {at} s, {kept} records kept: {'same' if same else 'OTHER'}")
            if not same:
                print(json.dumps([expected, comparable(done.summary)], indent=1))
                sys.exit(1)
    print(f"{options.count} of {options.count} ended as the one that was left alone")


if __name__ == "__main__":
    main()
