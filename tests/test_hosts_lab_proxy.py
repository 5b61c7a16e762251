# SPDX-License-Identifier: GPL-2.0-only
"""The proxy that faults of the network come from lets through what it should, and no more."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from lab_proxy import Proxy

SECONDS = 10.0


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    """Before a server that says everything again."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    end, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=echo, args=(end,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        with Proxy(server.getsockname()[1]) as made:
            yield made
        server.shutdown(socket.SHUT_RDWR)


def echo(end: socket.socket) -> None:
    with end:
        while data := end.recv(1 << 16):
            end.sendall(data)


def client(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), SECONDS)


def said_again(end: socket.socket, words: bytes) -> bytes:
    end.sendall(words)
    return end.recv(100)


def test_a_connection_goes_through_and_is_cut(proxy: Proxy) -> None:
    asked = []
    proxy.connecting = lambda: asked.append(1)
    with client(proxy) as end:
        assert said_again(end, b"one") == b"one"
        proxy.cut()
        assert end.recv(100) == b""
    with client(proxy) as end:
        assert said_again(end, b"two") == b"two"
    assert asked == [1, 1]


def test_all_are_cut_in_mid_transfer_once(proxy: Proxy) -> None:
    with client(proxy) as end, client(proxy) as other:
        assert said_again(other, b"here") == b"here"
        proxy.left = 3
        assert said_again(end, b"abc") == b"abc"
        assert said_again(end, b"d") == b""
        assert other.recv(100) == b""
    with client(proxy) as end:
        assert said_again(end, b"d") == b"d"


def test_it_refuses(proxy: Proxy) -> None:
    proxy.refusing = True
    with client(proxy) as end:
        assert end.recv(100) == b""
    proxy.heal()
    with client(proxy) as end:
        assert said_again(end, b"x") == b"x"


def test_what_is_held_back_comes_later(proxy: Proxy) -> None:
    with client(proxy) as end:
        assert said_again(end, b"x") == b"x"
        proxy.silent = True
        end.sendall(b"late")
        end.settimeout(0.1)
        with pytest.raises(TimeoutError):
            end.recv(100)
        end.settimeout(SECONDS)
        proxy.heal()
        assert end.recv(100) == b"late"
