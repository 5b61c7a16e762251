# SPDX-License-Identifier: GPL-2.0-only
"""Run programs on the controller: each with a deadline, none left behind.

A program dies with the harness, even if that is killed: it gets PR_SET_PDEATHSIG by setpriv(1),
and with `contained=True` its whole tree of children lives in a PID namespace that ends with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import InfraError

DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
CONTAIN = ("bwrap", "--die-with-parent", "--unshare-pid", "--dev-bind", "/", "/", "--proc", "/proc")


@dataclass(frozen=True)
class Completed:
    """What a program left: its exit code (negative: the signal that ended it) and its output."""

    argv: tuple[str, ...]
    returncode: int
    stdout: str
    stderr: str

    def tail(self, lines: int = 20) -> str:
        """The last lines of its error output, or of its output if it wrote no errors."""
        return "\n".join((self.stderr.strip() or self.stdout.strip()).splitlines()[-lines:])


def spawn(
    argv: Sequence[str],
    *,
    contained: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | None = None,
    stderr: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that cannot outlive this thread's process.

    Call it from a thread that lives as long as the program shall: PR_SET_PDEATHSIG (prctl(2))
    follows the thread, not the process. InfraError if the program does not exist.
    """
    wrapped = [*DIE_WITH_PARENT, *(CONTAIN if contained else ()), *argv]
    try:
        return subprocess.Popen(
            wrapped,
            cwd=cwd,
            env=None if env is None else dict(env),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    except FileNotFoundError as exc:
        raise InfraError(f"{exc.filename} is missing; run `kvm-harness doctor`") from exc


def end(process: subprocess.Popen[bytes], grace: float = 2.0) -> None:
    """End a program started by spawn() and all of its session: SIGTERM, then SIGKILL."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run(
    argv: Sequence[str],
    *,
    deadline: Deadline,
    what: str,
    contained: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    check: bool = True,
) -> Completed:
    """Run a program to its end and collect its output.

    `what` names the step in errors. Raises DeadlineExceeded when time runs out, and InfraError
    with the end of its error output when `check` is set and it fails.
    """
    process = spawn(
        argv,
        contained=contained,
        cwd=cwd,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        out, err = process.communicate(stdin, timeout=deadline.remaining())
    except subprocess.TimeoutExpired:
        raise deadline.exceeded(what) from None
    finally:
        end(process)
    done = Completed(
        tuple(argv), process.returncode, out.decode(errors="replace"), err.decode(errors="replace")
    )
    if check and done.returncode != 0:
        raise InfraError(f"{what} failed ({argv[0]} exited {done.returncode}):\n{done.tail()}")
    return done
