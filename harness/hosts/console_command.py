# SPDX-License-Identifier: GPL-2.0-only
"""Record a machine's console by a command of the lab's own, such as `ipmitool ... sol activate`.

The command gets a terminal, since most such programs end at once without one or hold lines back;
nothing is ever typed into it. What it prints is in the file before anything else looks at it. It is
started again if it ends: a management controller drops its sessions when the power is switched.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from harness import proc
from harness.errors import HarnessError, InfraError
from harness.hosts.console import LIMIT, Console

POLL = 0.1
# Before it is started again; twice as long after each end that came soon, up to the second.
PAUSE_SECONDS = 1.0
LONGEST_PAUSE = 16.0
# Nothing but ends soon after a start, for so long, and the console is given up: no less than a
# management controller that was reset itself takes to answer again.
GIVE_UP_SECONDS = 120.0
SOON_SECONDS = 10.0
GRACE_SECONDS = 2.0
# As if ^C were typed first: ipmitool gives its session back then, and not at SIGTERM, and some
# management controllers have but one.
ENDING = (signal.SIGINT, *proc.ENDING)


@contextlib.contextmanager
def recorded(argv: Sequence[str], log: Path) -> Iterator[Console]:
    """Append to `log` what the command prints, and follow it, until the end of the block.

    Console.check() raises InfraError once the command has been given up, or recording has failed in
    any other way. LOG.err has its error output, and after how many bytes of the log it ended.
    """
    with recording(argv, log) as made, Console(log, made.ended) as console:
        yield console


@contextlib.contextmanager
def recording(argv: Sequence[str], log: Path) -> Iterator[Recording]:
    """The same without following it: what is recorded may go on in another file."""
    made = Recording(argv, log)
    thread = threading.Thread(target=made.run, name="console-command", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop.set()
        thread.join()
        made.close()


def last_words(log: Path) -> str:
    """What the command that is recorded there wrote to its error output last, if anything."""
    with contextlib.suppress(OSError):
        return _errors_of(log).read_text(errors="replace").strip()[-500:]
    return ""


def _errors_of(log: Path) -> Path:
    return log.with_name(f"{log.name}.err")


class Recording:
    """The thread that starts the command, and lives as long (see proc.spawn())."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._argv = argv
        self._log = log
        self._file = log.open("ab", buffering=0)
        self._errors = _errors_of(log)
        self._failure = ""
        self.stop = threading.Event()

    def ended(self) -> InfraError | None:
        """Why nothing is recorded any more, if that is so."""
        return InfraError(self._failure) if self._failure else None

    def switch(self, log: Path) -> None:
        """Append to another file from now on; not a byte is lost or in both."""
        with log.open("ab", buffering=0) as other:
            os.dup2(other.fileno(), self._file.fileno(), inheritable=False)

    def close(self) -> None:
        """Close the file, once the thread has ended."""
        self._file.close()

    def run(self) -> None:
        """Record until `stop` is set, or for as long as there is hope."""
        try:
            with self._errors.open("ab") as errors:
                self._again_and_again(self._file.fileno(), errors)
        except Exception as exc:
            # A mistake of ours as well: nobody would notice that nothing is recorded any more.
            why = str(exc) if isinstance(exc, OSError | HarnessError) else repr(exc)
            words = last_words(self._log)
            said = f"\n{words}" if words else ""
            self._failure = f"no console by `{self._argv[0]}`: {why}{said}"

    def _again_and_again(self, log: int, errors: BinaryIO) -> None:
        in_a_row, first = 0, 0.0
        while not self.stop.is_set():
            started = time.monotonic()
            status = self._once(log, errors.fileno())
            if self.stop.is_set():
                return
            ended = time.monotonic()
            in_a_row = in_a_row + 1 if ended - started < SOON_SECONDS else 0
            if in_a_row == 1:
                first = started
            if in_a_row and ended - first >= GIVE_UP_SECONDS:
                raise InfraError(
                    f"it ended {in_a_row} times in a row in {ended - first:.0f} s, with {status}"
                )
            size = os.fstat(log).st_size
            errors.write(f"[ended with {status} after {size} bytes]\n".encode())
            errors.flush()
            # No more than the longest pause needs: a float has an end.
            doubled = min(max(in_a_row - 1, 0), 16)
            self.stop.wait(min(PAUSE_SECONDS * 2**doubled, LONGEST_PAUSE))

    def _once(self, log: int, errors: int) -> int:
        """Run the command to its end, or until `stop` is set; returns its exit status."""
        ours, theirs = os.openpty()
        try:
            # As it comes: no echo, and no carriage return that the machine did not send.
            tty.setraw(theirs)
            process = proc.spawn(self._argv, stdin=theirs, stdout=theirs, stderr=errors)
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        try:
            self._copy(ours, log, process)
        finally:
            proc.end(process, signals=ENDING)
            os.close(ours)
        return process.returncode

    def _copy(self, source: int, log: int, process: subprocess.Popen[bytes]) -> None:
        while not self.stop.is_set():
            ended = process.poll() is not None
            if not select.select([source], [], [], 0 if ended else POLL)[0]:
                if ended:
                    return
                continue
            try:
                data = os.read(source, 1 << 16)
            except OSError:  # EIO: nobody has the terminal open any more.
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE_SECONDS)
                return
            if os.fstat(log).st_size + len(data) > LIMIT:
                raise InfraError(f"it wrote more than {LIMIT >> 20} MiB")
            while data:
                data = data[os.write(log, data) :]
