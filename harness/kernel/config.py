# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig fragments: what they ask for, and whether the final configuration has it.

One set of fragments serves kernels of many versions. A condition, on a line of its own, holds for
the setting on the next line:

    #: where known [-- why]      left out for a tree whose Kconfig files do not declare the symbol
    #: before 6.10 [-- why]      left out from that version on, by the tree's Makefile
    #: from 6.10 [-- why]        left out before that version

What is left out, and the conditions themselves, are no part of the text that a kernel is built
and named from: a condition for another version changes no kernel. A misspelt symbol is still an
error where it stands without a condition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError

_SET = re.compile(r"^CONFIG_(\w+)=(.*)$")
_UNSET = re.compile(r"^# CONFIG_(\w+) is not set$")
_CONDITION = re.compile(
    r"^#: (?:(?P<known>where known)|(?P<way>before|from) (?P<major>\d+)\.(?P<minor>\d+))"
    r"(?: -- .+)?$"
)
_DECLARED = re.compile(r"^\s*(?:menu)?config\s+(\w+)\s*$", re.MULTILINE)
NOT_SET = "n"
# Of the pages that kvm-guest and the checks know.
PAGE_KIB = 4
_OTHER_PAGES = frozenset({"ARM64_16K_PAGES", "ARM64_64K_PAGES"})
_ONE_SIZE = f"the checks and their guests know pages of {PAGE_KIB} KiB alone"


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


@dataclass(frozen=True)
class Tree:
    """What of a kernel tree decides conditions.

    `version` is that of its Makefile ("6.12.117"); `knows` tells whether a Kconfig file declares a
    symbol. It is asked only where a fragment says "where known": to look takes a second.
    """

    version: str
    knows: Callable[[str], bool]


@dataclass(frozen=True)
class Fragments:
    """What fragments ask of one tree: one text for KCONFIG_ALLCONFIG, the last wish by symbol."""

    text: str
    wishes: Mapping[str, Wish]


def read_fragments(paths: Sequence[Path], tree: Tree) -> Fragments:
    """All fragments together, as far as they are for this tree.

    UsageError names file and line of a line that is neither setting, comment nor empty, and of a
    condition that is not understood or stands before no setting.
    """
    texts: list[str] = []
    wishes: dict[str, Wish] = {}
    for path in paths:
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise UsageError(f"kernel fragment {path} cannot be read: {exc}") from exc
        kept = _for_tree(text, str(path), tree)
        _require_page_size(wish for _, wish in kept if wish is not None)
        wishes.update({wish.symbol: wish for _, wish in kept if wish is not None})
        texts.append("\n".join(line for line, _ in kept).rstrip("\n") + "\n")
    return Fragments("".join(texts), wishes)


def _require_page_size(wishes: Iterable[Wish]) -> None:
    for wish in wishes:
        if wish.value != NOT_SET and wish.symbol in _OTHER_PAGES:
            raise UsageError(
                f"{wish.file}:{wish.line}: CONFIG_{wish.symbol}={wish.value}: {_ONE_SIZE}"
            )


def _for_tree(text: str, file: str, tree: Tree) -> list[tuple[str, Wish | None]]:
    """The lines of one fragment that are for this tree, less conditions, each with its wish."""
    kept: list[tuple[str, Wish | None]] = []
    condition: re.Match[str] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        wish = _wish(line.strip(), file, number)
        if condition is not None and wish is None:
            raise UsageError(f"{file}:{number}: no setting after the condition above it")
        if line.startswith("#:"):
            condition = _CONDITION.match(line)
            if condition is None:
                raise UsageError(f"{file}:{number}: want '#: where known' or '#: before|from X.Y'")
            continue
        if wish is None or condition is None or _applies(condition, wish, tree):
            kept.append((line, wish))
        condition = None
    if condition is not None:
        raise UsageError(f"{file}: no setting after the condition on its last line")
    return kept


def _applies(condition: re.Match[str], wish: Wish, tree: Tree) -> bool:
    if condition["known"]:
        return tree.knows(wish.symbol)
    before = version_pair(tree.version) < (int(condition["major"]), int(condition["minor"]))
    return before == (condition["way"] == "before")


def version_pair(version: str) -> tuple[int, int]:
    """The first two numbers of a kernel's version: (6, 12) of "6.12.117" and of "6.12.0-rc3"."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if found is None:
        raise UsageError(f"not the version of a kernel: {version!r}")
    return int(found[1]), int(found[2])


def _wish(line: str, file: str, number: int) -> Wish | None:
    """What a line asks for, None for a comment or an empty line."""
    if found := _UNSET.match(line):
        return Wish(found[1], NOT_SET, file, number)
    if found := _SET.match(line):
        return Wish(found[1], found[2].strip(), file, number)
    if line and not line.startswith("#"):
        raise UsageError(f"{file}:{number}: neither CONFIG_X=value nor a comment: {line!r}")
    return None


def parse_config(text: str) -> dict[str, str]:
    """The symbols that a finished .config sets, and their values."""
    return {m[1]: m[2] for line in text.splitlines() if (m := _SET.match(line))}


def page_kib(text: str) -> int | None:
    """The size of pages that a finished .config of arm64 asks for, in KiB; None for none."""
    symbols = parse_config(text)
    sizes = (size for size in (4, 16, 64) if symbols.get(f"ARM64_{size}K_PAGES") == "y")
    return next(sizes, None)


def require_page_size(text: str) -> None:
    """ConfigError for a finished .config of an arm64 kernel with pages that checks do not know.

    A tree may have another default, or a fragment's wish may lose to another symbol.
    """
    kib = page_kib(text)
    if kib not in (None, PAGE_KIB):
        raise ConfigError(
            f"the kernel's configuration comes out with pages of {kib} KiB "
            f"(CONFIG_ARM64_{kib}K_PAGES), and {_ONE_SIZE}: "
            f"say CONFIG_ARM64_{PAGE_KIB}K_PAGES=y in a fragment",
            (),
        )


def compare(wishes: Mapping[str, Wish], final: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """The wishes that are not fulfilled, in the order in which they were made.

    A symbol that is to be an empty string may be absent as well: it names nothing either way.
    """
    return tuple(
        Mismatch(wish, got)
        for wish in wishes.values()
        if (got := final.get(wish.symbol, _absent(wish))) != wish.value
    )


def _absent(wish: Wish) -> str:
    return wish.value if wish.value == '""' else NOT_SET


def require(wishes: Mapping[str, Wish], config: str, kconfigs: Iterable[Path]) -> None:
    """ConfigError names every wish that `config` does not fulfil, and why that may be.

    `kconfigs` are the tree's Kconfig files, read only to tell an unknown symbol from one whose
    dependencies are not met.
    """
    mismatches = compare(wishes, parse_config(config))
    if not mismatches:
        return
    known = declared(kconfigs)
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


def declared(kconfigs: Iterable[Path]) -> frozenset[str]:
    """Every symbol that these Kconfig files declare."""
    found: set[str] = set()
    for path in kconfigs:
        text = path.read_text(errors="replace") if path.is_file() else ""
        found.update(_DECLARED.findall(text))
    return frozenset(found)
