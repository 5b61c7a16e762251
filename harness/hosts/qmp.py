# SPDX-License-Identifier: GPL-2.0-only
"""QMP for code that is not asynchronous: qemu.qmp on an event loop in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any

from qemu.qmp import QMPClient, QMPError

from harness.deadline import Deadline
from harness.errors import InfraError


class Monitor:
    """The QMP monitor of one QEMU, spoken to over an open socket.

    The socket is one end of a socketpair(2): there is no path or port for others to find, and
    nothing to remove afterwards.
    """

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="qmp", daemon=True)
        self._thread.start()
        self._client = QMPClient("kvm-harness")
        try:
            self._await(self._client.connect(sock), deadline, "QEMU's monitor to answer")
        except BaseException:
            self._stop_loop()
            raise

    def _await(self, coroutine: Any, deadline: Deadline, what: str) -> Any:
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(deadline.remaining())
        except FutureTimeout:
            future.cancel()
            raise deadline.exceeded(what) from None
        except (QMPError, OSError, EOFError) as exc:
            raise InfraError(f"QMP: while waiting for {what}: {exc}") from exc

    def execute(self, command: str, deadline: Deadline, **arguments: object) -> Any:
        """Run a QMP command (QEMU QMP Reference Manual) and return its answer."""
        return self._await(
            self._client.execute(command, dict(arguments) or None), deadline, f"QMP {command}"
        )

    def close(self) -> None:
        """Disconnect; never raises."""
        with contextlib.suppress(InfraError):
            self._await(self._client.disconnect(), Deadline(2), "QMP to disconnect")
        self._stop_loop()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(2)
        if not self._thread.is_alive():
            self._loop.close()
