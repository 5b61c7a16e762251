# SPDX-License-Identifier: GPL-2.0-only
"""Hosts that were set aside: sick, so nothing runs on them until a person puts them back.

A file for each in $XDG_STATE_HOME/kvm-harness/hosts, by its name in the inventory.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import InfraError, UsageError
from harness.paths import state_home
from harness.records import write_atomically
from harness.runinput import now


class Aside(BaseModel):
    """The file of one host."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    since: str
    """UTC, ISO 8601."""
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"set aside since {self.since}: {'; '.join(self.reasons)}"


def set_aside(host: str, reasons: tuple[str, ...]) -> Aside:
    """Set a host aside; why and when it was set aside first are kept."""
    before = find(host)
    if before is not None:
        return before
    made = Aside(since=now(), reasons=reasons)
    path = _path(host)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, made)
    return made


def find(host: str) -> Aside | None:
    """Why a host is set aside, None if it is not; InfraError for a damaged file."""
    path = _path(host)
    try:
        return Aside.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as exc:
        raise InfraError(f"{path} is damaged; remove it to put {host} back") from exc


def put_back(host: str) -> Aside:
    """Let a host be used again; why it was not is returned. UsageError if it is not set aside."""
    found = find(host)
    if found is None:
        raise UsageError(f"{host} is not set aside")
    _path(host).unlink()
    return found


def require_in_use(host: str) -> None:
    """InfraError if a host is set aside."""
    found = find(host)
    if found is not None:
        raise InfraError(f"{host} was {found}; once it is well: kvm-harness hosts put-back {host}")


def _path(host: str) -> Path:
    return state_home() / "hosts" / f"{host}.json"
