# SPDX-License-Identifier: GPL-2.0-only
"""bubblewrap around whatever runs code or text that came from elsewhere.

Inside there is /usr, what a compiler needs of /etc, a private /tmp, and the folders that the
caller binds; no network, no home folder, no other process, no inherited environment. All of it
ends with the program that was started, and that ends with the harness.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen, TimeoutExpired

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError

SOURCE = Path("/src")
BUILD = Path("/build")

# Debian's compilers and awk are reached through /etc/alternatives.
_ETC = ("/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d")
_ROOT = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_ENV = {
    "PATH": PATH,
    "HOME": "/tmp",
    "TMPDIR": "/tmp",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_NO_NAMESPACES = (
    "creating new namespace",
    "No permissions to create",
    "setting up uid map",
    "Creating new namespace failed",
    "Failed to make / slave",
    "Can't mount proc",
    "loopback: Failed",
)


@dataclass(frozen=True)
class Sandbox:
    """What a sandboxed program sees beside /usr: host path -> path inside, and variables."""

    read_only: Mapping[Path, Path] = field(default_factory=dict)
    writable: Mapping[Path, Path] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    directory: Path = Path("/tmp")

    def argv(self, command: Sequence[str]) -> list[str]:
        """The bwrap command line that runs `command` inside, for proc.spawn().

        Without --new-session: spawn() makes one, and its group is what ends with the harness.
        """
        args = [*proc.watched(), "bwrap"]
        args += ["--unshare-user", "--unshare-all", "--disable-userns", "--cap-drop", "ALL"]
        args += ["--die-with-parent", "--clearenv", "--hostname", "kvm-harness"]
        args += ["--ro-bind", "/usr", "/usr"]
        for path in map(Path, _ROOT):
            if path.is_symlink():
                args += ["--symlink", str(path.readlink()), str(path)]
            elif path.is_dir():
                args += ["--ro-bind", str(path), str(path)]
        for name in _ETC:
            args += ["--ro-bind-try", name, name]
        args += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        for outside, inside in self.read_only.items():
            args += ["--ro-bind", str(outside), str(inside)]
        for outside, inside in self.writable.items():
            args += ["--bind", str(outside), str(inside)]
        for name, value in {**_ENV, **self.environment}.items():
            args += ["--setenv", name, value]
        args += ["--remount-ro", "/"]
        return [*args, "--chdir", str(self.directory), "--", *command]


def run(
    sandbox: Sandbox, command: Sequence[str], *, deadline: Deadline, what: str, stdin: bytes = b""
) -> proc.Completed:
    """Run a command inside to its end and collect its output, whatever its exit code.

    InfraError if the sandbox itself cannot be made, DeadlineExceeded when time runs out.
    """
    done = proc.run(sandbox.argv(command), deadline=deadline, what=what, stdin=stdin, check=False)
    _refuse_if_unmade(done.returncode, done.stderr)
    return done


def stream(
    sandbox: Sandbox,
    command: Sequence[str],
    on_line: Callable[[bytes], None],
    *,
    deadline: Deadline,
    what: str,
) -> int:
    """Run a command inside, hand each line of its output and errors on, return its exit code.

    Whatever ends this call, nothing of the sandbox runs afterwards.
    """
    process = proc.spawn(sandbox.argv(command), stdout=PIPE, stderr=STDOUT)
    first: list[bytes] = []

    def keep_first(line: bytes) -> None:
        if not first:
            first.append(line)
        on_line(line)

    try:
        _pump(process, keep_first, deadline, what)
        returncode = _wait(process, deadline, what)
    finally:
        proc.end(process)
        _drain(process)
    _refuse_if_unmade(returncode, b"".join(first).decode(errors="replace"))
    return returncode


def python_prefixes(prefixes: Sequence[str] = (sys.prefix, sys.base_prefix)) -> dict[Path, Path]:
    """The folders of this Python and its packages, to bind read-only at their own paths.

    InfraError if one of them holds the home folder, since binding it would show that.
    """
    home = Path.home().resolve()
    binds = {}
    for prefix in dict.fromkeys(Path(p) for p in prefixes):
        resolved = prefix.resolve()
        if resolved.is_relative_to("/usr"):
            continue
        if home.is_relative_to(resolved):
            raise InfraError(
                f"Python's prefix {prefix} holds the home folder {home}, which a kernel build "
                "must not see; install kvm-harness into a virtual environment"
            )
        binds[resolved] = prefix
    return binds


def _pump(
    process: Popen[bytes], on_line: Callable[[bytes], None], deadline: Deadline, what: str
) -> None:
    """Hand on the lines of a program's output until it closes it."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    os.set_blocking(fd, False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            deadline.check(what)
            if not selector.select(min(1.0, deadline.remaining())):
                continue
            chunk = os.read(fd, 1 << 16)
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(line + b"\n")
    if rest:
        on_line(rest)


def _wait(process: Popen[bytes], deadline: Deadline, what: str) -> int:
    try:
        return process.wait(deadline.remaining())
    except TimeoutExpired:
        raise deadline.exceeded(what) from None


def _drain(process: Popen[bytes]) -> None:
    """Wait until the last process inside has closed the pipe, so that none writes any more."""
    assert process.stdout is not None
    with contextlib.closing(process.stdout), selectors.DefaultSelector() as selector:
        fd = process.stdout.fileno()
        os.set_blocking(fd, False)
        selector.register(fd, selectors.EVENT_READ)
        while selector.select(5.0) and os.read(fd, 1 << 16):
            pass


def _refuse_if_unmade(returncode: int, output: str) -> None:
    """InfraError if bwrap ended before it ran anything: then its complaint is the first line.

    Only the first, lest a build that prints such a line passes for a broken machine.
    """
    if returncode == 0 or not output.startswith("bwrap: "):
        return
    message = output.splitlines()[0]
    hint = ""
    if any(text in message for text in _NO_NAMESPACES):
        hint = (
            "; this machine or container does not let bubblewrap make namespaces (see "
            "kernel.unprivileged_userns_clone, AppArmor, or the container's seccomp profile)"
        )
    raise InfraError(f"no sandbox, and nothing is built without one: {message}{hint}")
