# SPDX-License-Identifier: GPL-2.0-only
"""Cut the record of a cell (commands.jsonl) into what one check did to its host, step by step."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from harness.replay import own_collection

Record = Mapping[str, object]

PUT = "/replay/put"
"""Where the initramfs has the files that a check copies to its host, by their names."""

# PIDs, PFNs, generations and nonces: what differs from boot to boot in what is asked for.
_NUMBER = re.compile(r"[0-9a-f]{32}|[0-9]+")


def preparation(records: Iterable[Record]) -> list[Record]:
    """What was done to the host before its first check."""
    found = []
    for record in records:
        if "check" in record:
            break
        found.append(record)
    return _work(found)


def of_check(records: Iterable[Record], name: str) -> list[Record] | None:
    """What a check did to the host, None if it is not in this record."""
    found: list[Record] | None = None
    for record in records:
        if "check" in record:
            if found is not None:
                break
            found = [] if record["check"] == name else None
        elif found is not None:
            found.append(record)
    return None if found is None else _work(found)


def announced(records: Iterable[Record]) -> list[str]:
    """Each step in words, in the order in which the script of the records numbers them from 1."""
    return [words for record in records if (words := _announced(record)) is not None]


def common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many steps two hosts were asked for alike, before they were asked for something else."""
    number = 0
    for mine, theirs in zip(one, other, strict=False):
        if _NUMBER.sub("#", mine) != _NUMBER.sub("#", theirs):
            break
        number += 1
    return number


def errors(records: Iterable[Record]) -> dict[int, tuple[str, ...]]:
    """The first words of replies that were errors ("error", "data", "stale"), by their step."""
    step = 0
    found: dict[int, tuple[str, ...]] = {}
    for record in records:
        step += _announced(record) is not None
        text = str(record.get("received", ""))
        if text.startswith("error "):
            words = [word for word in text.split()[:3] if word.isalpha()]
            found[step] = tuple(words)
    return found


def shown(records: Iterable[Record], plain: Callable[[str], str]) -> dict[int, frozenset[str]]:
    """What each step showed in the run, as the script shows it: lines with their counts.

    That is what a guest replied, by its fields, and what a command put out. `plain` leaves out of a
    text what the script leaves out.
    """
    step = 0
    found: dict[int, frozenset[str]] = {}
    for record in records:
        step += _announced(record) is not None
        if "received" in record:
            lines = re.split(r"[ |]", str(record["received"]))
        elif "output" in record:
            lines = plain(f"{record['output']}status {record['status']}\n").splitlines()
        else:
            continue
        found[step] = frozenset(f"{count} {line}" for line, count in Counter(lines).items())
    return found


def _work(records: Iterable[Record]) -> list[Record]:
    """Without what the harness collects for itself; files that were copied come from PUT."""
    return [
        _fetched(record)
        for record in records
        if not ("run" in record and own_collection(str(record["run"])))
    ]


def _fetched(record: Record) -> Record:
    if "put" not in record:
        return record
    target = str(record["put"])
    source = shlex.quote(f"{PUT}/{target.rpartition('/')[2]}")
    return {"run": f"cp {source} {shlex.quote(target)} && chmod 755 {shlex.quote(target)}"}


def _announced(record: Record) -> str | None:
    if "start" in record:
        words = record["start"]
        assert isinstance(words, Sequence)
        return " ".join(str(word) for word in words)
    if "write" in record:
        return f"write {record['write']} {record['text']}"
    for kind in ("send", "run", "read"):
        if kind in record:
            return f"{kind} {record[kind]}"
    return None
