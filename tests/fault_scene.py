# SPDX-License-Identifier: GPL-2.0-only
"""A run on a machine of the lab to which something happens at a chosen moment."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from command import RUN_SECONDS, Ended, argv, environment
from lab_bed import Lab
from lab_power import ask
from lab_proxy import Proxy

from harness.deadline import Deadline
from harness.errors import InfraError
from harness.hosts import cpio, pins
from harness.hosts.image import UP
from harness.hosts.leasing import MACHINE, take
from harness.hosts.machine import Machine, Running, running
from harness.hosts.ssh import SshShell
from harness.paths import PROJECT

POLL = 0.1
REACH_SECONDS = 90.0
# Told to checks, which run in processes of the run (faults_on_host.py).
FOLDER = "FAULTS_FOLDER"


@dataclass(frozen=True)
class Strike:
    """What happens once the run has come so far."""

    when: str
    """A pattern that is searched in what the cell's diary, its checks and the console say."""
    do: Callable[[Scene], None]
    connecting: bool = False
    """Not at once, but before the next connection gets to the machine."""


@dataclass
class Scene:
    """One run, with all that may be done to the machine, to the network and to the run itself."""

    machine: Lab
    proxy: Proxy
    folder: Path
    """Of this case alone: state of the user, inventory, notes of the checks."""
    other: Path
    """An image of another kernel than the machine's own."""
    strikes: Sequence[Strike] = ()
    process: subprocess.Popen[str] | None = None
    killed: bool = False
    clean: bool = False
    """Whether the machine can be given to the next without a reset."""
    trouble: list[BaseException] = field(default_factory=list)
    """What went wrong in a strike itself."""

    def __post_init__(self) -> None:
        self._waiting = list(self.strikes)
        self._lock = threading.Lock()
        self._from = self.machine.console.stat().st_size

    # ---- the machine ------------------------------------------------------------------------

    def reached(self) -> Machine:
        """The machine, past the proxy."""
        return Machine("lab", self.machine.host, self.machine.pins)

    def sh(self, script: str) -> str:
        """Run on the machine past the proxy, once it answers."""
        with self.up() as (shell, _):
            return shell.run(script).stdout

    @contextlib.contextmanager
    def up(self) -> Iterator[tuple[SshShell, Running]]:
        """A shell past the proxy once the machine answers, whatever it runs."""
        with self.reached().booted(lambda _: True, Deadline(REACH_SECONDS)) as found:
            yield found

    def now(self) -> Running:
        with self.up() as (shell, _):
            return running(shell)

    def in_its_own_kernel(self) -> bool:
        """Whether it answers, and that is no kernel of a cell."""
        try:
            return not self.now().cell
        except InfraError:
            # On its way down it takes a login and ends it.
            return False

    def reset(self) -> None:
        """By the power switch, into its own kernel."""
        self._from = self.machine.console.stat().st_size
        self.machine.power("reset")
        wait_for(lambda: UP in self._shown())

    def stop(self) -> None:
        """All of its CPUs stand still."""
        ask(str(self.machine.monitor), "stop")

    def add_to_initrd(self, files: dict[str, bytes]) -> None:
        """More files for the user space of each kernel that is started from now on."""
        more = self.folder / "more.cpio"
        entries = [cpio.file(path, body, 0o755) for path, body in files.items()]
        more.write_bytes(cpio.archive(entries))
        with self.up() as (shell, _):
            shell.put(more, "/tmp/more")
            shell.run(
                "size=$(stat -c %s /boot/initrd); head -c $(((4 - size % 4) % 4)) /dev/zero "
                ">> /boot/initrd && cat /tmp/more >> /boot/initrd"
            )

    def steal_lease(self) -> None:
        """Somebody removes the lease by hand and takes the machine."""
        with self.up() as (shell, _):
            shell.run(f"rm -rf {MACHINE.folder}")
            take(shell, "another-run")

    def let_time_pass(self) -> None:
        """Show the machine an uptime at which each lease of a dead holder has run out."""
        self.sh("echo 99999.00 1.00 > /tmp/up && mount --bind /tmp/up /proc/uptime")

    # ---- the run ----------------------------------------------------------------------------

    def kill(self) -> None:
        """The controller is gone, without a word."""
        assert self.process is not None
        self.killed = True
        os.kill(self.process.pid, signal.SIGKILL)

    def run(self, args: Sequence[str], **extra: str) -> Ended:
        """`kvm-harness ARGS` to its end, while the strikes wait for their moment."""
        self.proxy.connecting = lambda: self._look(connecting=True)
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        with subprocess.Popen(
            argv(*args),
            # Checks of these cases import from here.
            env=environment(
                self.folder,
                PYTHONPATH=f"{PROJECT}:{PROJECT}/tests",
                **{FOLDER: str(self.folder)},
                **extra,
            ),
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self.process = process
            thread.start()
            try:
                stdout, stderr = process.communicate(timeout=RUN_SECONDS)
            finally:
                process.kill()
                stop.set()
                thread.join()
        print(stdout, stderr, self.diary())
        return Ended(process.returncode, stdout, stderr)

    def diary(self) -> str:
        """What the newest cell wrote of what it did to the machine."""
        found = self.folder.glob("kvm-harness/runs/*/cells/*/machine.txt")
        return "".join(path.read_text() for path in sorted(found, key=_age)[-1:])

    def _said(self) -> str:
        asked = self.folder / "asked"
        words = asked.read_text() if asked.exists() else ""
        return f"{self.diary()}\n{words}\n{self._shown()}"

    def _shown(self) -> str:
        with self.machine.console.open("rb") as log:
            log.seek(self._from)
            return log.read().decode(errors="replace")

    def _watch(self, stop: threading.Event) -> None:
        while not stop.wait(POLL):
            self._look(connecting=False)

    def _look(self, *, connecting: bool) -> None:
        with self._lock:
            due = [one for one in self._waiting if one.connecting == connecting]
            said = self._said() if due else ""
            now = [each for each in due if re.search(each.when, said)]
            # A connection is for one of them.
            for one in now[:1] if connecting else now:
                self._waiting.remove(one)
                try:
                    one.do(self)
                except BaseException as exc:
                    self.trouble.append(exc)
                (self.folder / "struck").touch()

    def assert_struck(self) -> None:
        assert not self.trouble, self.trouble
        assert not self._waiting, [one.when for one in self._waiting]

    # ---- what a user has --------------------------------------------------------------------

    def inventory(self, edit: Callable[[str], str]) -> Path:
        """The lab's inventory, by way of the proxy, whose key is pinned as well."""
        own = f"port: {self.machine.host.port}\n"
        text = self.machine.inventory.read_text()
        assert own in text
        path = self.folder / "inventory.yaml"
        path.write_text(edit(text.replace(own, f"port: {self.proxy.port}\n")))
        key = pins.to_key(self.machine.host_key)
        assert key is not None
        host = self.machine.host.model_copy(update={"port": self.proxy.port})
        pins.pin(self.folder / "kvm-harness/known_hosts", pins.pin_name([host]), key)
        return path


def _age(path: Path) -> float:
    return path.stat().st_mtime


def wait_for(what: Callable[[], object], seconds: float = REACH_SECONDS) -> None:
    """Until it is so; AssertionError if it does not come."""
    deadline = Deadline(seconds)
    while not what():
        assert not deadline.expired(), "it did not come"
        time.sleep(POLL)
