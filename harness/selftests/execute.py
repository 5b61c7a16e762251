# SPDX-License-Identifier: GPL-2.0-only
"""Run one selftest on a host: in a cgroup of its own, with a deadline, nothing left behind."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from harness.checks.hugetlb import overcommitted
from harness.checks.undo import undone
from harness.deadline import Deadline
from harness.errors import HostDied, InfraError
from harness.hosts.protocols import Shell
from harness.observe.unproven import Unproven
from harness.selftests.judge import Ended
from harness.selftests.table import Selftest

FOLDER = "/tmp/kvm-selftest"
GROUP = "/sys/fs/cgroup/kvm-harness-selftest"
# Where an access_tracking_perf_test that ages by MGLRU puts itself, out of GROUP: it looks for just
# this path, from the root, in debugfs/lru_gen. One that is there before our test is another's.
ITS_GROUP = "/sys/fs/cgroup/access_tracking_perf_test"
VMS = "/sys/kernel/debug/kvm"
OUTPUT = f"{FOLDER}/out/output"
OUTPUT_LIMIT = "4m"  # what runs there is not ours
HELP_SECONDS = 20.0
# For the host to kill what is left, beyond the test's own deadline.
END_SECONDS = 30.0
_MODE = re.compile(r"^\s*(?P<id>\d+):\s+(?P<name>PA-bits.*?)(?P<can>\s+\(supported\))?$", re.M)

_PREPARE = "mkdir -p {folder}/out && mount -t tmpfs -o size={limit} tmpfs {folder}/out"
_REMOVE = """\
! grep -q ' {folder}/out ' /proc/mounts || umount {folder}/out
rm -rf {folder}
! test -d {group} || rmdir {group} || exit
! test -d {its} || rmdir {its}
"""
# What runs in the group is the test and the shell that notes its status. cgroup.kill reaches
# whatever it may have started, in any session. The clock is the host's own. A file, and no pipe,
# has all that was written when a test is killed; the file system that it is on bounds it.
_SCRIPT = """\
mkdir -p {group} && cd {folder} || exit 1
vms=$(find {vms} -mindepth 1 -maxdepth 1 -type d | wc -l)
(
	echo 0 > {group}/cgroup.procs || exit 1
	{command} < /dev/null > {output} 2>&1
	echo $? > status
) &
read begin rest < /proc/uptime
now=$begin
until [ -e status ] || [ ${{now%.*}} -ge $((${{begin%.*}} + {seconds} + 1)) ]; do
	sleep 0.05
	read now rest < /proc/uptime
done
echo "times $begin $now"
if [ -e status ]; then
	grep -q 'populated 0' {group}/cgroup.events || sleep 1
	grep -q 'populated 0' {group}/cgroup.events || echo left
	echo "status $(cat status)"
else
	for t in $(cat {group}/cgroup.threads {its}/cgroup.threads); do
		echo "== $t $(cat /proc/$t/comm) $(cat /proc/$t/wchan)"
		cat /proc/$t/stack
	done > threads
fi
# A task of the group is gone from it only when it has closed its files, and its VM with them.
tries=0
while echo 1 > {group}/cgroup.kill; do
	[ ! -e {its}/cgroup.kill ] || echo 1 > {its}/cgroup.kill
	grep -q 'populated 0' {group}/cgroup.events &&
		! grep -qs 'populated 1' {its}/cgroup.events &&
		[ $(find {vms} -mindepth 1 -maxdepth 1 -type d | wc -l) -le $vms ] && break
	[ $tries -ge {tries} ] && break
	tries=$((tries + 1))
	sleep 0.1
done
echo "after $(grep populated {group}/cgroup.events)" \\
	"vms $(($(find {vms} -mindepth 1 -maxdepth 1 -type d | wc -l) - vms))"
