# SPDX-License-Identifier: GPL-2.0-only
"""Build kernels on a machine of the lab, in the steps of the controller (harness/kernel/build.py).

The source is copied there, and what a series builds runs as a user that owns nothing else, without
network, other processes and capabilities: programs of util-linux see to that, as bubblewrap does
here. Files go to that user by a folder of root's, and back through a program that runs as that
user: so no link that a series makes leads root anywhere.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import gzip
import secrets
import shlex
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from harness import proc
from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import gate, userspace
from harness.hosts.at_home import at_home
from harness.hosts.health import examine
from harness.hosts.places import PROGRAMS
from harness.hosts.protocols import Process, Shell
from harness.hosts.route import CONTACT_SECONDS
from harness.inventory import SshHost
from harness.kernel import modules, toolchain
from harness.kernel.bench import FILES, MODULES, TARGETS, Bench, Order, compile_variables
from harness.observe.text import run_script, sections

# No user's: systemd's docs/UIDS-GIDS.md has 60578 to 61183 as unused, Debian's policy assigns none.
USER = 60999
REMOVE_SECONDS = 300.0
# For the load of a build to pass: its mean over a minute falls by half in 42 seconds.
LOAD_SECONDS = 600.0
# What is taken back, packed and unpacked, in bytes, and the longest text that is read.
MAX_TAKEN = 6 << 30
MAX_TEXT = 4 << 20
_LINE = 1 << 16

# Without a terminal nobody but its input tells a program that the controller is gone: when that
# ends, all that was started ends, by the PID namespace. A change of user takes the signal of
# --kill-child away, unless it is kept.
_CONFINED = f"""\
exec 3<&0
PATH=$PATH:/usr/sbin:/sbin unshare --mount --net --ipc --uts --pid --fork --kill-child \\
	--mount-proc setpriv --reuid={USER} --regid={USER} --clear-groups --no-new-privs \\
	--pdeathsig keep --bounding-set=-all --inh-caps=-all env -i PATH=/usr/local/bin:/usr/bin:/bin \\
	HOME="$3" TMPDIR="$3" LC_ALL=C.UTF-8 sh -c "$1" < /dev/null 3<&- 2>&1 & it=$!
( while read -r _; do :; done; kill -9 $it ) <&3 > /dev/null 2>&1 & watch=$!
exec 3<&-
wait $it; status=$?
kill $watch
echo "$2 $status"
"""
_REMOVE = "rm -rf {given} {folder}"
_MAKE_ROOM = """\
umask 022
rm -rf {given} {folder}
mkdir -p {given}
mkdir -m 700 {folder}
chown {user}:{user} {folder}"""
_COMPILER = """\
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C
p=PREFIX
command -v ${p}gcc > /dev/null && command -v ${p}ld > /dev/null || p=
part() { echo "NONCE $1"; }
part prefix; echo "$p"
part identity; ${p}gcc -v 2>&1; ${p}ld -v 2>&1
part defaults; ${p}gcc DEFAULTS
part cpus; nproc
part end
"""


@dataclass(frozen=True)
class Compiler:
    """What a machine compiles with."""

    prefix: str
    """Of the names of its tools, "" where these have none."""
    tools: toolchain.Toolchain
    cpus: int


def compiler(shell: Shell, deadline: Deadline) -> Compiler:
    """Ask a machine; InfraError if it has none, or says what makes no sense."""
    nonce = secrets.token_hex(16)
    script = _COMPILER.replace("PREFIX", toolchain.PREFIX).replace("NONCE", nonce)
    script = script.replace("DEFAULTS", " ".join(toolchain.DEFAULTS))
    source = "the host's answer for its compiler"
    parts = dict(sections(run_script(shell, script, deadline), nonce, source))
    if list(parts) != ["prefix", "identity", "defaults", "cpus"]:
        raise InfraError(f"{source} has other parts than were asked for")
    prefix, cpus = parts["prefix"].strip(), parts["cpus"].strip()
    if prefix not in ("", toolchain.PREFIX) or not (cpus.isascii() and cpus.isdigit()):
        raise InfraError(f"{source} makes no sense: {prefix[:80]!r}, {cpus[:80]!r} CPUs")
    tools = toolchain.Toolchain(parts["identity"], "", parts["defaults"])
    return Compiler(prefix, tools, min(max(int(cpus), 1), 1024))


@dataclass(frozen=True)
class MachineBuilder:
    """A Builder on a machine that nobody else has meanwhile: `check` raises if that has changed."""

    name: str
    shell: Shell
    check: Callable[[], None]
    found: Compiler
    place: str = PROGRAMS
    """The folder of the machine that has all of it."""

    @property
    def given(self) -> str:
        """Where files come from the controller, root's."""
        return f"{self.place}/given"

    @property
    def folder(self) -> str:
        """Where it is built, by a user who can write nowhere else."""
        return f"{self.place}/build"

    def order(self, script: str) -> None:
        """Make or remove these folders."""
        words = script.format(given=self.given, folder=self.folder, user=USER)
        run_script(self.shell, words, Deadline(REMOVE_SECONDS))

    def tools(self, deadline: Deadline) -> toolchain.Toolchain:
        """See Builder.tools."""
        return self.found.tools

    @contextlib.contextmanager
    def bench(self, order: Order) -> Iterator[Bench]:
        """See Builder.bench."""
        self.check()
        archive = order.stage / "source.tar.gz"
        pack = ("tar", "--create", f"--file={archive}", "--use-compress-program=gzip -1")
        what = "packing the source"
        proc.run(
            (*pack, "--exclude=./.git", f"--directory={order.tree}", "."),
            deadline=order.deadline,
            what=what,
        )
        made = _There(self, order)
        try:
            self.order(_MAKE_ROOM)
            made.give(archive, "source.tar.gz")
            archive.unlink()
            made.do(
                f"mkdir {made.source} {made.folder}\n"
                f"tar -xzf {self.given}/source.tar.gz -C {made.source}",
                "unpacking the source",
            )
            yield made
        finally:
            with contextlib.suppress(InfraError):
                self.check()
                self.order(_REMOVE)


