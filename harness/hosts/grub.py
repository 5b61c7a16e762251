# SPDX-License-Identifier: GPL-2.0-only
"""Boot a kernel once by GRUB: what is put on the machine for it, and removed again.

All of it stands beside grub.cfg: custom.cfg, which /etc/grub.d/41_custom has grub.cfg read, and a
folder with the kernel. The default, grub.cfg and /etc/default/grub are not touched. The name of the
entry is in grubenv from just before the restart until GRUB takes it out, and then the machine's
next start of whatever kind is its default's again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts.grub_look import HEAD, NAME, PATH, PLACES, Grub, look, problems
from harness.hosts.machine import Machine, Running
from harness.hosts.protocols import Shell
from harness.hosts.recovery import bring_back
from harness.hosts.route import CONTACT_SECONDS
from harness.hosts.tenancy import Tenancy
from harness.observe.text import run_script

# Set before a start, and empty after it if GRUB reads custom.cfg and can write grubenv.
REHEARSAL = "kvm_harness_rehearsal"
# Of a copy from one folder of the machine to another.
COPY_SECONDS = 120.0
# Bytes to leave free where the kernel goes.
SPARE = 16 << 20

# An arm64 Image with an EFI stub, the only kind that GRUB starts there, begins as a PE file does
# (Documentation/arch/arm64/booting.rst).
_STUB = b"MZ"

REHEARSAL_CFG = f"""\
{HEAD}
if [ "${{{REHEARSAL}}}" ]; then
  set {REHEARSAL}=
  save_env {REHEARSAL}
