# SPDX-License-Identifier: GPL-2.0-only
"""What faults do to the machine and to the network."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fault_scene import Scene, wait_for
from hosts_helpers import Server, make_key
from lab_bed import MORE_INIT

from harness.hosts import pins
from harness.hosts.away import Away
from harness.hosts.image import INIT, dropbear_private
from harness.hosts.leasing import take

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


def kill_and_hang(scene: Scene) -> None:
    """Its machine hangs from then on, and what the run wrote of it says that its lease is over."""
    scene.kill()
    scene.stop()
    path = scene.folder / "kvm-harness/away/lab.json"
    left = Away.model_validate_json(path.read_text())
    path.write_text(left.model_copy(update={"until": 0.0}).model_dump_json())


def steal(scene: Scene) -> None:
    scene.steal_lease()


def once_home(do: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def wait(scene: Scene) -> None:
        wait_for(scene.in_its_own_kernel)
        do(scene)

    return wait


def nothing_yet(scene: Scene) -> None:
    pass


def stand_still(scene: Scene) -> None:
    scene.stop()
