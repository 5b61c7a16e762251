# SPDX-License-Identifier: GPL-2.0-only
"""Cut a host's text into lines and numbers, within bounds.

What a host under test writes is data to be parsed with care: each reader bounds the size of
what it takes, and a text that does not end with a newline was cut short on its way.
"""

from __future__ import annotations

from harness.deadline import Deadline
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError, shown

MIB = 1 << 20
U64_MAX = (1 << 64) - 1


def whole_lines(text: str, source: str, limit: int = MIB) -> list[str]:
    """The lines of a text without their newlines.

    ObserveError if the text is longer than `limit` characters, its last line has no newline, or
    it holds a NUL.
    """
    if len(text) > limit:
        raise ObserveError(source, 0, f"longer than {limit} characters ({len(text)})")
    if not text:
        return []
    lines = text.split("\n")
    if lines[-1]:
        raise ObserveError(source, len(lines), f"truncated line {shown(lines[-1])}")
    lines.pop()
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ObserveError(source, number, f"a NUL in {shown(line)}")
    return lines


def unsigned(word: str, source: str, line: int) -> int:
    """A decimal number that fits 64 bits; ObserveError if `word` is none."""
    if not (word.isascii() and word.isdigit() and len(word) <= 20 and int(word) <= U64_MAX):
        raise ObserveError(source, line, f"not an unsigned number: {shown(word)}")
    return int(word)


def signed(word: str, source: str, line: int) -> int:
    """A decimal number, maybe negative, that fits 64 bits; ObserveError if `word` is none."""
    magnitude = unsigned(word.removeprefix("-"), source, line)
    return -magnitude if word.startswith("-") else magnitude


def sections(text: str, nonce: str, source: str) -> list[tuple[str, str]]:
    """Name and text of the parts of a script's output, of which the last is "end".

    Each part begins with a line "NONCE NAME". The nonce is new for each script, so nothing that
    a program on the host chose (a trace prints task names) can pass for one. ObserveError if
    the end is missing.
    """
    before, *parts = text.split(f"{nonce} ")
    if before or not parts or parts[-1] != "end\n":
        raise ObserveError(source, 0, "output is truncated: its end mark is missing")
    found = [part.partition("\n") for part in parts[:-1]]
    return [(name, body) for name, _, body in found]


def run_script(shell: Shell, script: str, deadline: Deadline | None) -> str:
    """The output of a script of POSIX sh, which ends at its first failed command.

    Shell.run() gives each command a subshell, which `set -e` may end. An sh of its own would cost
    a program to be started: a third of a short script's time under emulation.
    """
    return shell.run(as_script(script), deadline).stdout


def as_script(script: str) -> str:
    """The command for Shell.run() that is a script which ends at its first failed command."""
    return f"set -eu\n{script}"
