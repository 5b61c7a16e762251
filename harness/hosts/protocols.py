# SPDX-License-Identifier: GPL-2.0-only
"""What the rest of the harness may ask of a host, however it is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.deadline import Deadline
from harness.hosts.console import Console


@dataclass(frozen=True)
class Result:
    """What a command on a host left."""

    command: str
    status: int
    stdout: str
    stderr: str


class Process(Protocol):
    """A program that runs on a host and is talked to line by line."""

    def send(self, line: str) -> None:
        """Write one line to its standard input; InfraError if it is gone."""

    def receive(self, deadline: Deadline) -> str:
        """Its next line of output without the newline.

        EOFError at its end, DeadlineExceeded when time runs out, HostDied if its host died.
        """

    def stderr(self) -> str:
        """What it has written to standard error so far."""

    def wait(self, deadline: Deadline) -> int:
        """End its input and wait until it has ended, and all that its end sets free with it.

        Returns its exit status, -1 if a signal ended it. DeadlineExceeded, HostDied, InfraError.
        """

    def close(self) -> None:
        """End its input and the program; never raises for one that is gone already."""


class Shell(Protocol):
    """Commands and files on a host, as root."""

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        """Run a command of POSIX sh to its end, in a subshell: nothing that it sets outlives it.

        InfraError names command, status and error output when `check` is set and it fails;
        HostDied or DeadlineExceeded when no answer comes.
        """

    def read(self, path: str, deadline: Deadline | None = None) -> str:
        """The text of a file on the host, read from its start in one open."""

    def write(self, path: str, text: str, deadline: Deadline | None = None) -> None:
        """Write a text to a file of the host (a control file of /sys or /proc) in one write."""

    def put(self, local: Path, remote: str, *, mode: int = 0o644) -> None:
        """Copy a file of the controller to the host and verify its checksum."""

    def start(self, argv: Sequence[str]) -> Process:
        """Start a program that stays until it is closed."""


class Power(Protocol):
    """A host's power switch, which works whatever its kernel does.

    Each call returns once the switch has obeyed, which says nothing of the kernel: whether a host
    was booted anew is for its boot_id to say. DeadlineExceeded, or InfraError if the switch fails.
    """

    def on(self, deadline: Deadline) -> None:
        """Give power; nothing changes for a host that has it."""

    def off(self, deadline: Deadline) -> None:
        """Take power away at once, without asking the kernel."""

    def reset(self, deadline: Deadline) -> None:
        """Start again from the firmware, without asking the kernel."""


@dataclass(frozen=True)
class Boot:
    """What a host is to be booted with, by whatever way its kind has."""

    kernel: Path
    """The Image, on the controller."""
    cmdline: tuple[str, ...]
    """Boot arguments of the cell; the host has more of its own."""
    programs: dict[str, Path]
    """Files of the controller by the path, without the leading /, that they shall have there."""
    folder: Path
    """Gets the console and whatever else the boot leaves to be looked at."""
    run: str
    """The run's name, for people who share the host."""
    seconds: float
    """At most from the kernel's start to its SSH login."""
    longest: float = 0.0
    """Seconds that one check on it may take: a hang may go unnoticed for so long."""
    wait: float = 0.0
    """Seconds for a host that another has."""
    slowdown: float = 1.0
    """A factor of every deadline of the shell's own."""
    tickless: bool = True
    """Whether the last CPU is kept free of the tick."""
    modules: Path | None = None
    """The archive of its modules (harness/kernel/modules.py), None for a kernel without any."""
    release: str = ""
    """What uname -r shows in it, with modules."""


class BootedHost(Protocol):
    """A host that runs a kernel of ours."""

    @property
    def console(self) -> Console:
        """What it says, from that kernel's first line on."""

    @property
    def shell(self) -> Shell:
        """A shell on it, as root."""

    @property
    def boot_seconds(self) -> float:
        """From the start of that kernel, or of its emulator, to the SSH login."""
