# SPDX-License-Identifier: GPL-2.0-only
"""A Shell over SSH, by fabric and paramiko.

One connection serves a host. Commands go to one persistent `sh` on one channel: a command costs
one round trip instead of a channel and a process (2.6 ms against 21 ms on the emulated host).
No call waits without a deadline, and every wait asks `alive` several times a second, so a panic
ends it at once. Files go through a channel too and not by SFTP, whose server knows no sudo.
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
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

import paramiko
from fabric import Config, Connection

from harness.deadline import Deadline
from harness.errors import DeadlineExceeded, InfraError
from harness.hosts.protocols import Result

POLL = 0.2
CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 30.0
PUT_SECONDS = 300.0
# For a few bytes that end something.
HANG_UP_SECONDS = 2.0
# How much of a file is read at once.
PIECE = 1 << 17
# Takes a file from its input: $1 is its place, $2 its SHA-256, $3 its mode. What stands in that
# place is whole: this one, or the one from before.
RECEIVE = """\
set -e; part=$1.part
trap 'rm -f "$part"' EXIT; trap 'exit 1' HUP PIPE TERM
cat > "$part"
sum=$(sha256sum < "$part"); sum=${sum%% *}
[ "$sum" = "$2" ] || { rm -f "$part"; echo "$sum"; exit 99; }
chmod "$3" "$part"; mv -f "$part" "$1"
"""
DAMAGED = 99
MAX_OUTPUT = 64 << 20
# How much of a host's words goes into an error message, in characters.
MAX_WORDS = 1000
KEEPALIVE_SECONDS = 5
# A peer that acknowledges nothing for so long, or takes nothing, is gone. No less than a host that
# is only slow is given for a command.
LOST_SECONDS = 300
# What paramiko says, in no class of its own, where there is nothing to log in with.
NO_KEYS = "No authentication methods available"

T = TypeVar("T")


class HostKeyChanged(InfraError):
    """An SSH server shows another host key than the pinned one."""


class NoLogin(DeadlineExceeded):
    """An SSH server let nobody in, in time."""

    def __init__(self, message: str, address: SshAddress, *, refused: bool) -> None:
        super().__init__(message)
        self.host, self.port = address.host, address.port
        self.refused = refused
        """Whether any attempt was answered with a refusal: a machine that hangs gives none."""


class _Gone(InfraError):
    """What should take data has ended, or the connection to it."""


@dataclass(frozen=True)
class SshAddress:
    """Where a host answers and which keys prove it and us."""

    host: str
    port: int
    user: str
    host_key: str
    """The one accepted host key, "TYPE BASE64" as in known_hosts(5)."""
    login_key: Path | None
    """None is for the keys of the user's ssh-agent."""


def nothing() -> None:
    """Used where a host has no console to tell of its death."""


def _bounded(
    call: Callable[[], T],
    give_up: Callable[[], None],
    deadline: Deadline,
    alive: Callable[[], None],
) -> T:
    """What `call` returns; TimeoutError once time is up, or what `alive` raises.

    For the calls of paramiko that know no time limit, or do not keep to it: a name is looked up, an
    agent is asked, a socket is full. They
    run in a thread beside the caller's, and `give_up` closes what they wait on, also if one that
    was given up comes to an end at last.
    """
    outcome: Future[T] = Future()
    given_up = threading.Event()

    def work() -> None:
        try:
            outcome.set_result(call())
        except BaseException as exc:
            outcome.set_exception(exc)
        if given_up.is_set():
            give_up()

    threading.Thread(target=work, name="ssh-call", daemon=True).start()
    try:
        while not wait([outcome], min(POLL, max(0.01, deadline.remaining()))).done:
            alive()
            if deadline.expired():
                raise TimeoutError("timed out")
    except BaseException:
        given_up.set()
        give_up()
        raise
    return outcome.result()


def connect(
    address: SshAddress,
    deadline: Deadline,
    alive: Callable[[], None] = nothing,
    via: Connection | None = None,
) -> Connection:
    """Log in, trying again until the deadline while the server is not up yet.

    `via` is a connection to the SSH server next to it on the way. A host key other than the pinned
    one is HostKeyChanged at once and is never retried.
    """
    refused = False
    why: Exception | None = None
    while True:
        alive()
        hurried = deadline.remaining() < CONNECT_SECONDS
        try:
            return _connect_once(address, deadline, alive, via)
        except paramiko.BadHostKeyException as exc:
            raise HostKeyChanged(
                f"{address.host}:{address.port} shows the host key {describe(exc.key)}; "
                f"pinned is {describe(exc.expected_key)}"
            ) from exc
        except paramiko.AuthenticationException as exc:
            alive()
            raise InfraError(
                f"{address.user}@{address.host}:{address.port} refused "
                f"{_credentials(address)}: {exc}"
            ) from exc
        except (OSError, EOFError, paramiko.SSHException) as exc:
            if str(exc) == NO_KEYS:
                raise InfraError(f"the ssh-agent holds no key for {address.host}") from exc
            refused = refused or "refused" in str(exc).lower()
            # That the last of many tries had no time left says less than why the others failed.
            if why is None or not (hurried and isinstance(exc, TimeoutError)):
                why = exc
            if deadline.expired():
                raise NoLogin(
                    f"no SSH login to {address.host}:{address.port} "
                    f"within {deadline.budget:.0f} s: {why}",
                    address,
                    refused=refused,
                ) from exc
            time.sleep(0.05)