@dataclass(frozen=True)
class _There:
    """A Bench on a machine."""

    builder: MachineBuilder
    order: Order

    @property
    def source(self) -> str:
        """Where the source is."""
        return f"{self.builder.folder}/src"

    @property
    def folder(self) -> str:
        """See Bench.folder."""
        return f"{self.builder.folder}/out"

    def make(self, target: str, variables: Mapping[str, str]) -> int:
        """See Bench.make."""
        found = self.builder.found
        argv = [
            *("env", *(f"{name}={value}" for name, value in variables.items())),
            *("make", f"--directory={self.source}", f"O={self.folder}", "ARCH=arm64"),
            *(f"CROSS_COMPILE={found.prefix}", "CROSS_COMPILE_COMPAT="),
            *(f"CC={found.prefix}gcc", "HOSTCC=gcc"),
            *("--no-print-directory", f"--jobs={found.cpus}", target),
        ]
        return self._run(shlex.join(argv), lambda line: self.order.on_line(f"{line}\n".encode()))

    def compile(self) -> int:
        """See Bench.compile."""
        order = self.order
        variables = compile_variables(order.digest, order.localversion, f"{self.folder}/{MODULES}")
        for target in TARGETS:
            if (status := self.make(target, variables)) != 0:
                return status
        self._take_back()
        return 0

    def put(self, name: str, text: str) -> None:
        """See Bench.put."""
        local = self.order.stage / "new"
        local.write_text(text)
        self.give(local, "new")
        given, new = f"{self.builder.given}/new", f"{self.folder}/.new"
        self.do(f"cp {given} {new} && mv -f {new} {self.folder}/{name}", f"writing {name}")

    def read(self, name: str) -> str:
        """See Bench.read."""
        lines: list[str] = []
        size = 0

        def take(line: str) -> None:
            nonlocal size
            size += len(line) + 1
            if size > MAX_TEXT:
                raise InfraError(f"{name} on the host has more than {MAX_TEXT} characters")
            lines.append(line)

        if self._run(f"cat {self.folder}/{name}", take) != 0:
            raise InfraError(f"no {name} on the host: {' '.join(lines)[:500]}")
        return "".join(f"{line}\n" for line in lines)

    def give(self, local: Path, name: str) -> None:
        """Copy a file to where the build's user can read it."""
        self.builder.check()
        self.builder.shell.put(local, f"{self.builder.given}/{name}")

    def do(self, script: str, what: str) -> None:
        """Run a script as the build's user; InfraError with its last words if it fails."""
        said: list[str] = []

        def keep(line: str) -> None:
            said[:] = [*said[-4:], line[:500]]

        if self._run(script, keep) != 0:
            raise InfraError(f"{what} failed on {self.builder.name}: {' / '.join(said)}")

    def _take_back(self) -> None:
        """Bring what is needed of the build folder into that of the controller."""
        names = [*FILES.values(), ".config", "include/config/kernel.release", MODULES]
        packed = self.order.stage / "built.tar.gz"
        pack = f"tar -czf - -C {self.folder} {shlex.join(names)} | base64 -w {_LINE - 4}"
        with packed.open("wb") as out:
            if self._run(pack, lambda line: _unarmoured(line, out)) != 0:
                raise InfraError(f"packing the kernel failed on {self.builder.name}")
        unpack(packed, self.order.work)
        packed.unlink()

    def _run(self, script: str, on_line: Callable[[str], None]) -> int:
        """Run a script as the build's user, and return its exit status."""
        self.builder.check()
        mark = f"status-{secrets.token_hex(16)}"
        words = ("sh", script, mark, self.builder.folder)
        process = self.builder.shell.start(["sh", "-c", _CONFINED, *words])
        with contextlib.closing(process):
            return _status(process, mark, on_line, self.order.deadline)


