# SPDX-License-Identifier: GPL-2.0-only
"""Go on through SIGTERM and Ctrl-C to a state that a machine can be left in."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep these signals back until the end of the block, and raise them there.

    They come to Python's main thread alone; in any other there is nothing to keep back. One that is
    ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def later(signum: int, frame: FrameType | None) -> None:
        came.append(signum)

    before = {
        one: signal.signal(one, later)
        for one in SIGNALS
        if signal.getsignal(one) not in (signal.SIG_IGN, None)
    }
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
        if came:
            signal.raise_signal(came[0])
