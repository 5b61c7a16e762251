# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig fragments: what they ask for, and whether the final configuration has it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

_SET = re.compile(r"^CONFIG_(\w+)=(.*)$")
_UNSET = re.compile(r"^# CONFIG_(\w+) is not set$")
NOT_SET = "n"


@dataclass(frozen=True)
class Wish:
    """A symbol (without CONFIG_) that a fragment asks for; value "n" means not set."""

    symbol: str
    value: str
    file: str
    line: int


@dataclass(frozen=True)
class Mismatch:
    """A wish that the final configuration does not fulfil, and what it has instead."""

    wish: Wish
    got: str

    def __str__(self) -> str:
        wish = self.wish
        return f"{wish.file}:{wish.line}: CONFIG_{wish.symbol}: wanted {wish.value}, got {self.got}"


class ConfigError(UsageError):
    """The final configuration lacks what a fragment asks for."""

    def __init__(self, message: str, mismatches: tuple[Mismatch, ...]) -> None:
        super().__init__(message)
        self.mismatches = mismatches


def read_fragments(paths: Sequence[Path]) -> tuple[str, dict[str, Wish]]:
    """All fragments as one text for KCONFIG_ALLCONFIG, and the last wish for each symbol.

    UsageError names file and line of a line that is neither setting, comment nor empty.
    """
    texts: list[str] = []
    wishes: dict[str, Wish] = {}
    for path in paths:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"kernel fragment {path} cannot be read: {exc}") from exc
        wishes.update({wish.symbol: wish for wish in parse_fragment(text, str(path))})
        texts.append(text.rstrip("\n") + "\n")
    return "".join(texts), wishes


def parse_fragment(text: str, file: str) -> list[Wish]:
    """The wishes of one fragment in their order."""
    wishes = []
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if found := _UNSET.match(line):
            wishes.append(Wish(found[1], NOT_SET, file, number))
        elif found := _SET.match(line):
            wishes.append(Wish(found[1], found[2].strip(), file, number))
        elif line and not line.startswith("#"):
            raise UsageError(f"{file}:{number}: neither CONFIG_X=value nor a comment: {line!r}")
    return wishes


def parse_config(text: str) -> dict[str, str]:
    """The symbols that a finished .config sets, and their values."""
    return {m[1]: m[2] for line in text.splitlines() if (m := _SET.match(line))}


def compare(wishes: Mapping[str, Wish], final: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """The wishes that are not fulfilled, in the order in which they were made."""
    return tuple(
        Mismatch(wish, got)
        for wish in wishes.values()
        if (got := final.get(wish.symbol, NOT_SET)) != wish.value
    )


def require(wishes: Mapping[str, Wish], config: str, kconfigs: Iterable[Path]) -> None:
    """ConfigError names every wish that `config` does not fulfil, and why that may be.

    `kconfigs` are the tree's Kconfig files, read only to tell an unknown symbol from one whose
    dependencies are not met.
    """
    mismatches = compare(wishes, parse_config(config))
    if not mismatches:
        return
    known = _declared(kconfigs, {m.wish.symbol for m in mismatches})
    lines = [f"{m} ({_reason(m, m.wish.symbol in known)})" for m in mismatches]
    raise ConfigError(
        "the kernel's configuration is not what the fragments ask for:\n" + "\n".join(lines),
        mismatches,
    )


def _reason(mismatch: Mismatch, known: bool) -> str:
    if not known:
        return "this kernel has no such symbol"
    if mismatch.wish.value == NOT_SET:
        return "another symbol selects it, or it has no prompt"
    return "its dependencies are not met, it has no prompt, or a choice went another way"


def _declared(kconfigs: Iterable[Path], symbols: set[str]) -> set[str]:
    found: set[str] = set()
    for path in kconfigs:
        text = path.read_text(errors="replace") if path.is_file() else ""
        found |= symbols & set(re.findall(r"^\s*(?:menu)?config\s+(\w+)\s*$", text, re.MULTILINE))
    return found
