# SPDX-License-Identifier: GPL-2.0-only
"""Which machines are away from their known-good kernel, in case that the controller dies meanwhile.

$XDG_STATE_HOME/kvm-harness/away has NAME.json from before a jump until the machine is home, or was
set aside, or is another's: so only a run that was killed leaves one. Its process has NAME.lock as
long as it lives, by which one that is dead is known (revive.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.lease import Lease
from harness.hosts.machine import Machine, Running
from harness.hosts.tenancy import Tenancy
from harness.kernel.cache import locked
from harness.paths import state_home
from harness.records import write_atomically

LOCK_SECONDS = 20.0


class Away(BaseModel):
    """The file of one machine."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host_key: str
    good: Running
    """The boot of the known-good kernel that it left."""
    lease: Lease
    """Whose token lets another process take it over."""
    until: float
    """When that runs out, if it is renewed no more, as seconds since 1970 of the controller."""


@contextlib.contextmanager
def answered_for(name: str) -> Iterator[None]:
    """Be the process that brings the machine home; InfraError while another one is."""
    with contextlib.ExitStack() as stack:
        try:
            _path(name).parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone(name, LOCK_SECONDS))
        except OSError as exc:
            raise InfraError(f"{exc.filename}: {exc.strerror}") from exc
        stack.callback(forget, name)
        yield


@contextlib.contextmanager
def alone(name: str, seconds: float) -> Iterator[None]:
    """Hold the machine's lock; DeadlineExceeded while another process has it for so long."""
    lock = _path(name).with_suffix(".lock")
    with locked(lock, Deadline(seconds), f"{name}, whose kernel it brings home"):
        yield


def note(machine: Machine, ours: Tenancy, good: Running) -> None:
    """Write down that the machine is about to leave its known-good kernel."""
    lease, left = ours.paper()
    path = _path(machine.name)
    words = Away(host_key=machine.host_key, good=good, lease=lease, until=time.time() + left)
    try:
        write_atomically(path, words)
    except OSError as exc:
        raise InfraError(f"{path}: {exc.strerror}") from exc


def there(name: str) -> bool:
    """Whether there is such a file."""
    return _path(name).exists()


def find(name: str) -> Away | None:
    """What was written down, None for nothing; InfraError for a damaged file."""
    path = _path(name)
    try:
        return Away.model_validate_json(path.read_text())
    except FileNotFoundError:
        return None
    except (ValidationError, UnicodeDecodeError) as exc:
        raise InfraError(
            f"{path}, by which {name} would be reset, is damaged; see to the machine and remove it"
        ) from exc


def forget(name: str) -> None:
    """The machine is home, or whoever has it has been told that it is not."""
    _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    return state_home() / "away" / f"{name}.json"
