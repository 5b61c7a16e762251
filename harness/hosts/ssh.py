# SPDX-License-Identifier: GPL-2.0-only
"""A Shell over SSH, by fabric and paramiko.

One connection serves a host. Commands go to one persistent `sh` on one channel: a command costs
one round trip instead of a channel and a process (2.6 ms against 21 ms on the emulated host).
No call waits without a deadline, and every wait asks `alive` several times a second, so a panic
ends it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import paramiko
from fabric import Config, Connection

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.hosts.protocols import Result

POLL = 0.2
COMMAND_SECONDS = 30.0
PUT_SECONDS = 300.0
MAX_OUTPUT = 64 << 20
# How much of a host's words goes into an error message, in characters.
MAX_WORDS = 1000
KEEPALIVE_SECONDS = 5


@dataclass(frozen=True)
class SshAddress:
    """Where a host answers and which keys prove it and us."""

    host: str
    port: int
    user: str
    host_key: str
    """The one accepted host key, "TYPE BASE64" as in known_hosts(5)."""
    login_key: Path


def _nothing() -> None:
    """Used where a host has no console to tell of its death."""


@contextlib.contextmanager
def _guarded(
    close: Callable[[], None], deadline: Deadline, alive: Callable[[], None]
) -> Iterator[None]:
    """Call `close` once time is up or `alive` raises, from a thread beside the caller's.

    For the calls of paramiko that know no time limit: closing what they wait on ends them.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(min(POLL, deadline.remaining())):
            with contextlib.suppress(InfraError):
                alive()
                if not deadline.expired():
                    continue
            close()
            return

    watcher = threading.Thread(target=watch, name="ssh-guard", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def connect(address: SshAddress, deadline: Deadline, alive: Callable[[], None]) -> Connection:
    """Log in, trying again until the deadline while the server is not up yet.

    A host key other than the pinned one is an InfraError at once and is never retried.
    """
    while True:
        alive()
        try:
            return _connect_once(address, deadline, alive)
        except paramiko.BadHostKeyException as exc:
            raise InfraError(
                f"{address.host}:{address.port} shows the host key {_name(exc.key)}; "
                f"pinned is {_name(exc.expected_key)}"
            ) from exc
        except paramiko.AuthenticationException as exc:
            alive()
            raise InfraError(
                f"{address.user}@{address.host}:{address.port} refused the key "
                f"{address.login_key}: {exc}"
            ) from exc
        except (OSError, EOFError, paramiko.SSHException) as exc:
            if deadline.expired():
                raise DeadlineExceeded(
                    f"no SSH login to {address.host}:{address.port} "
                    f"within {deadline.budget:.0f} s: {exc}"
                ) from exc
            time.sleep(0.05)


def _name(key: paramiko.PKey) -> str:
    return f"{key.get_name()} {key.get_base64()}"


def _connect_once(address: SshAddress, deadline: Deadline, alive: Callable[[], None]) -> Connection:
    # An empty configuration: neither ~/.ssh/config nor an agent may change what is tested.
    config = Config(overrides={"load_ssh_configs": False})
    seconds = max(1.0, min(10.0, deadline.remaining()))
    connection = Connection(
        address.host,
        user=address.user,
        port=address.port,
        config=config,
        connect_timeout=seconds,
        connect_kwargs={
            "key_filename": str(address.login_key),
            "look_for_keys": False,
            "allow_agent": False,
            "banner_timeout": seconds,
            "auth_timeout": seconds,
        },
    )
    client = connection.client
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    entry = paramiko.hostkeys.HostKeyEntry.from_line(
        f"[{address.host}]:{address.port} {address.host_key}"
        if address.port != 22
        else f"{address.host} {address.host_key}"
    )
    if entry is None or entry.key is None:
        raise InfraError(f"not a host key: {address.host_key!r}")
    for name in entry.hostnames:
        client.get_host_keys().add(name, entry.key.get_name(), entry.key)
    try:
        with _guarded(client.close, deadline, alive):
            connection.open()
    except BaseException as exc:
        lost = client.get_transport() is None or not client.get_transport().is_active()
        client.close()
        if lost and isinstance(exc, paramiko.AuthenticationException):
            # paramiko says so too when the connection breaks before the server has answered.
            raise EOFError("the connection ended during the login") from exc
        raise
    transport = connection.transport
    # paramiko leaves Nagle's algorithm on; each command would wait for a delayed ACK.
    transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport.set_keepalive(KEEPALIVE_SECONDS)
    return connection


class SshShell:
    """The Shell protocol over one SSH connection.

    `alive` raises HostDied once the host's console shows that it is dead. `slowdown` is a factor of
    the deadline of what is asked without one of its own.
    """

    def __init__(
        self,
        connection: Connection,
        alive: Callable[[], None] = _nothing,
        slowdown: float = 1.0,
    ) -> None:
        self._connection = connection
        self._alive = alive
        self._slowdown = slowdown
        self._sequence = itertools.count(1)
        self._channel: paramiko.Channel | None = None

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        """See Shell.run."""
        deadline = deadline or Deadline(COMMAND_SECONDS * self._slowdown)
        stdout, stderr, status = self._exchange(command, deadline)
        result = Result(command, status, stdout, stderr)
        if check and status != 0:
            raise InfraError(f"on the host, `{_short(command)}` exited {status}: {_last(stderr)}")
        return result

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        """See Shell.read."""
        return self.run(f"cat -- {shlex.quote(path)}", deadline).stdout

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        """See Shell.write."""
        self.run(f"printf %s {shlex.quote(text)} > {shlex.quote(path)}", deadline)

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """See Shell.put."""
        self._alive()
        deadline = Deadline(PUT_SECONDS * self._slowdown)
        digest = hashlib.sha256(local.read_bytes()).hexdigest()
        quoted = shlex.quote(remote)
        try:
            with _guarded(self._connection.client.close, deadline, self._alive):
                self._connection.sftp().put(str(local), remote)
        except (OSError, EOFError, paramiko.SSHException, paramiko.SFTPError) as exc:
            self._alive()
            deadline.check(f"{local.name} to be copied to the host")
            raise InfraError(f"copying {local.name} to the host failed: {exc}") from exc
        found = self.run(f"chmod {mode:o} {quoted} && sha256sum {quoted}").stdout.split()
        if found[:1] != [digest]:
            raise InfraError(f"{remote} arrived damaged: SHA-256 {found[:1]}, sent {digest}")

    def start(self, argv: Sequence[str]) -> SshProcess:
        """See Shell.start."""
        return SshProcess(
            self._open(f"exec {shlex.join(argv)}", Deadline(COMMAND_SECONDS * self._slowdown)),
            argv[0],
            self._alive,
        )

    def close(self) -> None:
        """Close the connection; never raises."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._connection.close()

    def _open(self, command: str, deadline: Deadline) -> paramiko.Channel:
        """A channel of its own for a command; one that does not come in time is given up."""
        self._alive()
        channels: list[paramiko.Channel] = []
        try:
            # 0 would mean paramiko's own limit, which is an hour.
            seconds = max(0.01, deadline.remaining())
            with _guarded(lambda: _close_all(channels), deadline, self._alive):
                channel: paramiko.Channel = self._connection.transport.open_session(timeout=seconds)
                channels.append(channel)
                channel.exec_command(command)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            _close_all(channels)
            self._alive()
            deadline.check(f"the host to start `{_short(command)}`")
            raise InfraError(f"the host did not start `{_short(command)}`: {exc}") from exc
        return channel

    def _exchange(self, command: str, deadline: Deadline) -> tuple[str, str, int]:
        """Send one command to the persistent shell and read up to its end marks.

        The marks differ each time, so that the output of one command cannot pass for the end of
        another. After an error the channel is dropped: what it still holds belongs to nobody.
        """
        what = f"`{_short(command)}` on the host"
        if self._channel is None:
            self._channel = self._open("exec sh", deadline)
        mark = f"--end-{next(self._sequence)}-{id(deadline):x}--"
        # A subshell, so that neither `cd` nor `exit` of one command reaches the next.
        script = f"(\n{command}\n) </dev/null\necho '\n'{mark} $?; echo '\n'{mark} >&2\n"
        channel = self._channel
        out, err = _Stream(f"\n{mark} "), _Stream(f"\n{mark}\n")
        try:
            _send_all(channel, script.encode(), deadline, what, self._alive)
            _pump(channel, out, err, deadline, what, self._alive)
            while not (out.ended(tail=True) and err.ended()):
                # Also while output comes: a command may write a little now and then for ever.
                self._alive()
                deadline.check(what)
                _pump(channel, out, err, deadline, what, self._alive)
        except BaseException:
            self._channel = None
            _close_all([channel])
            raise
        text, rest = out.split()
        # What a program in the background wrote meanwhile may follow the status.
        status = rest.split("\n", 1)[0]
        if not re.fullmatch(r"[0-9]{1,3}", status, re.ASCII):
            raise InfraError(f"{what} gave {status[:80]!r} for an exit status")
        return text, err.split()[0], int(status)


def _close_all(channels: Sequence[paramiko.Channel]) -> None:
    """Close channels; one whose connection is gone must not hide what went wrong before."""
    for channel in channels:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            channel.close()


def _last(text: str) -> str:
    return text.strip()[-MAX_WORDS:]


class _Stream:
    """Output as it comes, searched for its end mark only where it is new."""

    def __init__(self, mark: str) -> None:
        self.data = bytearray()
        self._mark = mark.encode()
        self._seen = 0

    def add(self, data: bytes) -> None:
        self.data += data
        if len(self.data) > MAX_OUTPUT:
            raise InfraError(f"a command on the host wrote more than {MAX_OUTPUT >> 20} MiB")

    def ended(self, tail: bool = False) -> bool:
        at = self.data.find(self._mark, max(0, self._seen - len(self._mark)))
        self._seen = at if at >= 0 else len(self.data)
        return at >= 0 and (not tail or b"\n" in self.data[at + len(self._mark) :])

    def split(self) -> tuple[str, str]:
        body, _, rest = bytes(self.data).partition(self._mark)
        return body.decode(errors="replace"), rest.decode(errors="replace").strip()


def _send_all(
    channel: paramiko.Channel, data: bytes, deadline: Deadline, what: str, alive: Callable[[], None]
) -> None:
    while data:
        channel.settimeout(min(POLL, max(0.01, deadline.remaining())))
        try:
            sent = channel.send(data)
        except TimeoutError:
            alive()
            deadline.check(what)
            continue
        except OSError as exc:
            alive()
            raise InfraError(f"the connection broke before {what}: {exc}") from exc
        data = data[sent:]
        if data:
            alive()
            deadline.check(what)


def _pump(
    channel: paramiko.Channel,
    out: _Stream,
    err: _Stream,
    deadline: Deadline,
    what: str,
    alive: Callable[[], None],
) -> None:
    """Take what has come on either stream; wait a little if nothing has."""
    progress = channel.recv_stderr_ready()
    if progress:
        err.add(channel.recv_stderr(1 << 16))
    channel.settimeout(0.01 if progress else min(POLL, max(0.01, deadline.remaining())))
    try:
        if not out.ended(tail=True):
            stream, data = out, channel.recv(1 << 16)
        elif not err.ended():
            stream, data = err, channel.recv_stderr(1 << 16)
        else:
            return
    except TimeoutError:
        return
    except OSError as exc:
        alive()
        raise InfraError(f"the connection broke during {what}: {exc}") from exc
    if not data:
        alive()
        while channel.recv_stderr_ready():
            err.add(channel.recv_stderr(1 << 16))
        words = _last(err.data.decode(errors="replace"))
        raise InfraError(f"the connection ended during {what}" + (f": {words}" if words else ""))
    stream.add(data)


def _short(command: str) -> str:
    line = " ".join(command.split())
    return line if len(line) <= 120 else f"{line[:117]}..."


class SshProcess:
    """The Process protocol over one SSH channel."""

    def __init__(self, channel: paramiko.Channel, name: str, alive: Callable[[], None]) -> None:
        self._channel = channel
        self._name = name
        self._alive = alive
        self._buffer = bytearray()
        self._errors = bytearray()

    def send(self, line: str) -> None:
        """See Process.send."""
        what = f"{self._name} to take a line"
        _send_all(self._channel, f"{line}\n".encode(), Deadline(COMMAND_SECONDS), what, self._alive)

    def receive(self, deadline: Deadline) -> str:
        """See Process.receive."""
        searched, waited = 0, False
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            self._take_errors()
            if waited:
                self._alive()
                deadline.check(f"a line from {self._name}")
            waited = True
            if searched > MAX_OUTPUT:
                raise InfraError(f"{self._name} wrote a line of more than {MAX_OUTPUT >> 20} MiB")
            self._channel.settimeout(min(POLL, max(0.01, deadline.remaining())))
            try:
                data = self._channel.recv(1 << 16)
            except TimeoutError:
                continue
            if not data:
                self._alive()
                raise EOFError(f"{self._name} ended: {_last(self.stderr())}")
            self._buffer += data
        line = bytes(self._buffer[:end]).decode(errors="replace")
        del self._buffer[: end + 1]
        return line

    def stderr(self) -> str:
        """See Process.stderr."""
        self._take_errors()
        return self._errors.decode(errors="replace")

    def _take_errors(self) -> None:
        """Both streams share one window: what is left unread here would stop the other."""
        while self._channel.recv_stderr_ready() and len(self._errors) < MAX_OUTPUT:
            self._errors += self._channel.recv_stderr(1 << 16)

    def wait(self, deadline: Deadline) -> int:
        """See Process.wait. The server tells the status once it has reaped the program."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()
        while not self._channel.status_event.wait(min(POLL, max(0.01, deadline.remaining()))):
            self._alive()
            deadline.check(f"{self._name} to end")
        return self._channel.exit_status

    def close(self) -> None:
        """See Process.close."""
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._channel.shutdown_write()
            self._channel.close()
