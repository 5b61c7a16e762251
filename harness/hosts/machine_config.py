# SPDX-License-Identifier: GPL-2.0-only
"""Read the configuration that a machine's own kernel has, and which modules it has loaded.

What comes is data of a stranger: bounded, and nothing but settings. What it says of the compiler
that made the machine's kernel is left out, and so are comments: they would make two
configurations of what is one.
"""

from __future__ import annotations

import re
import secrets

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.protocols import Shell
from harness.kernel.machine import MachineConfig
from harness.observe.errors import ObserveError, shown
from harness.observe.text import run_script, sections, whole_lines

MAX_CONFIG = 1 << 20  # characters; Debian's has a third of that
MAX_MODULES = 1 << 18
_VALUE = r'[ymn]|-?[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16}|"(?:[^"\\\x00-\x1f\x7f]|\\["\\])*"'
_SETTING = re.compile(
    rf"CONFIG_(?P<set>\w{{1,100}})=(?:{_VALUE})|# CONFIG_(?P<unset>\w{{1,100}}) is not set",
    re.ASCII,
)
# init/Kconfig: which compiler, linker and tools made a kernel. None of them has a prompt, so
# kconfig looks for itself whatever is said.
_TOOLS = re.compile(
    r"(?:GCC|CLANG|AS|LD|LLD|PAHOLE|RUSTC|RUSTC_LLVM)_VERSION"
    r"|(?:CC|RUSTC|BINDGEN)_VERSION_TEXT|(?:CC|LD|AS)_IS_\w+"
)
# fs/proc: name, size, users, who uses it, state, address, taint.
_MODULE = re.compile(r"([A-Za-z0-9_]{1,64}) [0-9]+ (?:[0-9]+|-) \S+ \w+ \S+(?: \(\w+\))?", re.ASCII)
_ARCH = "CONFIG_ARM64=y"
_SCRIPT = """\
part() {{ printf '%s %s\\n' {nonce} "$1"; }}
r=$(uname -r)
part from
if [ -r /proc/config.gz ]; then f=/proc/config.gz; else
	for f in "/boot/config-$r" "/lib/modules/$r/config" ""; do [ -r "$f" ] && break; done
fi
printf '%s\\n' "$f"
part config
case $f in
'') ;;
*.gz) zcat "$f" | head -c {most} ;;
*) head -c {most} "$f" ;;
esac
part modules
[ ! -e /proc/modules ] || head -c {most} /proc/modules
part end
"""


def read(shell: Shell, *, trim: bool, deadline: Deadline | None = None) -> MachineConfig:
    """The configuration of the kernel that runs, which should be the machine's known-good one.

    With `trim` it comes with the modules that are loaded, for a kernel that has no others.
    InfraError if the machine has no configuration to be read, or what it has is none.
    """
    nonce = secrets.token_hex(16)
    # One more than is allowed, so that what is cut off is seen.
    script = _SCRIPT.format(nonce=nonce, most=MAX_CONFIG + 1)
    return parse(run_script(shell, script, deadline), nonce, trim=trim)


def parse(text: str, nonce: str, *, trim: bool) -> MachineConfig:
    """What the script printed; ObserveError or InfraError for what cannot be used."""
    source = "the host's answer for its configuration"
    parts = dict(sections(text, nonce, source))
    if list(parts) != ["from", "config", "modules"]:
        raise ObserveError(source, 0, "other parts than were asked for")
    where = parts["from"].rstrip("\n")
    if not where:
        raise InfraError(
            "the machine has no configuration of its kernel to be read, neither /proc/config.gz, "
            "nor /boot/config-RELEASE, nor /lib/modules/RELEASE/config"
        )
    config = normalised(parts["config"], f"the host's {shown(where)}")
    return MachineConfig(config, loaded(parts["modules"]) if trim else None)


def normalised(text: str, source: str) -> str:
    """The settings of a .config, one a line, in their order.

    ObserveError names `source` and line of what is neither setting, comment nor empty, and of a
    symbol that is set twice; InfraError if it is not that of an arm64 kernel.
    """
    kept: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(whole_lines(text, source, MAX_CONFIG), 1):
        found = _SETTING.fullmatch(line)
        if found is None:
            if line.startswith("#") or not line:
                continue
            raise ObserveError(source, number, f"neither a setting nor a comment: {shown(line)}")
        symbol = found["set"] or found["unset"]
        if symbol in seen:
            raise ObserveError(source, number, f"CONFIG_{symbol} is there a second time")
        seen.add(symbol)
        if not _TOOLS.fullmatch(symbol):
            kept.append(line)
    if _ARCH not in kept:
        raise InfraError(f"{source} is no configuration of an arm64 kernel: it lacks {_ARCH}")
    return "\n".join(kept) + "\n"


def loaded(text: str) -> tuple[str, ...]:
    """The names in a text of /proc/modules, sorted; ObserveError names what is wrong."""
    source = "the host's /proc/modules"
    names: set[str] = set()
    for number, line in enumerate(whole_lines(text, source, MAX_MODULES), 1):
        found = _MODULE.fullmatch(line.rstrip())
        if found is None:
            raise ObserveError(source, number, f"not a module: {shown(line)}")
        names.add(found[1])
    return tuple(sorted(names))
