# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin that writes the table of docs/faults.md from what the tests of faults have seen.

With $FAULTS_TABLE, and only if all faults were tried and all went as they should: a table that
mixes two invocations would say what neither has seen. Tests may have run in several processes.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from faults import FAULTS
from faults.fault import STAGES, Fault

from harness.hosts import qemu
from harness.paths import PROJECT

HEAD = Path(__file__).with_name("data") / "faults-head.md"
COLUMNS = ("stage", "fault", "verdict", "the reason says", "death", "home by", "then", "s")
_ORDERED = re.compile(r"^ *[\d.]+ (.*) ordered$", re.M)


def row(fault: Fault, diary: str, seconds: float) -> dict[str, str]:
    """What stands in the table of a fault; `diary` is the cell's, or says where the machine is."""
    return {
        "stage": fault.stage,
        "fault": fault.name,
        "verdict": fault.verdict,
        "the reason says": f"`{fault.words}`".replace("|", r"\|") if fault.words else "",
        "death": fault.death or "",
        "home by": "-" if diary == "same boot" else _home_by(fault, diary),
        "then": _then(fault),
        "s": f"{seconds:.0f}",
    }


def _home_by(fault: Fault, diary: str) -> str:
    if not fault.home:
        return "hand" if fault.aside else "the next run"
    ways = [way for way in _ORDERED.findall(diary) if way != "kexec"]
    return ", ".join(ways) or "itself"


def _then(fault: Fault) -> str:
    if fault.aside:
        return "set aside"
    if fault.verdict == "killed":
        return "resumed" if fault.resume else "the next run passed"
    return {"free": "", "another's": "lease is another's"}.get(fault.lease, f"lease {fault.lease}")


def table(rows: list[dict[str, str]], head: str, commit: str, conditions: str) -> str:
    """The whole file, in the order of the stages and of the cases."""
    order = {(one.stage, one.name): at for at, one in enumerate(FAULTS)}
    rows = sorted(rows, key=lambda one: order[one["stage"], one["fault"]])
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    lines += [f"| {' | '.join(one[name] for name in COLUMNS)} |" for one in rows]
    counts = ", ".join(f"{sum(one['stage'] == s for one in rows)} {s}" for s in STAGES)
    said = {"COMMIT": f"`{commit}`", "CONDITIONS": conditions, "CASES": f"{len(rows)} ({counts})"}
    for name, words in said.items():
        head = head.replace(name, words)
    return head + "".join(f"{line}\n" for line in lines)


def commit() -> str:
    """That of the harness, with "-dirty" for one that is none."""
    argv = ["git", "describe", "--always", "--abbrev=12", "--dirty"]
    done = subprocess.run(argv, cwd=PROJECT, capture_output=True, text=True, timeout=30)
    return done.stdout.strip() or "unknown"


class Rows:
    """Collects rows from reports, which come from all processes."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._rows: list[dict[str, str]] = []
        # Before the file is written that is a part of it.
        self._commit = commit()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            seen: list[tuple[str, Any]] = report.user_properties
            self._rows += [value for name, value in seen if name == "fault"]

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK and len(self._rows) == len(FAULTS):
            system = f"QEMU {qemu.check_qemu()}, {platform.machine()}, {os.cpu_count()} CPUs"
            text = table(self._rows, HEAD.read_text(), self._commit, system)
            self._target.write_text(text)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        missing = len(FAULTS) - len(self._rows)
        if missing:
            terminalreporter.write_line(f"{self._target} stays as it is: {missing} not seen")


def pytest_configure(config: pytest.Config) -> None:
    """In the process that all reports come to."""
    if (target := os.environ.get("FAULTS_TABLE")) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Rows(Path(target)), "fault-rows")