def describe(key: paramiko.PKey) -> str:
    """A key as a person compares it, in the form of ssh-keygen(1) -l: "ssh-ed25519 SHA256:..."."""
    return f"{key.get_name()} {key.fingerprint}"


def _credentials(address: SshAddress) -> str:
    return f"the key {address.login_key}" if address.login_key else "every key of the agent"


def open_stream(
    host: str, port: int, deadline: Deadline, alive: Callable[[], None], via: Connection | None
) -> socket.socket | paramiko.Channel:
    """A connection to a port, from the controller or from the SSH server that `via` leads to.

    OSError, EOFError or SSHException if there is none.
    """
    seconds = max(0.01, min(CONNECT_SECONDS, deadline.remaining()))
    opened: list[socket.socket | paramiko.Channel] = []

    def call() -> socket.socket | paramiko.Channel:
        if via is None:
            opened.append(socket.create_connection((host, port), seconds))
        else:
            place = (host, port)
            channel = via.transport.open_channel("direct-tcpip", place, ("", 0), timeout=seconds)
            opened.append(channel)
        return opened[0]

    stream = _bounded(call, lambda: _close_all(opened), deadline, alive)
    if isinstance(stream, socket.socket):
        # paramiko leaves Nagle's algorithm on; each command would wait for a delayed ACK.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The keep-alive is not answered by a peer that is gone; TCP itself waits a quarter hour.
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_SECONDS * 1000)
    return stream


