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
from typing import TYPE_CHECKING

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from paramiko.common import AUTH_FAILED, AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.sftp import SFTP_OK

from harness.hosts.ssh import SshAddress

if TYPE_CHECKING:
    from typing_extensions import Buffer


def make_key(path: Path) -> paramiko.Ed25519Key:
    """A new key, its private half in a file."""
    text = (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        .decode()
    )
    path.write_text(text)
    return paramiko.Ed25519Key.from_private_key(io.StringIO(text))


@dataclass
class Troubles:
    """What the server does wrong on purpose."""

    damage: bool = False
    """Flip a bit of each piece of a file that is copied to it."""
    truncate: bool = False
    """Lose the last byte of each piece."""
    stall_files: bool = False
    """Take no more of a file."""
    stall_exec: bool = False
    """Do not answer a request to run a command."""
    instead: str | None = None
    """Run this by sh, whatever was asked for."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Ends what stalls, so that no thread is left."""


class Server:
    """Accepts connections until it is closed. `address` is what a client needs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.troubles = Troubles()
        self.host_key = make_key(folder / "host_key")
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
        return SshAddress("127.0.0.1", port, "root", key, self.folder / "login_key")

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport = paramiko.Transport(sock)
            transport.add_server_key(self.host_key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files, self)
            self._transports.append(transport)
            with contextlib.suppress(EOFError, OSError, paramiko.SSHException):
                transport.start_server(server=Session(self))

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

    def run(self, channel: paramiko.Channel, command: str) -> None:
        """Serve a channel by a real shell."""
        process = subprocess.Popen(
            ["sh", "-c", self.troubles.instead or command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        )
        self.processes.append(process)
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        out, err, stdin = process.stdout, process.stderr, process.stdin

        def feed() -> None:
            with contextlib.suppress(OSError), stdin:
                while data := channel.recv(1 << 16):
                    stdin.write(data)
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
                channel.send_exit_status(process.wait() & 0xFF)
            with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
                channel.close()

        threading.Thread(target=serve, daemon=True).start()


class Session(paramiko.ServerInterface):
    def __init__(self, server: Server) -> None:
        self._server = server

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        right = username == "root" and key.asbytes() == self._server.login_key.asbytes()
        return AUTH_SUCCESSFUL if right else AUTH_FAILED

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        if self._server.troubles.stall_exec:
            self._server.troubles.go_on.wait(20)
        self._server.run(channel, command.decode())
        return True


class File(paramiko.SFTPHandle):
    def __init__(self, path: str, troubles: Troubles) -> None:
        super().__init__()
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self._troubles = troubles

    def write(self, offset: int, data: Buffer) -> int:
        piece = bytes(data)
        if self._troubles.stall_files:
            self._troubles.go_on.wait(20)
        if self._troubles.damage:
            piece = bytes([piece[0] ^ 1]) + piece[1:]
        if self._troubles.truncate:
            piece = piece[:-1]
        os.pwrite(self._fd, piece, offset)
        return SFTP_OK

    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._fd))

    def close(self) -> None:
        os.close(self._fd)


class Files(paramiko.SFTPServerInterface):
    def __init__(self, session: paramiko.ServerInterface, server: Server) -> None:
        super().__init__(session)
        self._server = server

    def open(
        self, path: str, flags: int, attr: paramiko.SFTPAttributes
    ) -> paramiko.SFTPHandle | int:
        try:
            return File(path, self._server.troubles)
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)

    def stat(self, path: str) -> paramiko.SFTPAttributes | int:
        try:
            return paramiko.SFTPAttributes.from_stat(Path(path).stat())
        except OSError as exc:
            return paramiko.SFTPServer.convert_errno(exc.errno or 0)


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says a word, as QEMU's forward to a dead guest."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listening:
        yield listening.getsockname()[1]
