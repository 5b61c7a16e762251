# SPDX-License-Identifier: GPL-2.0-only
"""Run as checks on a machine of the lab: troubles that begin while a check is at work."""

from __future__ import annotations

import os
import time
from pathlib import Path

from fault_scripts import reboot_by

from harness.checks.claim import Claim
from harness.hosts.protocols import Shell
from harness.observe.collect import snapshot

# Of fault_scene.py: what a check asks for happens outside of it.
FOLDER = Path(os.environ.get("FAULTS_FOLDER", "."))
STRUCK_SECONDS = 60.0
# In the place of a file that is read after each check as evidence (and not by dropbear at a login,
# as /proc/vmstat is). It is read when `then` happens.
EVIDENCE = "/sys/kernel/mm/lru_gen/enabled"
AS_EVIDENCE_IS_READ = f"""\
mkfifo /tmp/fifo && mount --bind /tmp/fifo {EVIDENCE}
( exec 3> /tmp/fifo; {{then}} ) > /dev/null 2>&1 &"""


def ask_for(what: str) -> None:
    """Wait until what was asked for has happened."""
    with (FOLDER / "asked").open("a") as file:
        file.write(f"please {what}\n")
    deadline = time.monotonic() + STRUCK_SECONDS
    while not (FOLDER / "struck").exists():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_before(shell: Shell, claim: Claim) -> None:
    """A result that is there before the trouble begins."""
    claim.observe(shell.run("uname -r").stdout.strip())


# ---- check --------------------------------------------------------------------------------------


def test_ssh_dies(shell: Shell) -> None:
    """The server's process for this connection is gone, the server is not."""
    shell.run("kill -KILL $PPID")


def test_panic(shell: Shell) -> None:
    """The kernel panics."""
    shell.run("echo c > /proc/sysrq-trigger")


def test_restart(shell: Shell) -> None:
    """The machine starts again, without a word."""
    shell.run("echo b > /proc/sysrq-trigger")


def test_stands_still(shell: Shell) -> None:
    """Its CPUs execute nothing any more."""
    ask_for("stand still")
    shell.run("true")


def test_no_network(shell: Shell) -> None:
    """Its network card is down, and the kernel lives on."""
    shell.run("ifconfig eth0 down")
    shell.run("true")


def test_transfer(shell: Shell) -> None:
    """A file is copied to it."""
    ask_for("transfer")
    big = FOLDER / "big"
    big.write_bytes(os.urandom(4 << 20))
    shell.put(big, "/tmp/big")


def test_silence(shell: Shell) -> None:
    """The network carries nothing any more."""
    ask_for("silence")
    shell.run("true")


def test_short_silence(shell: Shell, claim: Claim) -> None:
    """The network carries nothing for some seconds, and then what was held back."""
    ask_for("silence")
    claim.observe(shell.run("uname -r").stdout.strip())


def test_disk_full(shell: Shell) -> None:
    """There is no room for a file."""
    shell.run("mount -o remount,size=64k /tmp")
    big = FOLDER / "big"
    big.write_bytes(bytes(1 << 20))
    shell.put(big, "/tmp/big")


def test_lease(shell: Shell, claim: Claim) -> None:
    """Somebody takes the machine."""
    ask_for("take it")
    claim.observe("taken")


def test_nonsense(shell: Shell) -> None:
    """An answer makes no sense."""
    shell.run("echo banana > /tmp/x; mount --bind /tmp/x /proc/meminfo")
    try:
        snapshot(shell)
    finally:
        shell.run("umount /proc/meminfo")


def test_clock(shell: Shell, claim: Claim) -> None:
    """The wall clock jumps by decades, and back."""
    shell.run("date -s @4000000000")
    shell.run("true")
    shell.run("date -s @86400")
    claim.observe(shell.run("date +%s").stdout.strip())


def test_wait(shell: Shell, claim: Claim) -> None:
    """Something happens to the run meanwhile."""
    again = (FOLDER / "struck").exists()
    ask_for("now")
    for _ in range(1 if again else 100):
        shell.run("true")
        time.sleep(0.5)
    claim.observe("nothing")


