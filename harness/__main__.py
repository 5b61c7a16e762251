# SPDX-License-Identifier: GPL-2.0-only
"""The `kvm-harness` command as it is started: harness/cli.py, and an exit code whatever comes.

Python ends with 1 where a module cannot be imported, and with 120 where what was printed cannot be
written: the first is the code of a check that failed, and `git bisect run` takes both for "bad".
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback

from harness.errors import EXIT_ERROR
from harness.git_bisect import asked, exit_code


def main() -> None:
    """Entry point; ends the process with the command's exit code."""
    error = exit_code(EXIT_ERROR) if asked(sys.argv[1:]) else EXIT_ERROR
    code = error
    try:
        from harness.cli import main as command

        command()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else error
    except Exception:
        # Only where the harness itself is not whole, as in half a virtual environment.
        with contextlib.suppress(OSError):
            traceback.print_exc()
    # A failure that was proven stays one, though nobody could be told.
    sys.exit(code if _all_was_written() else code or error)


def _all_was_written() -> bool:
    """Whether all that was printed has been written; what was not is given up."""
    written = True
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            written = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return written


if __name__ == "__main__":
    main()
