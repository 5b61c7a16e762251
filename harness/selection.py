# SPDX-License-Identifier: GPL-2.0-only
"""Which checks pytest will run in each cell, asked before anything is built for them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness import proc
from harness.checks.plugin import PYTEST_ARGS, check_paths
from harness.deadline import Deadline
from harness.errors import UsageError
from harness.scheduler import cell_environment

COLLECT_SECONDS = 60.0


def checks(
    pytest_args: Sequence[str] = (),
    paths: tuple[Path, ...] = (),
    *,
    selftests: bool = False,
    linux_guest: bool = False,
) -> tuple[str, ...]:
    """The names of the checks that are selected; `paths` are files of the user's own, if any,
    `selftests` adds the kernel's own, `linux_guest` those with a Linux guest.

    UsageError for none, for what pytest refuses, and for two of one name.
    """
    argv = [sys.executable, "-m", "pytest", *PYTEST_ARGS, "--collect-only"]
    done = proc.run(
        [*argv, *pytest_args, *check_paths(paths, selftests=selftests, linux_guest=linux_guest)],
        deadline=Deadline(COLLECT_SECONDS),
        what="collecting the checks",
        env=cell_environment(),
        check=False,
    )
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise UsageError(f"no check is selected by {' '.join(pytest_args)}")
    if done.returncode != pytest.ExitCode.OK:
        raise UsageError(f"pytest cannot collect the checks:\n{done.tail()}")
    names = [line.rpartition("::")[2] for line in done.stdout.splitlines() if "::" in line]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise UsageError(f"two checks have the same name: {', '.join(twice)}")
    return tuple(names)
