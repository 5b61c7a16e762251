# SPDX-License-Identifier: GPL-2.0-only
"""The file of pinned host keys."""

from __future__ import annotations

import threading
from pathlib import Path

import paramiko
import pytest
from hosts_helpers import make_key

from harness.errors import UsageError
from harness.hosts import pins
from harness.inventory import SshServer

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOzlRjRSnDldmHkzIaANYIBbP7dwQ8iN+FMZ9RSrYDPs"


def server(address: str, port: int = 22) -> SshServer:
    return SshServer(address=address, port=port, agent=True)


def test_a_server_is_named_by_the_way_to_it() -> None:
    assert pins.pin_name([server("lab")]) == "[lab]:22"
    assert pins.pin_name([server("gate"), server("10.0.0.5", 23)]) == "[10.0.0.5]:23@[gate]:22"
    assert pins.pin_name([server("fe80::1%eth0")]) == "[fe80::1%eth0]:22"


def test_what_is_pinned_is_read_back(tmp_path: Path) -> None:
    path, key = tmp_path / "a" / "b" / "known_hosts", make_key(tmp_path / "key")
    rsa = paramiko.RSAKey.generate(2048)
    assert pins.load(path) == {}
    pins.pin(path, "[lab]:22", key)
    pins.pin(path, "[fe80::1%eth0]:22@[gate]:22", rsa)
    assert pins.load(path) == {
        "[lab]:22": pins.text_of(key),
        "[fe80::1%eth0]:22@[gate]:22": pins.text_of(rsa),
    }
    assert pins.to_key(pins.load(path)["[fe80::1%eth0]:22@[gate]:22"]) == rsa
    pins.pin(path, "[lab]:22", rsa)
    assert pins.load(path)["[lab]:22"] == pins.text_of(rsa)


def test_many_pin_at_once_and_none_is_lost(tmp_path: Path) -> None:
    path, key = tmp_path / "known_hosts", make_key(tmp_path / "key")
    names = [f"[lab{number}]:22" for number in range(20)]
    threads = [threading.Thread(target=pins.pin, args=(path, name, key)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(pins.load(path)) == set(names)


def test_comments_are_allowed() -> None:
    assert pins.parse(f"# a comment\n\n[lab]:22 {KEY}\n", Path("x")) == {"[lab]:22": KEY}


@pytest.mark.parametrize(
    "line",
    [
        "lab",
        "lab ssh-ed25519",
        "lab ssh-ed25519 AAAA",
        f"lab {KEY} a comment",
        f"lab  {KEY}",
        f"lab {KEY[:-8]}",
        f"lab {KEY.replace('ed25519', 'rsa')}",
        "lab no-such-type AAAA",
        f"@revoked lab {KEY}",
        f"|1|hash= {KEY}",
        f"* {KEY}",
        f"lab,other {KEY}",
        f"!lab {KEY}",
    ],
)
def test_what_is_no_pin_is_refused_with_its_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"known_hosts:2: not a name, a key type and a key"):
        pins.parse(f"[lab]:22 {KEY}\n{line}\n", Path("known_hosts"))


def test_a_name_that_is_pinned_twice() -> None:
    with pytest.raises(UsageError, match=r"known_hosts:2: lab is pinned twice"):
        pins.parse(f"lab {KEY}\nlab {KEY}\n", Path("known_hosts"))


def test_what_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(b"lab \xff\n")
    with pytest.raises(UsageError, match="not ASCII"):
        pins.load(path)
