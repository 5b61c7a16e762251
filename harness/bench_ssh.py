# SPDX-License-Identifier: GPL-2.0-only
"""What the harness's way to a host costs beside OpenSSH's client, and what share of a run that is.

Both talk to one OpenSSH server on loopback, in turns. It is Debian's, unpacked and not installed:
an installed one would be a service on the user's machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import packages
from harness.hosts.ssh import SshAddress, SshShell, connect
from harness.kernel import cache
from harness.options import Options
from harness.progress import Progress
from harness.run import Run

COMMANDS, CONNECTIONS, TRANSFERS = 200, 20, 5
SIZE = 50_000_000
SECONDS = 120.0
# An unprivileged user of a namespace of its own: sshd separates no privileges then, and needs
# neither an account for that nor a folder in /run.
USER, ID = "bench", 1000
CLIENTS = ("ssh", "scp", "sftp")
# Whose commands and files are counted: one cell of each kernel.
EXAMPLE = Options(hosts=("n1",), kvm_modes=("vhe",), pytest_args=("-m", "quick"))
_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/login_key.pub
PidFile none
StrictModes no
Subsystem sftp {tree}/usr/lib/openssh/sftp-server
"""


@dataclass(frozen=True)
class Measured:
    """Medians, in seconds."""

    command: float
    """A command and its answer over a connection that stands."""
    put: float
    """A file of SIZE bytes, and its SHA-256 compared."""
    shared: float
    """The same command by `ssh` over a connection that stands (ControlMaster)."""
    alone: float
    """By `ssh` with a connection of its own."""
    scp: float
    sftp: float


@dataclass(frozen=True)
class Work:
    """What the cells of a run asked of their hosts."""

    cells: int
    seconds: float
    """All cells' time."""
    exchanges: int
    """Commands, files that were read or written, and lines given to programs."""
    sent: int
    """Bytes of kernels and programs: what a machine of the lab is sent."""


def bench(console: Console) -> None:
    """Measure and print; a minute or two, and 60 MB of packages the first time."""
    progress = Progress(console)
    work = work_of(Run(EXAMPLE, progress))
    with progress.stage("OpenSSH's server"):
        tree = server_files(Deadline(900))
    # Not in the cache: its path may be too long for a socket's.
    with (
        progress.stage("SSH on loopback, beside OpenSSH's client"),
        tempfile.TemporaryDirectory(prefix="kvm-harness-") as folder,
    ):
        found = measure(Path(folder), tree)
    for line in describe(found, work):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def work_of(run: Run) -> Work:
    """Run it, and count."""
    summary = run.execute(show=False)
    sent = exchanges = 0
    for spec in run.specs:
        files = (spec.kernel.image, *spec.programs.values())
        sent += sum(path.stat().st_size for path in files)
        exchanges += exchanges_of((spec.folder / "commands.jsonl").read_text())
    return Work(len(summary.cells), sum(c.seconds for c in summary.cells), exchanges, sent)


def exchanges_of(journal: str) -> int:
    """How often a host was asked something, by a cell's commands.jsonl."""
    lines = [json.loads(line) for line in journal.splitlines()]
    return sum(any(word in line for word in ("run", "read", "write", "send")) for line in lines)


def describe(found: Measured, work: Work) -> list[str]:
    """The figures in words."""
    rate = SIZE / found.put
    commands = work.exchanges * found.command / work.seconds
    files = work.sent / rate / work.seconds
    return [
        "",
        f"a command over a connection that stands: {1000 * found.command:.1f} ms, with OpenSSH's "
        f"client {1000 * found.shared:.1f} ms: ratio {found.command / found.shared:.2f}",
        f"  (a connection of its own for it, with OpenSSH's client: {1000 * found.alone:.0f} ms)",
        f"{SIZE / 1e6:.0f} MB and their SHA-256: {found.put:.2f} s; scp {found.scp:.2f} s, ratio "
        f"{found.put / found.scp:.2f}; sftp {found.sftp:.2f} s, ratio {found.put / found.sftp:.2f}",
        f"share of a run ({work.cells} cells, {work.seconds:.0f} s): {work.exchanges} exchanges "
        f"are {100 * commands:.2f} %, {work.sent / 1e6:.0f} MB of kernels and programs "
        f"{100 * files:.2f} %, at these times",
    ]


# ---- the server ---------------------------------------------------------------------------------


def server_files(deadline: Deadline) -> Path:
    """A folder with sshd and the libraries that it needs, unpacked unless cached."""
    entry = cache.get_or_make(
        "images",
        f"sshd-{packages.suite()}",
        lambda folder: _unpack(folder, deadline),
        deadline=deadline,
        what="OpenSSH's server",
        need=512 << 20,
    )
    return entry.path


def _unpack(folder: Path, deadline: Deadline) -> None:
    """Nothing of the packages is run. What is no part of sshd goes again."""
    whole = folder / "whole"
    packages.extract(("openssh-server",), whole, deadline, "unpacking OpenSSH's server")
    for path in ("usr/sbin/sshd", "usr/lib/openssh"):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(whole / path, target)
    libraries = folder / "lib"
    libraries.mkdir()
    for library in (*whole.glob("lib/*-linux-*/*.so*"), *whole.glob("usr/lib/*-linux-*/*.so*")):
        if library.is_file():
            shutil.copy(library, libraries)
    shutil.rmtree(whole)


