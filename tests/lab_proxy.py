# SPDX-License-Identifier: GPL-2.0-only
"""The network between the controller and a machine of the lab: a proxy on loopback that drops."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

POLL = 0.05
PIECE = 1 << 16


def nothing() -> None:
    """Done at each new connection unless somebody wants something else."""


class Proxy:
    """Takes connections to `port` on to another port of loopback, until it is closed."""

    def __init__(self, target: int) -> None:
        self._home = target
        self.target = target
        """Where a new connection leads; another port is another machine."""
        self.connecting: Callable[[], None] = nothing
        """Is called before a new connection is taken on."""
        self.refusing = False
        """Whether new connections are ended at once."""
        self.silent = False
        """Whether nothing gets through: what is under way is held back, as TCP would."""
        self.left: int | None = None
        """Bytes that still get to the machine before all connections are cut, once."""
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self._closed = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.cut()

    def cut(self) -> None:
        """End all connections that there are."""
        with self._lock:
            ends, self._open = self._open, []
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let everything through again, to where it was."""
        self.refusing = self.silent = False
        self.target, self.left = self._home, None

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if self.refusing:
                return
            self.connecting()
            self._held_back()
            if self.refusing:
                return
            with socket.create_connection(("127.0.0.1", self.target)) as far:
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._open += [near, far]
                back = threading.Thread(target=self._copy, args=(far, near, False), daemon=True)
                back.start()
                self._copy(near, far, True)
                back.join()

    def _copy(self, source: socket.socket, sink: socket.socket, forth: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE):
                self._held_back()
                if forth and self._used_up(len(data)):
                    self.cut()
                    return
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _held_back(self) -> None:
        while self.silent and not self._closed:
            time.sleep(POLL)

    def _used_up(self, size: int) -> bool:
        with self._lock:
            if self.left is None:
                return False
            self.left -= size
            if self.left >= 0:
                return False
            self.left = None
            return True
