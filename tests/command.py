# SPDX-License-Identifier: GPL-2.0-only
"""Run the real command, in a process of its own as a user would, or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import cli
from harness.paths import PROJECT

RUN_SECONDS = 3600
# A shell that starts a program in the background has it ignore SIGINT, and nohup SIGHUP, with all
# that it starts: what a test interrupts must not depend on how the tests were started.
INTERRUPTIBLE = ("env", "--default-signal=INT,HUP")


@dataclass(frozen=True)
class Ended:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str

    @property
    def folder(self) -> Path:
        """The run folder: the last line of the output."""
        return Path(self.stdout.rstrip().splitlines()[-1])

    @property
    def summary(self) -> dict[str, Any]:
        value = json.loads((self.folder / "summary.json").read_text())
        assert isinstance(value, dict)
        return value

    def outcome(self, cell: str, check: str) -> str:
        return str(self.check(cell, check)["outcome"])

    def check(self, cell: str, check: str) -> dict[str, Any]:
        for one in self.summary["checks"]:
            if one["cell"] == cell and one["name"] == check:
                assert isinstance(one, dict)
                return one
        raise AssertionError(f"no check {check} in {cell}:\n{self.stdout}")


def argv(*args: str) -> list[str]:
    return [*INTERRUPTIBLE, sys.executable, "-m", "harness", *args]


def environment(state: Path, **extra: str) -> dict[str, str]:
    """The user's environment, but with run folders under `state`."""
    return {**os.environ, "XDG_STATE_HOME": str(state), "PYTHONPATH": str(PROJECT), **extra}


def more_cpus(folder: Path, count: int) -> Path:
    """An inventory, in that folder, whose host n1 has so many CPUs."""
    stock = yaml.safe_load((PROJECT / "inventory.yaml").read_text())
    stock["hosts"]["n1"]["cpus"] = count
    path = folder / "inventory.yaml"
    path.write_text(yaml.safe_dump(stock))
    return path


def kvm_harness(args: Sequence[str], state: Path, quiet: bool = False, **extra: str) -> Ended:
    """`kvm-harness ARGS` to its end; what it printed is shown when the test fails, unless quiet."""
    return run(argv(*args), state, quiet, **extra)


def run(command: Sequence[str], state: Path, quiet: bool = False, **extra: str) -> Ended:
    """The same of any program that ends as kvm-harness does."""
    done = subprocess.run(
        command,
        env=environment(state, **extra),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )
    if not quiet:
        print(done.stdout, done.stderr)
    return Ended(done.returncode, done.stdout, done.stderr)


def in_process(args: Sequence[str], capsys: pytest.CaptureFixture[str]) -> Ended:
    """`kvm-harness ARGS` in this process, with its environment: it starts in no time."""
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    said = capsys.readouterr()
    print(said.out, said.err)
    return Ended(int(ended.value.code or 0), said.out, said.err)
