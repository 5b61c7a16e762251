# SPDX-License-Identifier: GPL-2.0-only
"""What may go wrong with a machine of the lab, at which stage, and what must come of it."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fault_scene import Scene, Strike, wait_for
from fault_scripts import INTO_OTHER, reboot_by
from hosts_helpers import Server, make_key
from lab_bed import MORE_INIT, WATCHDOG
from test_integration_deaths import AGE

from harness.hosts import pins
from harness.hosts.image import INIT, dropbear_private
from harness.hosts.kexec import IMAGE
from harness.hosts.leasing import take
from harness.hosts.places import PROGRAMS

Edit = Callable[[str], str]
Verdict = Literal["error", "fail", "pass", "killed"]
Lease = Literal["free", "another's", "runs out", "damaged"]
STAGES = ("look", "health", "rehearsal", "deploy", "boot", "check", "collect", "home")


@dataclass(frozen=True)
class Fault:
    """What goes wrong, and what must be told of it."""

    stage: str
    name: str
    words: str = ""
    """A pattern that the reason, or the error that ended the run, matches; of a run that passes,
    the cell's diary."""
    verdict: Verdict = "error"
    sabotage: str = ""
    """A script that is run on the machine before the run."""
    setup: Callable[[Scene], None] | None = None
    """Done before the run as well."""
    strikes: tuple[Strike, ...] = ()
    edit: Edit = str
    """What becomes of the inventory."""
    check: str = "test_before"
    """Which checks of faults_on_host.py run (pytest -k)."""
    patch: str = ""
    """A statement that a patch puts into what ages pages, with the harness's own check for it."""
    death: str | None = None
    aside: bool = False
    """The machine must be set aside."""
    same_boot: bool = False
    """Nothing may have started it again."""
    home: bool = True
    """Whether the run brings the machine home; else nobody could, or it is another's by then."""
    lease: Lease = "free"
    """How the machine's lease is at the end; it runs out by itself where nobody could end it."""
    passes: tuple[str, ...] = ()
    """Checks that must have passed all the same."""
    diary: str = ""
    """A pattern that the cell's diary must match besides."""
    resume: bool = False
    """Whether the run that was killed goes on, instead of a new one."""

    def __str__(self) -> str:
        return f"{self.stage}: {self.name}"


# ---- what is done to the inventory --------------------------------------------------------------


def with_key(line: str) -> Edit:
    return lambda text: f"{text}    {line}\n"


def power(reset: str) -> Edit:
    return lambda text: re.sub(r'("reset": )\[.*\]', rf"\1{reset}", text)


def console(command: str) -> Edit:
    return lambda text: re.sub(r"(    console: )\[.*\]", rf"\1{command}", text)


def no_power(text: str) -> str:
    return re.sub(r"    power:\n( {6}.*\n)+", "", text)


def short_boot(text: str) -> str:
    """A wait that is known to be vain."""
    return text.replace("boot_seconds: 120", "boot_seconds: 25")


def short_way_back(text: str) -> str:
    """As well."""
    return text.replace("back_seconds: 120", "back_seconds: 30")


def both(first: Edit, then: Edit) -> Edit:
    return lambda text: then(first(text))


def as_admin(text: str) -> str:
    """A login that becomes root by sudo."""
    return with_key("user: admin")(text)


def until_told(text: str) -> str:
    """A console that is there until a file says that it is gone."""
    found = re.search(r"    console: \[.* (/[^]]*)\]", text)
    assert found is not None
    gone = "$FAULTS_FOLDER/no-console"
    script = (
        f"[ ! -e {gone} ] || exit 1; tail -n 0 -F {found[1]} & "
        f"while [ ! -e {gone} ]; do sleep 0.2; done; kill $!; exit 1"
    )
    return console(f"[sh, -c, '{script}']")(text)


# ---- what is done to the machine and to the network ---------------------------------------------