"""


class Stuck(HostDied):
    """A test could not be killed, or its VM outlived it: where its threads are is in `threads`."""

    def __init__(self, message: str, threads: str) -> None:
        super().__init__("hang", message)
        self.threads = threads


def lacks(shell: Shell, test: Selftest) -> str:
    """What the host lacks of what a test needs, "" for nothing."""
    missing = [
        need.what
        for need in test.needs
        if shell.run(f"test -e {shlex.quote(need.path)}", check=False).status != 0
    ]
    return f"the host has no {', '.join(missing)}" if missing else ""


def script(command: Sequence[str], seconds: float) -> str:
    """What runs a command on the host for `seconds` at most and says how it ended."""
    return _SCRIPT.format(
        group=GROUP, its=ITS_GROUP, folder=FOLDER, vms=VMS, output=OUTPUT,
        command=shlex.join(command), seconds=max(1, round(seconds)),
        tries=round(END_SECONDS / 3 / 0.1),
    )  # fmt: skip


def mode_id(helped: str, wanted: str) -> str | None:
    """The number of a guest mode in what a test's -h prints, None if the host does not do it.

    Unproven if it names no modes at all: then it cannot be asked for one.
    """
    modes = {" ".join(m["name"].split()): m for m in _MODE.finditer(helped)}
    if not modes:
        raise Unproven("its -h names no guest modes")
    found = modes.get(wanted)
    return found["id"] if found is not None and found["can"] else None


class ModeMissing(InfraError):
    """The host cannot run guests in the mode that a test is to run in."""


def execute(shell: Shell, test: Selftest, program: Path, slowdown: float) -> tuple[Ended, str]:
    """Run a selftest to its end or its deadline, and remove all of it from the host.

    Returns how it ended, and where its threads were if its time ran out. ModeMissing, Stuck;
    Unproven if the group that such a test may make is there already.
    """
    name = test.name
    if shell.run(f"! test -e {ITS_GROUP}", check=False).status != 0:
        raise Unproven(f"{ITS_GROUP} is there already: of a selftest that is not ours, or was")
    remove = _REMOVE.format(folder=FOLDER, group=GROUP, its=ITS_GROUP)
    with overcommitted(shell, test.huge_pages), undone(lambda: shell.run(remove)):
        shell.run(_PREPARE.format(folder=FOLDER, limit=OUTPUT_LIMIT))
        shell.put(program, f"{FOLDER}/{name}", mode=0o755)
        mode: tuple[str, ...] = ()
        if test.mode:
            helped = shell.run(f"timeout {HELP_SECONDS:.0f} {FOLDER}/{name} -h", check=False)
            number = mode_id(helped.stdout, test.mode)
            if number is None:
                raise ModeMissing(f"the host has no guests with {test.mode}")
            mode = ("-m", number)
        seconds = test.seconds * slowdown
        said = shell.run(
            script((f"./{name}", *mode, *test.arguments), seconds),
            Deadline(seconds + END_SECONDS * slowdown),
        )
        output = shell.read(OUTPUT)
        threads = shell.run(f"cat {FOLDER}/threads", check=False).stdout
        return ended(said.stdout, output, threads), threads


def ended(said: str, output: str, threads: str) -> Ended:
    """How a test ended, from what the script said. Stuck if its processes or its VM are left."""
    times = re.search(r"^times (\d+\.\d+) (\d+\.\d+)$", said, re.MULTILINE)
    after = re.search(r"^after populated (\d) vms (-?\d+)$", said, re.MULTILINE)
    status = re.search(r"^status (\d+)$", said, re.MULTILINE)
    if times is None or after is None:
        raise InfraError(f"the host did not say how a selftest ended: {said[-200:]!r}")
    if after[1] != "0":
        raise Stuck("a selftest's processes cannot be killed", threads)
    if int(after[2]) > 0:
        raise Stuck("a selftest's VM is still there when all of its processes are gone", threads)
    return Ended(
        output=output,
        status=int(status[1]) if status else None,
        seconds=float(times[2]) - float(times[1]),
        left=re.search(r"^left$", said, re.MULTILINE) is not None,
    )