def _status(process: Process, mark: str, on_line: Callable[[str], None], deadline: Deadline) -> int:
    """Hand on what a program says up to the mark, and return the number behind that."""
    while True:
        try:
            line = process.receive(deadline)
        except EOFError as exc:
            raise InfraError(f"the connection to the machine that builds ended: {exc}") from exc
        # What comes before may end without a newline.
        before, found, status = line.rpartition(f"{mark} ")
        if found and status.isascii() and status.isdigit():
            if before:
                on_line(before)
            return int(status)
        on_line(line)


def _unarmoured(line: str, out: IO[bytes]) -> None:
    """Write what a line of base64 stands for."""
    try:
        out.write(base64.b64decode(line, validate=True))
    except binascii.Error as exc:
        raise InfraError(f"the host sent no kernel, but {line[:200]!r}") from exc
    if out.tell() > MAX_TAKEN:
        raise InfraError(f"the host sent more than {MAX_TAKEN >> 30} GiB for a kernel")


def unpack(packed: Path, folder: Path) -> None:
    """Unpack what a machine sent: plain files and folders below `folder`, within bounds.

    InfraError for anything else. Links among the modules are left out, as the controller does
    with those that lead to its own folders (build, source).
    """
    size = count = 0
    try:
        with gzip.open(packed) as raw, tarfile.open(fileobj=raw, mode="r|") as tar:
            for member in tar:
                if member.issym():
                    continue
                if not (member.isreg() or member.isdir()):
                    raise InfraError(f"{member.name!r} is neither a file nor a folder")
                size, count = size + member.size, count + 1
                if size > MAX_TAKEN or count > modules.MAX_FILES:
                    raise InfraError("too large a kernel, or too many files")
                tar.extract(member, folder, filter="data")
            # To the end, where the checksum is.
            while raw.read(1 << 20):
                if raw.tell() > 2 * MAX_TAKEN:
                    raise InfraError("too much after the kernel")
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise InfraError(f"what the host sent for a kernel cannot be unpacked: {exc}") from exc


@contextlib.contextmanager
def builder_on(
    name: str, host: SshHost, run: str, wait: float, say: Callable[[str], None]
) -> Iterator[MachineBuilder]:
    """A builder on a machine that is well and at home, under a lease of `run`.

    Errors as kexec.boot() has them before its jump.
    """
    with at_home(name, host, run, wait, say) as (machine, ours, _):
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            ours.check()
            userspace.clear(shell)
            gate.admit(name, shell)
        # For hours: a shell without the deadline of the one before.
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            found = compiler(shell, Deadline(CONTACT_SECONDS))
            yield MachineBuilder(name, shell, ours.check, found)
        with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
            # Else the first cell would be refused for a load that is our own.
            gate.settled(shell, examine(shell), LOAD_SECONDS)