fi
"""

# A name that is chosen for nobody's next start is no part of what a machine was before.
_CLEAR = r"""
PATH=$PATH:/usr/sbin:/sbin
for d in PLACES; do
	g=${d##*/}; env=$d/grubenv
	[ -d "$d" ] || continue
	if [ -f "$env" ] && command -v "$g-editenv" > /dev/null; then
		"$g-editenv" "$env" list | grep -qx 'next_entry=\(NAME\)\{0,1\}' &&
			"$g-editenv" "$env" unset next_entry
		"$g-editenv" "$env" list | grep -q '^REHEARSAL=' &&
			"$g-editenv" "$env" unset REHEARSAL
	fi
	head -n 1 "$d/custom.cfg" 2>/dev/null | grep -qxF 'HEAD' && rm -f "$d/custom.cfg"
	rm -rf "$d/NAME"
done
"""


def entry(cmdline: str, *, initrd: bool) -> str:
    """custom.cfg with the entry of a kernel; ValueError for words that GRUB would change.

    It hands a quote or a backslash on with a backslash before it, which Linux does not take off
    (grub-core/lib/cmdline.c). If the kernel is not there or not to GRUB's liking, the machine
    starts again, into its default: a menu would wait for somebody to come.
    """
    if set(cmdline) & set("\"'\\\n"):
        raise ValueError(f"GRUB cannot hand on quotes and backslashes: {cmdline}")
    words = " ".join(shlex.quote(word) for word in cmdline.split())
    start = "boot"
    if initrd:
        start = 'if initrd "${kvm_harness}/initrd"; then boot; fi'
    return f"""\
{HEAD}
if [ -n "${{config_directory}}" ]; then
  set kvm_harness="${{config_directory}}/{NAME}"
else
  set kvm_harness="${{prefix}}/{NAME}"
fi
menuentry '{NAME}: a kernel under test, once' --unrestricted --id {NAME} {{
  if linux "${{kvm_harness}}/Image" {words}; then
    {start}
  fi
  reboot
}}
"""


def require_stub(kernel: Path) -> None:
    """InfraError for an Image that GRUB does not start."""
    with kernel.open("rb") as file:
        if file.read(len(_STUB)) != _STUB:
            raise InfraError(
                "the kernel has no EFI stub, and GRUB starts no other on arm64: "
                "CONFIG_EFI=y in `fragments`"
            )


def load(shell: Shell, ours: Tenancy, kernel: Path, initrd: str | None, cmdline: str) -> Grub:
    """Put the kernel and its entry where GRUB finds them; LeaseLost if it is another's by then.

    `initrd` is a file of the machine's. Returns what GRUB it has. Until choose() the next start is
    still the default's.
    """
    require_stub(kernel)
    seen = _fit(shell)
    try:
        text = entry(cmdline, initrd=initrd is not None)
    except ValueError as exc:
        raise InfraError(str(exc)) from exc
    place = f"{seen.folder}/{NAME}"
    _require_space(shell, seen.folder, kernel.stat().st_size, initrd)
    shell.run(f"mkdir -p {place}")
    shell.put(kernel, f"{place}/Image")
    if initrd is not None:
        shell.run(f"cp -L {shlex.quote(initrd)} {place}/initrd", Deadline(COPY_SECONDS))
    _custom(shell, seen, text)
    # The copies may have taken minutes.
    ours.check()
    run_script(shell, "sync", Deadline(COPY_SECONDS))
    return seen


def choose(shell: Shell, seen: Grub) -> None:
    """Have the machine's next start be that of the entry: the last thing before the reboot."""
    run_script(
        shell,
        f"{PATH}{seen.prefix}-reboot {NAME}\n{seen.editenv} list | grep -qx next_entry={NAME}",
        Deadline(COPY_SECONDS),
    )


def require_taken(shell: Shell, chosen: Grub) -> None:
    """InfraError unless GRUB has forgotten the entry by which the machine was started just now.

    `chosen` is what load() returned: a kernel that has not mounted /boot shows nothing of it.
    """
    seen = look(shell)
    if seen.folder != chosen.folder:
        raise InfraError(
            f"{chosen.folder} is not there in the kernel of the cell: is /boot mounted?"
        )
    if seen.next_entry == NAME:
        clear(shell)
        raise InfraError(
            "GRUB started the entry and left it chosen for the next start as well: "
            "it does not write grubenv on this machine"
        )


def clear(shell: Shell) -> None:
    """Remove all that load() and rehearse() put on a machine, whichever run it was."""
    run_script(shell, clear_script(), Deadline(COPY_SECONDS))


def clear_script(places: Collection[str] = PLACES) -> str:
    """What clear() runs on the machine; it ends well if there is nothing to remove."""
    words = {"PLACES": " ".join(places), "NAME": NAME, "REHEARSAL": REHEARSAL, "HEAD": HEAD}
    return re.sub("|".join(words), lambda found: words[found[0]], _CLEAR)


def rehearse(machine: Machine, ours: Tenancy, good: Running) -> Running:
    """Show with the machine's own kernel that GRUB reads custom.cfg and writes grubenv.

    Returns the boot that the machine is in then; InfraError if GRUB did not do as it was told.
    """
    with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
        ours.check()
        seen = _fit(shell)
        _custom(shell, seen, REHEARSAL_CFG)
        env = f"{PATH}{seen.editenv}"
        run_script(shell, f"{env} set {REHEARSAL}=1\nsync", Deadline(COPY_SECONDS))
    # In order, so that its file system is whole: GRUB reads no journal.
    back = bring_back(machine, ours, good, answers=True)
    with machine.shell(Deadline(CONTACT_SECONDS)) as shell:
        ours.check()
        now = run_script(shell, f"{env} list", None).splitlines()
        clear(shell)
    if f"{REHEARSAL}=1" in now:
        raise InfraError(
            f"GRUB on {machine.name} did not do what {seen.folder}/custom.cfg told it: "
            "it does not read that file, or does not write grubenv"
        )
    machine.say("GRUB reads custom.cfg and writes grubenv")
    return back


def _fit(shell: Shell) -> Grub:
    """What GRUB the machine has, if it will do."""
    seen = look(shell)
    if found := problems(seen):
        raise InfraError(f"no boot by GRUB: {'; '.join(found)}")
    return seen


def _custom(shell: Shell, seen: Grub, text: str) -> None:
    """Put a custom.cfg in its place, whole."""
    place = f"{seen.folder}/{NAME}"
    shell.run(f"mkdir -p {place}")
    shell.write(f"{place}/custom.cfg", text)
    shell.run(f"mv {place}/custom.cfg {seen.folder}/custom.cfg")


def _require_space(shell: Shell, folder: str, size: int, initrd: str | None) -> None:
    """InfraError if the copies would not leave something free on the machine's /boot."""
    more = f"$(stat -L -c %s {shlex.quote(initrd)})" if initrd is not None else "0"
    run_script(
        shell,
        f"free=$(($(stat -f -c '%a * %S' {folder})))\n"
        f"need=$(({size + SPARE} + {more}))\n"
        f'[ "$free" -ge "$need" ] || {{ echo "{folder} has $free bytes free, $need needed" >&2\n'
        "false; }",
        None,
    )
