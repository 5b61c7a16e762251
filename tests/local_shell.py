# SPDX-License-Identifier: GPL-2.0-only
"""A Shell of this machine: commands run in a real sh, so that scripts for hosts can be tested."""

from __future__ import annotations

import subprocess

from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Result

SECONDS = 30.0


class LocalShell(UnaskedShell):
    """Runs commands; nothing else is asked of it."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=(deadline or Deadline(SECONDS)).remaining(),
        )
        if check and done.returncode:
            raise InfraError(f"`{command}` exited {done.returncode}: {done.stderr}")
        return Result(command, done.returncode, done.stdout, done.stderr)