@contextlib.contextmanager
def serving(folder: Path, tree: Path) -> Iterator[SshAddress]:
    """OpenSSH's server at a port of loopback, until the end of the block."""
    host_key = _key(folder / "host_key")
    _key(folder / "login_key")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config, passwd, log = (folder / name for name in ("config", "passwd", "sshd.log"))
    config.write_text(_CONFIG.format(port=port, folder=folder, tree=tree))
    passwd.write_text(f"{USER}:x:{ID}:{ID}::{folder}:/bin/sh\n")
    argv = ["bwrap", "--die-with-parent", "--unshare-user", "--uid", str(ID), "--gid", str(ID)]
    argv += ["--dev-bind", "/", "/", "--ro-bind", str(passwd), "/etc/passwd"]
    argv += ["--setenv", "LD_LIBRARY_PATH", str(tree / "lib")]
    argv += [str(tree / "usr/sbin/sshd"), "-D", "-e", "-f", str(config)]
    with log.open("wb") as out:
        process = proc.spawn(argv, stdout=out, stderr=out)
    try:
        address = SshAddress("127.0.0.1", port, USER, host_key, folder / "login_key")
        try:
            connect(address, Deadline(10)).close()
        except InfraError as exc:
            raise InfraError(f"{exc}; sshd said: {log.read_text()[-500:]}") from exc
        yield address
    finally:
        proc.end(process)


def _key(path: Path) -> str:
    """A new key in a file; returns its public half, which is in a file as well."""
    key = Ed25519PrivateKey.generate()
    path.touch(mode=0o600)
    form, none = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, none))
    ssh, public = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    text = key.public_key().public_bytes(ssh, public).decode()
    path.with_name(f"{path.name}.pub").write_text(f"{text}\n")
    return text


# ---- measuring ----------------------------------------------------------------------------------


def measure(folder: Path, tree: Path) -> Measured:
    """Each in turn with what it is compared with, so that a busy machine is busy for both."""
    if missing := [name for name in CLIENTS if shutil.which(name) is None]:
        raise InfraError(f"no {' '.join(missing)} on PATH (Debian: apt-get install openssh-client)")
    source, target = folder / "source", folder / "target"
    source.write_bytes(os.urandom(SIZE))
    with serving(folder, tree) as address, contextlib.ExitStack() as stack:
        connection = connect(address, Deadline(SECONDS))
        shell = SshShell(connection)
        stack.callback(shell.close)
        options = _options(folder, address)
        place = f"{USER}@127.0.0.1"
        shared = [*options, "-o", f"ControlPath={folder}/control"]
        master = ["ssh", *shared, "-o", "ControlMaster=yes", "-N", place]
        process = proc.spawn(master)
        stack.callback(proc.end, process)
        _until(folder / "control")
        batch = folder / "batch"
        batch.write_text(f"put {source} {target}\n")
        port = ["-P", str(address.port)]

        def ours() -> None:
            shell.put(source, str(target))

        def sent(argv: Sequence[str]) -> Callable[[], None]:
            return lambda: _run(argv)

        by_us, by_ssh = in_turns(
            (lambda: _ignore(shell.run("true")), sent(["ssh", *shared, place, "true"])), COMMANDS
        )
        (alone,) = in_turns((sent(["ssh", *options, place, "true"]),), CONNECTIONS)
        ways = (
            ours,
            sent(["scp", "-q", *options[2:], *port, str(source), f"{place}:{target}"]),
            sent(["sftp", "-q", "-b", str(batch), *options[2:], *port, place]),
        )
        put, scp, sftp = in_turns(ways, TRANSFERS, check=lambda: _same(source, target))
    return Measured(by_us, put, by_ssh, alone, scp, sftp)


def in_turns(
    ways: Sequence[Callable[[], None]], times: int, check: Callable[[], None] | None = None
) -> list[float]:
    """The median of the seconds that each way takes; `check` is called after each."""
    seconds: list[list[float]] = [[] for _ in ways]
    for _ in range(times):
        for way, taken in zip(ways, seconds, strict=True):
            started = time.perf_counter()
            way()
            taken.append(time.perf_counter() - started)
            if check is not None:
                check()
    return [statistics.median(taken) for taken in seconds]


def _options(folder: Path, address: SshAddress) -> list[str]:
    """For OpenSSH's client: nothing of the user's. The port comes first; scp calls it otherwise."""
    known = folder / "known_hosts"
    known.write_text(f"[127.0.0.1]:{address.port} {address.host_key}\n")
    pairs = (
        f"UserKnownHostsFile={known}",
        f"IdentityFile={address.login_key}",
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "StrictHostKeyChecking=yes",
    )
    words = ["-p", str(address.port), "-F", "none"]
    return [*words, *(word for pair in pairs for word in ("-o", pair))]


def _run(argv: Sequence[str]) -> None:
    proc.run(argv, deadline=Deadline(SECONDS), what=argv[0])


def _ignore(_: object) -> None:
    pass


def _until(path: Path) -> None:
    deadline = Deadline(10)
    while not path.exists():
        deadline.check("a connection of OpenSSH's client")
        time.sleep(0.01)


def _same(source: Path, target: Path) -> None:
    """InfraError unless the file arrived; it is removed for the next."""
    if source.read_bytes() != target.read_bytes():
        raise InfraError(f"{target} is not {source}")
    target.unlink()
