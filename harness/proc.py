# SPDX-License-Identifier: GPL-2.0-only
"""Run programs on the controller: each with a deadline, none left behind.

A program dies with the harness, even if that is killed: it gets PR_SET_PDEATHSIG by setpriv(1),
and with `contained=True` its whole tree of children lives in a PID namespace that ends with it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness.deadline import Deadline
from harness.errors import InfraError

DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# If the harness was killed before setpriv was that far, the program has another parent by now.
# The shell exports PWD; a program shall get the environment that it was given and no more.
CHECK_PARENT = ("sh", "-c", '[ $PPID = "$0" ] || exit 125; unset PWD; exec "$@"')
CONTAIN = ("bwrap", "--die-with-parent", "--unshare-pid", "--dev-bind", "/", "/", "--proc", "/proc")
# A pipe that is at its end once this process is dead: it alone has the other end.
_LIFELINE, _held = os.pipe()
_ended: weakref.WeakSet[subprocess.Popen[bytes]] = weakref.WeakSet()


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


def watched() -> tuple[str, ...]:
    """What to put before bwrap, so that all of it ends when the harness does, at any moment.

    bwrap's two processes ask to die with their parents one after the other, and the inner one waits
    for the outer one before. Who dies in between leaves the inner one, to run or to wait for ever.
    So another process kills their whole group at the end of the lifeline. Leaves neither the
    lifeline nor bash's variables behind. For spawn() only, which hands the lifeline on.
    """
    script = (
        '{ cat; kill -KILL 0; } <&"$0" >/dev/null 2>&1 & eval "exec $0<&-";'
        ' exec env -u _ -u PWD -u OLDPWD -u SHLVL -- "$@"'
    )
    return ("bash", "-c", script, str(_LIFELINE))


def spawn(
    argv: Sequence[str],
    *,
    contained: bool = False,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | None = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None = None,
    stderr: int | IO[bytes] | None = None,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own that cannot outlive this thread's process.

    Call it from a thread that lives as long as the program shall: PR_SET_PDEATHSIG (prctl(2))
    follows the thread, not the process. InfraError if the program does not exist.
    """
    contain = (*watched(), *CONTAIN) if contained else ()
    wrapped = [*DIE_WITH_PARENT, *CHECK_PARENT, str(os.getpid()), *contain, *argv]
    needed = (DIE_WITH_PARENT[0], CHECK_PARENT[0], *(CONTAIN[:1] if contained else ()), argv[0])
    for program in needed:
        if shutil.which(program, path=None if env is None else env.get("PATH")) is None:
            raise InfraError(f"{program} is missing; `kvm-harness doctor` says how to get it")
    return subprocess.Popen(
        wrapped,
        cwd=cwd,
        env=None if env is None else dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        pass_fds=(_LIFELINE, *pass_fds),
    )


ENDING = (signal.SIGTERM, signal.SIGKILL)


def end(
    process: subprocess.Popen[bytes], grace: float = 2.0, signals: Sequence[int] = ENDING
) -> None:
    """End a program started by spawn() and all of its process group: SIGTERM, then SIGKILL.

    Or by other `signals`; each but the last has `grace` seconds to work. What has left the group by
    setsid(2) is reached only if the program was contained. To end one again does nothing: its
    process id may have become a stranger's by then.
    """
    if process in _ended:
        return
    for signum in signals:
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signum)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    _ended.add(process)


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
