# SPDX-License-Identifier: GPL-2.0-only
"""An SSH server on loopback that runs real shells, with the troubles that a host may make."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import (
    AUTH_FAILED,
    AUTH_SUCCESSFUL,
    OPEN_FAILED_CONNECT_FAILED,
    OPEN_SUCCEEDED,
    cMSG_CHANNEL_SUCCESS,
)

from harness.hosts.ssh import SshAddress


def make_key(path: Path, passphrase: str = "") -> paramiko.Ed25519Key:
    """A new key, its private half in a file."""
    text = (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.BestAvailableEncryption(passphrase.encode())
            if passphrase
            else serialization.NoEncryption(),
        )
        .decode()
    )
    path.write_text(text)
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text), passphrase or None)


@dataclass
class Troubles:
    """What the server does wrong on purpose."""

    damage: bool = False
    """Flip a bit of each piece of input that comes to a program."""
    truncate: bool = False
    """Lose the last byte of each piece."""
    stall_input: bool = False
    """Take no input for a program."""
    stalled: threading.Event = field(default_factory=threading.Event)
    """Set once there was input that was not taken."""
    stall_exec: bool = False
    """Do not answer a request to run a command."""
    instead: str | None = None
    """Run this by sh, whatever was asked for."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Ends what stalls, so that no thread is left."""

    def done_to(self, data: bytes) -> bytes:
        if self.stall_input:
            self.stalled.set()
            self.go_on.wait(20)
        if self.damage:
            data = bytes([data[0] ^ 1]) + data[1:]
        return data[:-1] if self.truncate else data


class Server:
    """Accepts connections until it is closed. `address` is what a client needs."""

    def __init__(self, folder: Path, user: str = "root") -> None:
        self.folder = folder
        self.user = user
        self.kept_alive = threading.Event()
        """Set once a client has asked whether the server is still there."""
        self.accepted = 0
        """How many connections came."""
        self.forwarded: list[tuple[str, int]] = []
        """Where clients went on to from here."""
        self.troubles = Troubles()
        self.host_key = make_key(folder / "host_key")
        self.more_keys: list[paramiko.PKey] = []
        self.login_key = make_key(folder / "login_key")
        self._transports: list[paramiko.Transport] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def address(self) -> SshAddress:
        key = f"{self.host_key.get_name()} {self.host_key.get_base64()}"
        port = self._socket.getsockname()[1]
        return SshAddress("127.0.0.1", port, self.user, key, self.folder / "login_key")

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self.accepted += 1
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = Transport(sock)
            for key in (self.host_key, *self.more_keys):
                transport.add_server_key(key)
            self._transports.append(transport)
            session = Session(self)
            with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
                transport.start_server(server=session)
                threading.Thread(
                    target=self._forward, args=(transport, session), daemon=True
                ).start()

    def _forward(self, transport: paramiko.Transport, session: Session) -> None:
        """Serve the channels that lead on to another port."""
        channels = []
        while transport.is_active():
            if (channel := transport.accept(0.1)) is None:
                continue
            # One that nobody holds is closed by paramiko.
            channels.append(channel)
            if channel.get_id() not in session.streams:
                continue
            stream = session.streams[channel.get_id()]
            for source, sink in ((stream, channel), (channel, stream)):
                threading.Thread(target=pump, args=(source, sink), daemon=True).start()

    def cut(self) -> None:
        """Break every connection."""
        for transport in self._transports:
            transport.sock.close()
            transport.close()
        self._transports.clear()

    def close(self) -> None:
        # shutdown(2) wakes accept(2), close(2) alone does not.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.troubles.go_on.set()
        self.cut()
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            process.wait(5)
        self._thread.join(5)

    def run(self, channel: paramiko.Channel, command: str, granted: threading.Event) -> None:
        """Serve a channel by a real shell; its end is told after the request was granted."""
        process = subprocess.Popen(
            ["sh", "-c", self.troubles.instead or command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=self.folder,
            env={"PATH": f"{self.folder}/bin:{os.environ['PATH']}", "LC_ALL": "C"},
        )
        self.processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        out, err, stdin = process.stdout, process.stderr, process.stdin

        def feed() -> None:
            with contextlib.suppress(OSError), stdin:
                while data := channel.recv(1 << 16):
                    stdin.write(self.troubles.done_to(data))
                    stdin.flush()

        def drain() -> None:
            with contextlib.suppress(OSError, ValueError):
                while data := os.read(err.fileno(), 1 << 16):
                    channel.sendall_stderr(data)

        def serve() -> None:
            errors = threading.Thread(target=drain, daemon=True)
            errors.start()
            threading.Thread(target=feed, daemon=True).start()
            with contextlib.suppress(OSError, EOFError, ValueError):
                while data := os.read(out.fileno(), 1 << 16):
                    channel.sendall(data)
                errors.join()
                granted.wait(20)
                channel.send_exit_status(process.wait() & 0xFF)
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()

        threading.Thread(target=serve, daemon=True).start()


class Transport(paramiko.Transport):
    """Tells when a request was granted: a program may have come to its end before that."""

    granted = threading.Event()

    def _send_user_message(self, data: paramiko.Message) -> None:
        super()._send_user_message(data)  # type: ignore[misc]
        if data.asbytes()[:1] == cMSG_CHANNEL_SUCCESS:
            self.granted.set()


class Session(paramiko.ServerInterface):
    def __init__(self, server: Server) -> None:
        self._server = server
        self.streams: dict[int, socket.socket] = {}
        """To where a channel leads on to, by its number."""

    def check_global_request(self, kind: str, msg: paramiko.Message) -> bool:
        if kind.startswith("keepalive@"):
            self._server.kept_alive.set()
        return False

    def check_channel_direct_tcpip_request(
        self, chanid: int, origin: tuple[str, int], destination: tuple[str, int]
    ) -> int:
        try:
            self.streams[chanid] = socket.create_connection(destination)
        except OSError:
            return OPEN_FAILED_CONNECT_FAILED
        self._server.forwarded.append(destination)
        return OPEN_SUCCEEDED

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == self._server.user and key.asbytes() == self._server.login_key.asbytes()
        return AUTH_SUCCESSFUL if right else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._server.troubles.stall_exec:
            self._server.troubles.go_on.wait(20)
        transport = channel.get_transport()
        assert isinstance(transport, Transport)
        transport.granted = threading.Event()
        self._server.run(channel, command.decode(), transport.granted)
        return True


Stream = socket.socket | paramiko.Channel


def pump(source: Stream, sink: Stream) -> None:
    with contextlib.suppress(OSError, EOFError):
        while data := source.recv(1 << 15):
            sink.sendall(data)
    for one in (source, sink):
        with contextlib.suppress(OSError, EOFError):
            one.close()


SUDO = """\
#!/bin/sh
printf '%s ' "$@" >> {folder}/sudo.log
[ -e {folder}/sudo.refuses ] && echo "sudo: a password is required" >&2 && exit 1
[ "$1" = -n ] || exit 2
shift
[ "$1" = -- ] && shift
exec "$@"
"""


def put_sudo(server: Server) -> Path:
    """A sudo on the server that writes down what it is asked; returns where."""
    program = server.folder / "bin" / "sudo"
    program.parent.mkdir()
    program.write_text(SUDO.format(folder=server.folder))
    program.chmod(0o755)
    return server.folder / "sudo.log"


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word, as QEMU's forward to a dead guest."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield listening.getsockname()[1]