# Stands before kexec and does something else instead of jumping ...
INSTEAD = """\
mv /sbin/kexec /sbin/kexec.real
printf '%s\\n' '#!/bin/sh' '[ "$1" != -e ] || {{ {what}; exit; }}' \
	'exec /sbin/kexec.real "$@"' > /sbin/kexec
chmod 755 /sbin/kexec"""
# ... or before it takes a kernel ($3), that is, before it is loaded.
BEFORE_LOADING = """\
mv /sbin/kexec /sbin/kexec.real
printf '%s\\n' '#!/bin/sh' '[ "$2" != -l ] || {{ {what}; }}' \
	'exec /sbin/kexec.real "$@"' > /sbin/kexec
chmod 755 /sbin/kexec"""
# The second instruction of an arm64 Image (Documentation/arch/arm64/booting.rst) becomes `b .`.
DEAD = "echo AAAAFA== | base64 -d | dd of=$3 bs=4 seek=1 conv=notrunc"
# A login that is not root's.
USER = """\
echo 'user:x:1000:1000:user:/home/user:/bin/sh' >> /etc/passwd
mkdir -p /home/user && cp -r ~/.ssh /home/user && chown -R 1000:1000 /home/user"""
# A root by another name, and a sudo that gives what its caller has already.
ADMIN = """\
echo 'admin:x:0:0:root:/root:/bin/sh' >> /etc/passwd
printf '%s\\n' '#!/bin/sh' 'while [ "${1#-}" != "$1" ]; do shift; done' 'exec "$@"' > /usr/bin/sudo
chmod 755 /usr/bin/sudo"""
NO_SUDO = """\
printf '%s\\n' '#!/bin/sh' 'echo "sudo: a password is required" >&2; exit 1' > /usr/bin/sudo
chmod 755 /usr/bin/sudo"""
# Comes up to its end, and nobody hears of it.
NO_NETWORK = "initcall_blacklist=virtio_net_driver_init"
BANANA = "echo banana > /tmp/x; mount --bind /tmp/x {path}"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
HOME_AGAIN = r"the cell ended[\s\S]*runs Linux"


def script(words: str) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        scene.sh(words)

    return do


def there(words: str) -> Callable[[Scene], None]:
    """Run by the first process of the kernels that are tested, and of no other."""

    def do(scene: Scene) -> None:
        text = INIT.read_text()
        at = "# Only the key"
        more = f"{MORE_INIT}\n{words}\n{at}"
        scene.add_to_initrd({"init": text.replace(at, more).encode()})

    return do


def other_key_there(scene: Scene) -> None:
    key = dropbear_private(Ed25519PrivateKey.generate())
    scene.add_to_initrd({"etc/dropbear/host_key": key})


def other_key(scene: Scene) -> None:
    """What is pinned is another's."""
    path = scene.folder / "kvm-harness/known_hosts"
    (name,) = pins.load(path)
    path.write_text(f"{name} {pins.text_of(make_key(scene.folder / 'other'))}\n")


def put_other(scene: Scene) -> None:
    """Another kernel lies on the machine."""
    with scene.up() as (shell, _):
        shell.put(scene.other, "/tmp/other")


def held_by_another(scene: Scene) -> None:
    with scene.up() as (shell, _):
        take(shell, "another-run")


def refuse(scene: Scene) -> None:
    """The network is cut, and stays so."""
    scene.proxy.refusing = True
    scene.proxy.cut()


def silence(scene: Scene) -> None:
    scene.proxy.silent = True


def silence_of(seconds: float) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        scene.proxy.silent = True
        threading.Timer(seconds, scene.proxy.heal).start()

    return do


def refuse_for(seconds: float) -> Callable[[Scene], None]:
    def do(scene: Scene) -> None:
        refuse(scene)
        threading.Timer(seconds, scene.proxy.heal).start()

    return do


def heal(scene: Scene) -> None:
    scene.proxy.heal()


def cut(scene: Scene) -> None:
    scene.proxy.cut()


def cut_after(size: int) -> Callable[[Scene], None]:
    """In mid-transfer."""

    def do(scene: Scene) -> None:
        scene.proxy.left = size

    return do


def no_console(scene: Scene) -> None:
    (scene.folder / "no-console").touch()