def test_console(shell: Shell) -> None:
    """The console is gone, for longer than a management controller takes to start again."""
    (FOLDER / "no-console").touch()
    for_a_while(shell)


def test_console_still(shell: Shell) -> None:
    """As well."""
    for_a_while(shell)


def for_a_while(shell: Shell) -> None:
    """Shorter than a check may take."""
    end = time.monotonic() + 90
    while time.monotonic() < end:
        shell.run("true")
        time.sleep(1)


# ---- evidence is collected ----------------------------------------------------------------------


def as_evidence_is_read(shell: Shell, claim: Claim, then: str) -> None:
    """Have the host do something once a file of the evidence is read after the check."""
    shell.run(AS_EVIDENCE_IS_READ.format(then=then))
    claim.observe("asked for")


def before_evidence_comes(shell: Shell, claim: Claim, what: str) -> None:
    """As it, and the evidence comes all the same, a little later."""
    as_evidence_is_read(shell, claim, f"umount -l {EVIDENCE}; {what}; cat {EVIDENCE} >&3")


def test_collect_panic(shell: Shell, claim: Claim) -> None:
    """The kernel panics while evidence is collected."""
    as_evidence_is_read(shell, claim, "echo c > /proc/sysrq-trigger")


def test_collect_restart(shell: Shell, claim: Claim) -> None:
    """The machine starts again."""
    as_evidence_is_read(shell, claim, "echo b > /proc/sysrq-trigger")


def test_collect_ssh(shell: Shell, claim: Claim) -> None:
    """The server's process for this connection is gone."""
    as_evidence_is_read(shell, claim, f"umount -l {EVIDENCE}; kill -KILL $PPID")


def test_collect_cut(shell: Shell, claim: Claim) -> None:
    """The network is cut."""
    as_evidence_is_read(shell, claim, f"umount -l {EVIDENCE}; echo please cut > /dev/kmsg; sleep 5")


def test_collect_nothing(shell: Shell, claim: Claim) -> None:
    """The evidence never comes."""
    as_evidence_is_read(shell, claim, "sleep 1000")


def test_collect_nonsense(shell: Shell, claim: Claim) -> None:
    """What comes is none."""
    shell.run("echo banana > /tmp/x; mount --bind /tmp/x /proc/vmstat")
    claim.observe("asked for")


def test_collect_still(shell: Shell, claim: Claim) -> None:
    """Its CPUs execute nothing any more."""
    as_evidence_is_read(shell, claim, "echo please stand still > /dev/kmsg; sleep 5")


def test_collect_full(shell: Shell, claim: Claim) -> None:
    """The disk is full, and evidence needs no room on it."""
    before_evidence_comes(shell, claim, "mount -o remount,size=64m /var; cat /dev/zero > /var/full")


def test_collect_console(shell: Shell, claim: Claim) -> None:
    """The console is gone, and stays so."""
    before_evidence_comes(shell, claim, "echo please let it go > /dev/kmsg; sleep 5")


def test_collect_lease(shell: Shell, claim: Claim) -> None:
    """Somebody takes the machine."""
    before_evidence_comes(shell, claim, "echo please take it > /dev/kmsg; sleep 5")


def test_collect_clock(shell: Shell, claim: Claim) -> None:
    """The wall clock jumps by decades, and back."""
    before_evidence_comes(shell, claim, "date -s @4000000000; sleep 1; date -s @86400")


# ---- on the way home ----------------------------------------------------------------------------


def test_reboot_does_nothing(shell: Shell, claim: Claim) -> None:
    """Its program for that is broken."""
    shell.run(reboot_by(":"))
    claim.observe("broken")


def test_reboot_panics(shell: Shell, claim: Claim) -> None:
    """The kernel panics on its way down."""
    shell.run(reboot_by("echo c > /proc/sysrq-trigger"))
    claim.observe("broken")


def test_zz_after(shell: Shell, claim: Claim) -> None:
    """What still runs after the trouble."""
    claim.observe(shell.run("uname -r").stdout.strip())
