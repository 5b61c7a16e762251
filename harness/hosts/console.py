# SPDX-License-Identifier: GPL-2.0-only
"""Follow a host's console while it is written to a file.

Every wait on a host asks `check()`, so a panic ends the wait within a poll interval and not by its
deadline. The file itself is complete evidence: nothing here filters or shortens it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.observe.klog import Follower

POLL = 0.05
# How long a panicking kernel is given to finish its trace before the wait is ended.
TRACE_SECONDS = 3.0
# Bytes of console that are looked at; a host that writes more is given up.
LIMIT = 64 << 20


class Console:
    """Reads a growing console log in a thread of its own.

    `ended` tells why the machine is gone, or None while it runs.
    """

    def __init__(self, path: Path, ended: Callable[[], InfraError | None]) -> None:
        self.path = path
        self._ended = ended
        self._lock = threading.Lock()
        self._follower = Follower()
        self._text = bytearray()
        self._panic_seen: float | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="console", daemon=True)

    def __enter__(self) -> Console:
        """Start to follow."""
        self._file = self.path.open("rb")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop to follow; the log stays."""
        self._stop.set()
        self._thread.join(2)
        self._file.close()

    def _follow(self) -> None:
        while not self._stop.wait(POLL):
            self._take()

    def _take(self, *, last: bool = False) -> None:
        with self._lock:
            data = self._file.read(max(0, LIMIT - len(self._text)))
            if data:
                self._text += data
                self._follower.feed(data)
            if last:
                # The machine may have died within a line: that one counts as well.
                self._follower.close()
            if self._follower.panic_line is not None and self._panic_seen is None:
                self._panic_seen = time.monotonic()

    def text(self) -> str:
        """All that the console has shown so far."""
        with self._lock:
            return self._text.decode(errors="replace")

    def check(self) -> None:
        """Raise HostDied if the kernel has panicked, or what `ended` says if the machine is gone.

        A panic that is still being printed is given TRACE_SECONDS to come to its end first.
        """
        gone = self._ended()
        if len(self._text) >= LIMIT:
            raise InfraError(f"the console wrote more than {LIMIT >> 20} MiB ({self.path})")
        if gone is not None:
            self._take(last=True)
        if self._panic_seen is None:
            if gone is not None:
                raise gone
            return
        while gone is None and not self._follower.panic_ended:
            if time.monotonic() - self._panic_seen > TRACE_SECONDS:
                break
            time.sleep(POLL)
            gone = self._ended()
        self._take()
        raise HostDied("panic", f"{self._follower.panic_line} ({self.path})")

    def wait_for(self, text: str, deadline: Deadline) -> None:
        """Wait until the console shows `text`; HostDied on a panic, or a hang named as such."""
        wanted = text.encode()
        searched = 0
        while True:
            with self._lock:
                found = self._text.find(wanted, searched) >= 0
                searched = max(0, len(self._text) - len(wanted))
            if found:
                return
            self.check()
            if deadline.expired():
                raise self.hung(f"no {text!r} on the console within {deadline.budget:.0f} s")
            time.sleep(POLL / 2)

    def hung(self, why: str) -> HostDied:
        """The error for a host that neither answers nor panics, with its last words."""
        lines = [line.strip() for line in self.text().splitlines() if line.strip()]
        last = lines[-1] if lines else "nothing at all"
        return HostDied("hang", f"{why}; its last line was: {last} ({self.path})")


def panic_in(text: str) -> str | None:
    """The first line of the first panic that a console shows, None without one."""
    follower = Follower()
    follower.feed(text.encode())
    follower.close()
    return follower.panic_line
