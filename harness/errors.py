# SPDX-License-Identifier: GPL-2.0-only
"""The errors that reach a user, each with the exit code that it ends a command with.

A verdict about a kernel is never an exception: these say that the harness could not
get as far as a verdict.
"""

from typing import Literal

GuestEnd = Literal["guest-panic", "guest-hang", "guest-gone"]
Lost = Literal["unavailable", "down"]
Death = Literal["panic", "hang", "livelock", "gone", "no-kvm", "wrong-mode", GuestEnd]

EXIT_PASS = 0
EXIT_FAIL = 1
EXIT_USAGE = 2
EXIT_ERROR = 3
EXIT_UNPROVEN = 4
EXIT_CANNOT_TELL = 125
EXIT_INTERRUPTED = 130


class HarnessError(Exception):
    """Base of all errors with a message that is meant for the user."""

    exit_code = EXIT_ERROR


class UsageError(HarnessError):
    """The user's input (inventory, series, option) is wrong; the message says what and where."""

    exit_code = EXIT_USAGE


class InfraError(HarnessError):
    """A host, a build tool, a download or the controller failed; not the kernel under test."""

    exit_code = EXIT_ERROR


class HostLost(InfraError):
    """A run has a machine of the lab no more; the message says why.

    `kind` is "unavailable" if it was not to be had in the first place, and "down" if it was lost
    while a cell had it, which may be that cell's doing.
    """

    def __init__(self, message: str, kind: Lost = "down") -> None:
        super().__init__(message)
        self.kind = kind


class DeadlineExceeded(InfraError):
    """A wait ran out of time; the message says what was waited for and how long."""


class ConnectionCut(InfraError):
    """The connection to a host was cut, and its kernel still runs: that is not the kernel's doing.

    Whatever a check waited for meanwhile proves nothing.
    """


class Hung(InfraError):
    """A guest or a test on a host makes no progress, while the host itself answers.

    Judged as HostDied is, but the checks after it may run.
    """


class LinuxGuestDied(InfraError):
    """A Linux guest panicked, hangs, or is gone, while the host itself answers.

    Judged as HostDied is, by what the base kernel did with the same guest, but the checks after it
    run: each boots a guest of its own.
    """

    def __init__(self, kind: GuestEnd, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class HostDied(InfraError):
    """The kernel on a host does not do what every check needs: it died, or has no KVM.

    Whether that is the fault of the series is decided later, by comparison with the base kernel
    on the same host in the same run (verdict.py).
    """

    def __init__(self, kind: Death, message: str) -> None:
        super().__init__(message)
        self.kind = kind
