# SPDX-License-Identifier: GPL-2.0-only
"""Does GRUB on a machine start an entry once, and its default ever after?

`grub-reboot` writes the entry's name to the environment block, and grub.cfg has GRUB take it out
again before it starts the entry. Where GRUB cannot write the file (it follows the blocks that the
file had when it read it, past LVM, RAID and file systems that copy on write), the entry would be
started again and again: such a machine is refused.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from harness.deadline import Deadline
from harness.hosts.fitness import Finding
from harness.hosts.protocols import Shell
from harness.observe.errors import ObserveError, shown
from harness.observe.text import sections, whole_lines
from harness.printable import printable

SOURCE = "the host's answer to what its GRUB is"
LIMIT = 1 << 14
# Of our menu entry, and of the folder with the kernel beside grub.cfg.
NAME = "kvm-harness"
# The first line of our custom.cfg, by which it is told from its owner's.
HEAD = "# kvm-harness: one boot of a kernel under test; it removes this file again"
# Where grub.cfg and grubenv are; the programs that belong to it begin as the folder is called.
PLACES = ("/boot/grub", "/boot/grub2")
PROGRAMS = ("reboot", "editenv", "probe")
# As grub-probe(8) calls them. What GRUB writes to by blocks, and what it is known not to corrupt.
WRITABLE = frozenset({"ext2", "xfs", "fat"})
PATH = "PATH=$PATH:/usr/sbin:/sbin\n"

_SCRIPT = r"""
part() { printf '%s %s\n' NONCE "$1"; }
PATH=$PATH:/usr/sbin:/sbin
d=; for p in PLACES; do [ -f "$p/grub.cfg" ] && d=$p && break; done
part folder; [ -z "$d" ] || echo "$d"
g=${d##*/}
part programs; for t in reboot editenv probe; do command -v "$g-$t" > /dev/null && echo "$t"; done
part grubenv; [ -f "$d/grubenv" ] && [ ! -L "$d/grubenv" ] && echo yes
part abstraction; "$g-probe" --target=abstraction "$d" 2>/dev/null
part fs; "$g-probe" --target=fs "$d" 2>/dev/null
part reads; grep -ow 'next_entry\|custom\.cfg' "$d/grub.cfg" 2>/dev/null | sort -u
part custom; [ ! -e "$d/custom.cfg" ] || echo ":$(head -n 1 "$d/custom.cfg" | cut -c 1-200)"
part next; "$g-editenv" "$d/grubenv" list 2>/dev/null | grep '^next_entry=' | cut -c 1-200
part end
"""


@dataclass(frozen=True)
class Grub:
    """What a machine showed of its GRUB."""

    folder: str
    """Of grub.cfg, one of PLACES; "" for none."""
    programs: frozenset[str]
    """Those of PROGRAMS that are there."""
    grubenv: bool
    """The environment block is there, and a file of its own."""
    abstraction: str
    """What lies between the file system and the disk (lvm, mdraid1x ...), "" for nothing."""
    fs: str
    """What grub-probe calls the file system, "" if it does not say."""
    reads: frozenset[str]
    """What grub.cfg knows of: next_entry, custom.cfg."""
    custom: str | None
    """The first line of custom.cfg, None if there is none."""
    next_entry: str
    """What the next start is to be, "" for the default."""

    @property
    def prefix(self) -> str:
        """How its programs begin."""
        return self.folder.rpartition("/")[2]

    @property
    def editenv(self) -> str:
        """The program for the environment block, with that."""
        return f"{self.prefix}-editenv {self.folder}/grubenv"


def look(shell: Shell, deadline: Deadline | None = None) -> Grub:
    """Ask a machine, as root; ObserveError if its answer makes no sense."""
    nonce = secrets.token_hex(16)
    return parse(shell.run(script(nonce), deadline, check=False).stdout, nonce)


def script(nonce: str, places: Collection[str] = PLACES) -> str:
    """What is run on the machine; it changes nothing."""
    return _SCRIPT.replace("NONCE", nonce).replace("PLACES", " ".join(places))


def parse(text: str, nonce: str, places: Collection[str] = PLACES) -> Grub:
    """What the script printed; ObserveError for an answer that is cut off, or is none to it."""
    if len(text) > LIMIT:
        raise ObserveError(SOURCE, 0, f"longer than {LIMIT} characters ({len(text)})")
    parts = sections(text, nonce, SOURCE)
    if [name for name, _ in parts] != re.findall(r"^part (?!end)(\w+)", _SCRIPT, re.MULTILINE):
        raise ObserveError(SOURCE, 0, f"other parts than were asked for: {shown(text)}")
    lines = {name: whole_lines(body, SOURCE, LIMIT) for name, body in parts}
    words = {name: " ".join(found) for name, found in lines.items()}
    return Grub(
        folder=words["folder"] if words["folder"] in places else "",
        programs=frozenset(lines["programs"]) & frozenset(PROGRAMS),
        grubenv=words["grubenv"] == "yes",
        abstraction=words["abstraction"].strip(),
        fs=words["fs"].strip(),
        reads=frozenset(lines["reads"]) & {"next_entry", "custom.cfg"},
        custom=words["custom"].removeprefix(":") if lines["custom"] else None,
        next_entry=words["next"].removeprefix("next_entry="),
    )


def problems(seen: Grub) -> tuple[str, ...]:
    """All that speaks against a boot by this GRUB, in words, and what to do about it."""
    return tuple(printable(words) for words in _problems(seen))


def findings(seen: Grub) -> tuple[Finding, ...]:
    """The same for `kvm-harness hosts check`."""
    if found := problems(seen):
        return tuple(Finding("missing", "GRUB", words) for words in found)
    return (Finding("ok", "GRUB", f"{seen.folder} on {seen.fs}, which it can write to"),)


def _problems(seen: Grub) -> Iterator[str]:
    if not seen.folder:
        yield f"no grub.cfg in {' or '.join(PLACES)}"
        return
    where, env = seen.folder, f"{seen.folder}/grubenv"
    absent = [f"{seen.prefix}-{one}" for one in PROGRAMS if one not in seen.programs]
    if absent:
        yield f"no {' '.join(absent)} on PATH"
        return
    if not seen.grubenv:
        yield f"{env} is no file of its own; make one with {seen.editenv} create"
    if seen.abstraction or seen.fs not in WRITABLE:
        on = seen.abstraction or seen.fs or "what it does not know"
        yield (
            f"GRUB cannot write {env} on {on}, so an entry that is chosen once stays chosen; "
            "have /boot on a plain partition with ext4 or XFS, or use `boot: kexec`"
        )
    for name, who in (("next_entry", "00_header"), ("custom.cfg", "41_custom")):
        if name not in seen.reads:
            yield f"{where}/grub.cfg does not know {name}, as /etc/grub.d/{who} would have it"
    if seen.custom is not None and seen.custom != HEAD:
        yield (
            f"{where}/custom.cfg is there, and not the harness's; "
            "move its entries to /etc/grub.d/40_custom and update grub.cfg"
        )
    if seen.next_entry not in ("", NAME):
        yield f"the next start is to be that of somebody else: next_entry={seen.next_entry}"