def babbler(scene: Scene) -> None:
    """What answers at its address speaks no SSH."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            end, _ = server.accept()
            with end:
                end.sendall(b"220 banana ESMTP ready\r\n" * 100)
                time.sleep(0.2)

    threading.Thread(target=serve, daemon=True).start()
    scene.proxy.target = server.getsockname()[1]


def another_machine(scene: Scene) -> None:
    """At its address answers a machine with another host key."""
    folder = scene.folder / "another"
    folder.mkdir()
    scene.proxy.target = int(Server(folder).address.port)
    scene.proxy.cut()


def kill(scene: Scene) -> None:
    scene.kill()


def kill_and_let_time_pass(scene: Scene) -> None:
    scene.kill()
    scene.let_time_pass()


def steal(scene: Scene) -> None:
    scene.steal_lease()


def once_home(do: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def wait(scene: Scene) -> None:
        wait_for(lambda: not scene.now().cell)
        do(scene)

    return wait


def nothing_yet(scene: Scene) -> None:
    pass


def stand_still(scene: Scene) -> None:
    scene.stop()


# ---- look: before anything is done to the machine -----------------------------------------------

LOOK = (
    Fault(
        "look",
        "another's lease",
        "is in use: .* for the run another-run",
        setup=held_by_another,
        same_boot=True,
        lease="another's",
    ),
    Fault(
        "look",
        "lease that cannot be read",
        r"has a lease that cannot be read .*remove /var/lib/kvm-harness/lease",
        sabotage="mkdir -p /var/lib/kvm-harness/lease; "
        "echo banana > /var/lib/kvm-harness/lease/lease.000000000001",
        same_boot=True,
        lease="damaged",
    ),
    Fault(
        "look",
        "changed host key",
        "shows the host key .*pinned is",
        setup=other_key,
        same_boot=True,
    ),
    Fault(
        "look",
        "login refused",
        "refused the key",
        sabotage="echo > ~/.ssh/authorized_keys.new; cp ~/.ssh/authorized_keys /tmp/keys; "
        "mv ~/.ssh/authorized_keys.new ~/.ssh/authorized_keys; "
        "( sleep 20; cp /tmp/keys ~/.ssh/authorized_keys ) > /dev/null 2>&1 &",
        same_boot=True,
    ),
    Fault(
        "look",
        "sudo refused",
        "root: .*sudo: a password is required",
        sabotage=f"{USER}; {NO_SUDO}",
        edit=with_key("user: user"),
        same_boot=True,
    ),
    Fault(
        "look",
        "disk full",
        r"disk: \d+ MiB free, 1024 needed",
        sabotage="mount -o remount,size=64m /var",
        same_boot=True,
    ),
    Fault(
        "look",
        "wall clock jumped back",
        "clock: .* behind the controller",
        sabotage="date -s @86400",
        same_boot=True,
    ),
    Fault(
        "look",
        "wall clock jumped ahead",
        "clock: .* ahead of the controller",
        sabotage="date -s @4000000000",
        same_boot=True,
    ),
    Fault(
        "look",
        "no kexec",
        "kexec program: no kexec on PATH",
        sabotage="rm /sbin/kexec",
        same_boot=True,
    ),
    Fault(
        "look",
        "console shows nothing",
        "does not show what the kernel logs",
        edit=console("[sleep, '600']"),
        same_boot=True,
    ),
    Fault(
        "look",
        "console gone",
        "does not show what the kernel logs",
        edit=console("['false']"),
        same_boot=True,
    ),
    Fault(
        "look",
        "nonsense for an answer",
        "the host's answer to what it is.*longer than",
        sabotage="yes banana | head -c 400000 > /etc/os-release",
        same_boot=True,
    ),
    Fault(
        "look",
        "no SSH server, but another",
        "no SSH login to .* within",
        setup=babbler,
        same_boot=True,
    ),
    Fault("look", "network cut", "no SSH login to .* within 30 s", setup=refuse, same_boot=True),
)

# ---- health: the lease is ours, the machine in its own kernel -----------------------------------

HEALTH = (
    Fault(
        "health",
        "nonsense for an answer",
        "nonsense when asked for its health",
        sabotage=BANANA.format(path="/proc/sys/kernel/tainted"),
        same_boot=True,
    ),
    Fault(
        "health",
        "kernel is tainted by an oops",
        "kernel is tainted: kernel died recently",
        sabotage="echo 128 > /tmp/x; mount --bind /tmp/x /proc/sys/kernel/tainted",
        aside=True,
        same_boot=True,
    ),
    Fault(
        "health",
        "memory is short",
        r"it has \d+ MiB of memory left",
        sabotage="sed 's/^MemAvailable:.*/MemAvailable: 100000 kB/' /proc/meminfo > /tmp/x; "
        "mount --bind /tmp/x /proc/meminfo",
        aside=True,
        same_boot=True,
    ),
    Fault(
        "health",
        "sudo refused from now on",
        "sudo: a password is required",
        sabotage=ADMIN,
        edit=as_admin,
        strikes=(Strike("lease taken", script(NO_SUDO), connecting=True),),
        same_boot=True,
        # It takes root to give it back.
        lease="runs out",
    ),
    Fault(
        "health",
        "network cut",
        "no SSH login to .* within 30 s",
        strikes=(Strike("runs Linux", refuse, connecting=True),),
        same_boot=True,
        lease="runs out",
    ),
    Fault(
        "health",
        "controller killed",
        verdict="killed",
        strikes=(Strike("runs Linux", kill_and_let_time_pass, connecting=True),),
        same_boot=True,
    ),
)

# ---- rehearsal: the machine is started as a lost one is -----------------------------------------

REHEARSAL = (
    Fault(
        "rehearsal",
        "power switch fails",
        "did not come back .*reset: power reset of lab failed",
        edit=power("['false']"),
        aside=True,
        same_boot=True,
    ),
    Fault(
        "rehearsal",
        "power switch does nothing",
        "did not come back .*it is in the boot",
        edit=both(power("['true']"), short_way_back),
        aside=True,
        same_boot=True,
    ),
    Fault(
        "rehearsal",
        "no power switch, reboot does nothing",
        "did not come back .*reboot: .*it is in the boot .*no power switch",
        sabotage=reboot_by(":"),
        edit=both(no_power, short_way_back),
        aside=True,
        same_boot=True,
    ),
    Fault(
        "rehearsal",
        "another kernel comes up",
        "came back with .*another build",
        setup=put_other,
        sabotage=reboot_by(INTO_OTHER),
        edit=no_power,
        aside=True,
        home=False,
    ),
    Fault(
        "rehearsal",
        "network gone",
        "did not come back .*no SSH login",
        strikes=(Strike("reset ordered", refuse),),
        edit=short_way_back,
        aside=True,
    ),
    Fault(
        "rehearsal",
        "controller killed",
        verdict="killed",
        strikes=(Strike("reset ordered", kill),),
    ),
)

# ---- deploy: the kernel is copied and loaded ----------------------------------------------------

DEPLOY = (
    Fault(
        "deploy",
        "no such initramfs",
        "/nonesuch",
        edit=lambda text: text.replace("/boot/initrd", "/nonesuch"),
        same_boot=True,
    ),
    Fault(
        "deploy",
        "kexec fails",
        r"kexec -a -l .* exited 1",
        sabotage="printf '#!/bin/sh\\nexit 1\\n' > /sbin/kexec",
        same_boot=True,
    ),
    Fault(
        "deploy",
        "network cut in mid-transfer",
        "copying Image to the host failed: .*connection ended",
        strikes=(Strike("copying the kernel", cut_after(3 << 20)),),
        same_boot=True,
    ),
    Fault(
        "deploy",
        "disk full in mid-transfer",
        "No space left on device",
        strikes=(Strike("copying the kernel", script("mount -o remount,size=4m /var")),),
        same_boot=True,
        aside=True,
    ),
    Fault(
        "deploy",
        "kernel arrives damaged",
        "Image arrived damaged: SHA-256 ",
        # The second connection from then on is the one for the kernel.
        strikes=(
            Strike("runs Linux", nothing_yet, connecting=True),
            Strike(
                "runs Linux",
                script(f"mkdir -p {PROGRAMS}; ln -s /dev/null {IMAGE}.part"),
                connecting=True,
            ),
        ),
        same_boot=True,
    ),
    Fault(
        "deploy",
        "console gone",
        "no '[0-9a-f]{16}' within 15 s",
        edit=until_told,
        strikes=(Strike("lease taken", no_console),),
        same_boot=True,
    ),
    Fault(
        "deploy",
        "lease lost",
        "lease on the host is lost: .* for the run another-run",
        strikes=(Strike("copying the kernel", steal),),
        same_boot=True,
        lease="another's",
    ),
    Fault(
        "deploy",
        "controller killed",
        verdict="killed",
        # The only one where the lease is waited for, two minutes.
        strikes=(Strike("copying the kernel", kill),),
        same_boot=True,
    ),
)

# ---- boot: from the jump to a login -------------------------------------------------------------

BOOT = (
    Fault(
        "boot",
        "the jump does not happen",
        "the jump into the kernel did not happen",
        sabotage=INSTEAD.format(what=":"),
        edit=short_boot,
    ),
    Fault(
        "boot",
        "machine starts its own kernel again",
        "is in another boot already",
        sabotage=INSTEAD.format(what="reboot -f"),
        death="gone",
    ),
    Fault(
        "boot",
        "wrong kernel booted",
        r"the host runs the kernel \w+ .*, built was",
        setup=put_other,
        sabotage=BEFORE_LOADING.format(what="cp /tmp/other $3"),
    ),
    Fault(
        "boot",
        "kernel does not execute anything",
        "was not booted within 25 s",
        sabotage=BEFORE_LOADING.format(what=DEAD),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "kernel panics",
        "Kernel panic - not syncing",
        edit=with_key("cmdline: [rdinit=/nonesuch]"),
        death="panic",
    ),
    Fault(
        "boot",
        "kernel never answers",
        "was not booted within 25 s",
        edit=both(with_key(f"cmdline: [{NO_NETWORK}]"), short_boot),
        death="hang",
    ),
    Fault(
        "boot",
        "machine stands still",
        "was not booted within 25 s",
        strikes=(Strike("kvm_harness.cell=", stand_still),),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "login refused",
        "was not booted within 25 s: .*refused the key",
        setup=there("rm ~/.ssh/authorized_keys"),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "changed host key",
        "shows the host key .*pinned is",
        setup=other_key_there,
    ),
    Fault(
        "boot",
        "nonsense for an answer",
        "nonsense when asked for its kernel: 'banana",
        setup=there(BANANA.format(path=BOOT_ID)),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "disk full",
        "No space left on device",
        setup=there("mount -o remount,size=64k /var"),
    ),
    Fault(
        "boot",
        "kernel without KVM",
        "KVM",
        edit=with_key("cmdline: [kvm-arm.mode=none]"),
        death="no-kvm",
    ),
    Fault(
        "boot",
        "lease lost",
        "lease on the host is lost: .* for the run another-run",
        strikes=(Strike("kvm_harness.cell=", steal, connecting=True),),
        lease="another's",
        home=False,
    ),
    Fault(
        "boot",
        "network gone",
        "was not booted within 25 s: no SSH login",
        strikes=(Strike("kexec ordered", refuse), Strike("reset ordered", heal)),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "controller killed",
        verdict="killed",
        strikes=(Strike("kexec ordered", kill),),
        home=False,
    ),
)

# ---- check: in the kernel that is tested --------------------------------------------------------

CHECK = (
    Fault(
        "check",
        "SSH dies",
        "can be reached again, and runs the same kernel",
        check="test_before or test_ssh_dies or test_zz",
        passes=("test_before", "test_zz_after"),
    ),
    Fault(
        "check",
        "kernel panics",
        "Kernel panic - not syncing: sysrq triggered crash",
        check="test_before or test_panic",
        death="panic",
        passes=("test_before",),
    ),
    Fault(
        "check",
        "patched kernel panics",
        "Kernel panic - not syncing: aging on purpose",
        verdict="fail",
        patch='panic("aging on purpose")',
        death="panic",
    ),
    Fault(
        "check",
        "machine starts again",
        "in another boot by now",
        check="test_before or test_restart",
        death="gone",
        passes=("test_before",),
    ),
    Fault(
        "check",
        "machine stands still",
        "gave up waiting for .*was not booted within",
        check="test_before or test_stands_still",
        strikes=(Strike("please stand still", stand_still),),
        death="hang",
        passes=("test_before",),
    ),
    Fault(
        "check",
        "network cut in mid-transfer",
        "copying big to the host failed.*can be reached again",
        check="test_before or test_transfer or test_zz",
        strikes=(Strike("please transfer", cut_after(1 << 20)),),
        passes=("test_before", "test_zz_after"),
    ),
    Fault(
        "check",
        "network silent until the reset",
        "gave up waiting for .*was not booted within",
        check="test_before or test_silence",
        strikes=(Strike("please silence", silence), Strike("reset ordered", heal)),
        death="hang",
        passes=("test_before",),
    ),
    Fault(
        "check",
        "network silent for 15 s",
        "reboot ordered",
        verdict="pass",
        check="test_before or test_short_silence",
        strikes=(Strike("please silence", silence_of(15)),),
        passes=("test_before", "test_short_silence"),
    ),
    Fault(
        "check",
        "disk full",
        "No space left on device",
        check="test_before or test_disk_full or test_zz",
        passes=("test_before", "test_zz_after"),
    ),
    Fault(
        "check",
        "nonsense for an answer",
        "meminfo.*banana",
        check="test_before or test_nonsense",
        passes=("test_before",),
    ),
    Fault(
        "check",
        "wall clock jumps",
        "reboot ordered",
        verdict="pass",
        check="test_before or test_clock or test_zz",
        passes=("test_before", "test_clock", "test_zz_after"),
    ),
    Fault(
        "check",
        "console gone",
        "no console by `sh`",
        check="test_before or test_console",
        edit=until_told,
        passes=("test_before",),
    ),
    Fault(
        "check",
        "lease lost",
        "lease on the host is lost: .* for the run another-run",
        check="test_before or test_lease or test_zz",
        strikes=(Strike("please take it", steal),),
        lease="another's",
        home=False,
        passes=("test_before",),
    ),
    Fault(
        "check",
        "controller killed, run resumed",
        verdict="killed",
        check="test_before or test_wait",
        strikes=(Strike("please now", kill_and_let_time_pass),),
        home=False,
        passes=("test_before",),
        resume=True,
    ),
)

# ---- collect: evidence, in the tested kernel after a check, and at home after the cell ----------

COLLECT = (
    Fault(
        "collect",
        "kernel panics",
        "Kernel panic - not syncing: sysrq triggered crash",
        check="test_before or test_collect_panic",
        death="panic",
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "machine starts again",
        "in another boot by now",
        check="test_before or test_collect_restart",
        death="gone",
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "SSH dies",
        "can be reached again, and runs the same kernel",
        check="test_before or test_collect_ssh or test_zz",
        passes=("test_before", "test_zz_after"),
    ),
    Fault(
        "collect",
        "network cut",
        "can be reached again, and runs the same kernel",
        check="test_before or test_collect_cut or test_zz",
        strikes=(Strike("please cut", cut),),
        passes=("test_before", "test_zz_after"),
    ),
    Fault(
        "collect",
        "evidence never comes",
        "gave up waiting for .* while the host does answer other commands",
        check="test_before or test_collect_nothing",
        death="hang",
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "nonsense for evidence",
        "vmstat.*banana",
        check="test_before or test_collect_nonsense",
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "own kernel panics at home",
        "Kernel panic - not syncing: sysrq triggered crash",
        strikes=(
            Strike(
                HOME_AGAIN,
                script("( sleep 0.2; echo c > /proc/sysrq-trigger ) > /dev/null 2>&1 &"),
                True,
            ),
        ),
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "record of a crash cannot be removed",
        "rm -f .*exited 1: .*dmesg-1",
        strikes=(
            Strike(
                HOME_AGAIN,
                script(
                    "cd /var/lib; mkdir -p systemd/pstore; cd systemd/pstore; echo x > dmesg-1; "
                    "mount --bind dmesg-1 dmesg-1"
                ),
                True,
            ),
        ),
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "nonsense for its health at home",
        "nonsense when asked for its health",
        strikes=(Strike(HOME_AGAIN, script(BANANA.format(path="/proc/sys/kernel/tainted")), True),),
        passes=("test_before",),
    ),
    Fault(
        "collect",
        "network cut at home",
        "no SSH login to .* within 30 s",
        strikes=(Strike(HOME_AGAIN, refuse, True),),
        passes=("test_before",),
        lease="runs out",
    ),
    Fault(
        "collect",
        "controller killed",
        verdict="killed",
        strikes=(Strike(HOME_AGAIN, kill_and_let_time_pass, True),),
        passes=("test_before",),
    ),
)

# ---- home: back to the known-good kernel --------------------------------------------------------

HOME = (
    Fault(
        "home",
        "reboot does nothing",
        "reset ordered",
        verdict="pass",
        check="test_before or test_reboot_does",
        edit=short_way_back,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "neither reboot nor power switch does anything",
        "did not come back .*reboot: .*it is in the boot.*reset: .*it is in the boot",
        check="test_before or test_reboot_does",
        edit=both(power("['true']"), short_way_back),
        aside=True,
        home=False,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "power switch fails after a panic",
        "Kernel panic - not syncing",
        check="test_before or test_panic",
        edit=power("['false']"),
        death="panic",
        passes=("test_before",),
    ),
    Fault(
        "home",
        "power switch fails after a hang",
        "did not come back .*power reset of lab failed",
        check="test_before or test_no_network",
        edit=both(power("['false']"), short_way_back),
        aside=True,
        home=False,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "kernel panics on its way down",
        "on its way down: Kernel panic - not syncing: sysrq triggered crash",
        check="test_before or test_reboot_panics",
        death="panic",
        passes=("test_before",),
    ),
    Fault(
        "home",
        "another kernel comes up",
        "came back with .*another build",
        check="test_before or test_reboot_into",
        aside=True,
        home=False,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "another machine answers at its address",
        "did not come back .*shows the host key",
        strikes=(Strike("reboot ordered", another_machine),),
        edit=short_way_back,
        aside=True,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "nonsense for an answer",
        "reset ordered",
        verdict="pass",
        strikes=(Strike("reboot ordered", once_home(script(BANANA.format(path=BOOT_ID))), True),),
        edit=short_way_back,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "network cut for 20 s",
        "reboot ordered",
        verdict="pass",
        strikes=(Strike("reboot ordered", refuse_for(20)),),
        passes=("test_before",),
    ),
    Fault(
        "home",
        "network gone",
        "did not come back .*no SSH login",
        strikes=(Strike("reboot ordered", refuse),),
        edit=short_way_back,
        aside=True,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "lease lost",
        "lease on the host is lost: .* for the run another-run",
        strikes=(Strike("reboot ordered", once_home(steal), connecting=True),),
        lease="another's",
        passes=("test_before",),
    ),
    Fault(
        "home",
        "controller killed",
        verdict="killed",
        strikes=(Strike("reboot ordered", kill),),
        passes=("test_before",),
    ),
)

# On a machine with a watchdog that runs on across a kexec, and without a power switch.
WATCHED = (
    Fault(
        "boot",
        "kernel does not execute anything, no power switch",
        "was not booted within 25 s",
        sabotage=BEFORE_LOADING.format(what=DEAD),
        edit=short_boot,
        death="hang",
    ),
    Fault(
        "boot",
        "the jump does not happen, watchdog armed",
        "the jump into the kernel did not happen",
        sabotage=INSTEAD.format(what=":"),
        edit=short_boot,
        diary=r"(?s)watchdog disarmed.*reboot ordered",
    ),
)

ON_ONE_MACHINE = (*LOOK, *HEALTH, *REHEARSAL, *DEPLOY, *BOOT, *CHECK, *COLLECT, *HOME)
FAULTS = (*ON_ONE_MACHINE, *WATCHED)


def watched(text: str) -> str:
    return with_key(f"watchdog: true\n    fragments: [{WATCHDOG}]")(no_power(text))


def patch(statement: str) -> str:
    """A series of one patch, with a statement in what ages a range of pages."""
    name = "arch/arm64/kvm/mmu.c"
    hunk = AGE.replace("STATEMENT", statement)
    return f"Subject: [PATCH] x\n\n---\n--- a/{name}\n+++ b/{name}\n{hunk}"