def _connect_once(
    address: SshAddress, deadline: Deadline, alive: Callable[[], None], via: Connection | None
) -> Connection:
    # An empty configuration: ~/.ssh/config may not change what is tested.
    config = Config(overrides={"load_ssh_configs": False})
    seconds = max(1.0, min(CONNECT_SECONDS, deadline.remaining()))
    stream = open_stream(address.host, address.port, deadline, alive, via)
    connection = Connection(
        address.host,
        user=address.user,
        port=address.port,
        config=config,
        connect_timeout=seconds,
        connect_kwargs={
            "sock": stream,
            "key_filename": [str(address.login_key)] if address.login_key else [],
            "look_for_keys": False,
            "allow_agent": address.login_key is None,
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

    def close() -> None:
        client.close()
        _close_all([stream])

    try:
        _bounded(connection.open, close, deadline, alive)
    except BaseException as exc:
        lost = client.get_transport() is None or not client.get_transport().is_active()
        close()
        if lost and isinstance(exc, paramiko.AuthenticationException):
            # paramiko says so too when the connection breaks before the server has answered.
            raise EOFError("the connection ended during the login") from exc
        raise
    connection.transport.set_keepalive(KEEPALIVE_SECONDS)
    return connection


def disconnect(connection: Connection) -> None:
    """Close a connection; never raises."""
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        connection.close()


class SshShell:
    """The Shell protocol over one SSH connection.

    `alive` raises HostDied once the host's console shows that it is dead. `slowdown` is a factor of
    the deadline of what is asked without one of its own. `sudo` is for a user who is not root.
    """

    def __init__(
        self,
        connection: Connection,
        alive: Callable[[], None] = nothing,
        slowdown: float = 1.0,
        *,
        sudo: bool = False,
    ) -> None:
        self._connection = connection
        # -n: one that asks for a password has nobody to ask.
        self._become = "sudo -n -- " if sudo else ""
        self._alive = alive
        self._slowdown = slowdown
        self._sequence = itertools.count(1)
        self._channel: paramiko.Channel | None = None

    @property
    def connected(self) -> bool:
        """Whether the connection still stands, as far as is known here."""
        return bool(self._connection.is_connected)

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
        deadline = Deadline(PUT_SECONDS * self._slowdown)
        name = f"the copy of {local.name} on the host"
        with local.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            argv = ["sh", "-c", RECEIVE, "sh", remote, digest, f"{mode:o}"]
            with contextlib.closing(self._start(argv, deadline, name)) as program:
                source.seek(0)
                program.feed(source, deadline)
                status = program.wait(deadline)
                if status == DAMAGED:
                    found = program.receive(deadline)
                    raise InfraError(f"{remote} arrived damaged: SHA-256 {found}, sent {digest}")
                if status != 0:
                    words = _last(program.stderr()) or "the connection ended"
                    raise InfraError(f"copying {local.name} to the host failed: {words}")

    def start(self, argv: Sequence[str]) -> SshProcess:
        """See Shell.start."""
        return self._start(argv, Deadline(COMMAND_SECONDS * self._slowdown), argv[0])

    def _start(self, argv: Sequence[str], deadline: Deadline, name: str) -> SshProcess:
        channel = self._open(f"exec {self._become}{shlex.join(argv)}", deadline)
        return SshProcess(channel, name, self._alive)

    def close(self) -> None:
        """Close the connection; never raises."""
        disconnect(self._connection)

    def _open(self, command: str, deadline: Deadline) -> paramiko.Channel:
        """A channel of its own for a command; one that does not come in time is given up."""
        self._alive()
        channels: list[paramiko.Channel] = []
        # 0 would mean paramiko's own limit, which is an hour.
        seconds = max(0.01, deadline.remaining())

        def call() -> paramiko.Channel:
            channel: paramiko.Channel = self._connection.transport.open_session(timeout=seconds)
            channels.append(channel)
            channel.exec_command(command)
            return channel

        try:
            return _bounded(call, lambda: _close_all(channels), deadline, self._alive)
        except (OSError, EOFError, paramiko.SSHException) as exc:
            _close_all(channels)
            self._alive()
            deadline.check(f"the host to start `{_short(command)}`")
            raise InfraError(f"the host did not start `{_short(command)}`: {exc}") from exc

    def _exchange(self, command: str, deadline: Deadline) -> tuple[str, str, int]:
        """Send one command to the persistent shell and read up to its end marks.

        The marks differ each time, so that the output of one command cannot pass for the end of
        another. After an error the channel is dropped: what it still holds belongs to nobody.
        """
        what = f"`{_short(command)}` on the host"
        if self._channel is None:
            self._channel = self._open(f"exec {self._become}sh", deadline)
        mark = f"--end-{next(self._sequence)}-{id(deadline):x}--"
        # A subshell, so that neither `cd` nor `exit` of one command reaches the next.
        script = f"(\n{command}\n) </dev/null\necho '\n'{mark} $?; echo '\n'{mark} >&2\n"
        channel = self._channel
        out, err = _Stream(f"\n{mark} "), _Stream(f"\n{mark}\n")
        try:
            # A shell that has ended, as sudo's does that wants a password, has said why.
            with contextlib.suppress(_Gone):
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


def _close_all(channels: Sequence[paramiko.Channel | socket.socket]) -> None:
    """Close channels; one whose connection is gone must not hide what went wrong before."""
    for channel in channels:
        if isinstance(channel, paramiko.Channel):
            _hang_up(channel, channel.close)
        else:
            with contextlib.suppress(OSError):
                channel.close()


def _hang_up(channel: paramiko.Channel, call: Callable[[], None]) -> None:
    """End a channel, or its input, by `call`. It never raises.

    The peer is told of it: one that takes no data any more loses its connection instead.
    """
    with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
        _bounded(call, lambda: _cut(channel), Deadline(HANG_UP_SECONDS), nothing)


def _cut(channel: paramiko.Channel) -> None:
    """Close a channel's connection without a word to the peer.

    That ends a write to a full socket, which paramiko tries again for as long as the connection is
    open, whatever time limit its channel has. A connection by way of a jump host's is a channel of
    that one, which comes first therefore; it leads nowhere else.
    """
    transport = channel.get_transport()
    if isinstance(transport.sock, paramiko.Channel):
        _cut(transport.sock)
    transport.close()


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
    """Send all of it. One whose window stays full costs the channel, a full socket all of them."""
    given_up, ended = threading.Event(), threading.Event()

    def call() -> None:
        left = data
        channel.settimeout(POLL)
        try:
            while left and not given_up.is_set():
                with contextlib.suppress(TimeoutError):
                    left = left[channel.send(left) :]
        finally:
            ended.set()

    def give_up() -> None:
        given_up.set()
        if not ended.wait(2 * POLL):
            _cut(channel)

    try:
        _bounded(call, give_up, deadline, alive)
    except TimeoutError as exc:
        raise deadline.exceeded(what) from exc
    except (OSError, EOFError, paramiko.SSHException) as exc:
        alive()
        raise _Gone(f"the connection broke before {what}: {exc}") from exc


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

    def feed(self, source: BinaryIO, deadline: Deadline) -> None:
        """Write all of a file to its standard input, and no more after it.

        One that ends before it has read all tells why by its status and its errors.
        """
        what = f"{self._name} to take its input"
        with contextlib.suppress(_Gone):
            while piece := source.read(PIECE):
                _send_all(self._channel, piece, deadline, what, self._alive)
            _hang_up(self._channel, self._channel.shutdown_write)

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
        _hang_up(self._channel, self._channel.shutdown_write)
        while not self._channel.status_event.wait(min(POLL, max(0.01, deadline.remaining()))):
            self._alive()
            deadline.check(f"{self._name} to end")
        return self._channel.exit_status

    def close(self) -> None:
        """See Process.close."""
        _hang_up(self._channel, self._channel.shutdown_write)
        _hang_up(self._channel, self._channel.close)
