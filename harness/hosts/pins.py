# SPDX-License-Identifier: GPL-2.0-only
"""The pinned host keys: a file of the user's state, in the format of known_hosts(5).

A server is named by the way to it, as "[ADDRESS]:PORT" or "[ADDRESS]:PORT@[JUMP]:PORT": the same
private address behind two jump hosts is two machines.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import paramiko
from paramiko.hostkeys import HostKeyEntry, InvalidHostKey

from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.inventory import SshServer
from harness.kernel.cache import locked
from harness.paths import state_home
from harness.records import write_text_atomically

LOCK_SECONDS = 20.0

_LINE = re.compile(r"(?P<name>[^\s,*?!|#@][^\s,*?!|]*) (?P<key>[a-z0-9@.-]+ [A-Za-z0-9+/]+=*)")


def pins_path() -> Path:
    """The file of this user."""
    return state_home() / "known_hosts"


def pin_name(way: Sequence[SshServer]) -> str:
    """What the last server on a way from the controller is called in the file."""
    return "@".join(f"[{server.address}]:{server.port}" for server in reversed(way))


def parse(text: str, path: Path) -> dict[str, str]:
    """Name -> "TYPE BASE64". UsageError for a line that is no pin: it must not pass for none."""
    pins: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None or not _is_key(found["key"]):
            raise UsageError(f"{path}:{number}: not a name, a key type and a key")
        if found["name"] in pins:
            raise UsageError(f"{path}:{number}: {found['name']} is pinned twice")
        pins[found["name"]] = found["key"]
    return pins


def _is_key(text: str) -> bool:
    try:
        key = to_key(text)
        # paramiko takes one that is cut short.
        return key is not None and text_of(key) == text
    except (InvalidHostKey, paramiko.SSHException, ValueError):
        return False


def to_key(pinned: str | None) -> paramiko.PKey | None:
    """The key in "TYPE BASE64"; None for none, or one of a type that is not known."""
    entry = HostKeyEntry.from_line(f"name {pinned}") if pinned is not None else None
    return entry.key if entry is not None else None


def text_of(key: paramiko.PKey) -> str:
    """A key as "TYPE BASE64"."""
    return f"{key.get_name()} {key.get_base64()}"


def load(path: Path) -> dict[str, str]:
    """What is pinned in a file, nothing if there is none."""
    try:
        return parse(path.read_text(encoding="ascii"), path)
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError as exc:
        raise UsageError(f"{path}: not ASCII text (byte {exc.start})") from None
    except OSError as exc:
        raise InfraError(f"{path}: {exc.strerror}") from exc


def pin(path: Path, name: str, key: paramiko.PKey) -> None:
    """Pin a key, in place of another one if there is one. Several may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f"{path.name}.lock"), Deadline(LOCK_SECONDS), "pinned host keys"):
        pins = load(path) | {name: text_of(key)}
        write_text_atomically(path, "".join(f"{name} {pins[name]}\n" for name in sorted(pins)))
