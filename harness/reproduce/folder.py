# SPDX-License-Identifier: GPL-2.0-only
"""The files of a reproducer: pure texts, and the archives that are the same whenever they are made;
and how they come to where they are to be.

All that a run says (names, reasons, replies) is data of a kernel under test: it is quoted where a
shell reads it and made harmless where a person does.
"""

from __future__ import annotations

import gzip
import io
import re
import shlex
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.hosts import cpio, qemu
from harness.hosts.image import INIT
from harness.printable import printable
from harness.replay import SCRIPT
from harness.reproduce.sign import Sign
from harness.reproduce.steps import PUT

TEMPLATE = Path(__file__).with_name("run.sh")
LAB = Path(__file__).with_name("lab.sh")
PARTS = {
    "@COMMON@": Path(__file__).with_name("common.sh"),
    "@JUDGE@": Path(__file__).with_name("judge.sh"),
}
"""What scripts share, each after its SPDX line, of which a script has one."""
# What stands for them in QEMU's arguments, until a shell reads these.
KERNEL, CMDLINE = "KERNEL", "CMDLINE"
STDOUT = Path("/dev/stdout")
LONGEST = 600
LOOPS = 20
"""Boots of a reproducer whose failure not each boot has shown: it may be a race."""
UNSURE = "a difference between the kernels is seen; whether it is the failure is not known"
_FOLDERS = ("proc", "sys", "dev", "tmp", "run", "usr/bin", "usr/sbin", "root/.ssh")


@dataclass(frozen=True)
class Told:
    """What the README says; all of it may come from a run."""

    check: str
    cell: str
    kernel: str
    """Version, build id and series, in words."""
    expected: str
    observed: str
    reason: str
    seed: int
    tried: str
    """How often the failure was seen when the folder was made, in words."""
    lab: str = ""
    """The machine of a lab that it is a failure on, "" for an emulated host."""


def initramfs(busybox: bytes, files: Mapping[str, bytes], script: str) -> bytes:
    """The host's user space without network and keys: busybox, programs by their path, a script."""
    entries = [
        cpio.char_device("dev/console", 5, 1),
        *(cpio.directory(path) for path in _FOLDERS),
        cpio.file("init", INIT.read_bytes(), 0o755),
        cpio.file("bin/busybox", busybox, 0o755),
        cpio.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        cpio.file("etc/group", b"root:x:0:\n"),
        *(cpio.file(path, body, 0o755) for path, body in sorted(files.items())),
        cpio.file(SCRIPT, script.encode(), 0o755),
    ]
    return gzip.compress(cpio.archive(entries), 6, mtime=0)


def put_path(name: str) -> str:
    """Where the initramfs has a file that a check copies to its host."""
    return f"{PUT}/{name}"


def run_sh(sign: Sign, machine: qemu.Machine, cmdline: Sequence[str], limit: int) -> str:
    """The script that boots and judges; `limit` is seconds for a boot."""
    argv = qemu.alone(machine, Path(KERNEL), Path("initramfs.cpio.gz"), cmdline, STDOUT)
    sandbox, arguments = shell_words(argv)
    loops = LOOPS if sign.rare else 1
    settings = [*_judging(sign), f"loops={loops} limit={limit}", sandbox]
    return filled(TEMPLATE, settings, arguments)


def lab_sh(sign: Sign) -> str:
    """The script that only judges: QEMU is not the machine that the kernel failed on."""
    return filled(LAB, _judging(sign))


def _judging(sign: Sign) -> list[str]:
    return [
        f"kind={sign.kind} step={sign.step}",
        f"seen={shlex.quote('the failure is seen' if sign.sure else UNSURE)}",
        f"unseen='{'the failure' if sign.sure else 'that difference'} is not seen'",
    ]


def shell_words(argv: Sequence[str]) -> tuple[str, str]:
    """QEMU's arguments as a script of sh has them: the setting of SANDBOX, and all others.

    KERNEL among them is the script's `image`, CMDLINE its `cmdline`.
    """
    variables = {KERNEL: '"$image"', CMDLINE: '"$cmdline"'}
    rest = list(argv[1:])
    at = rest.index("-sandbox")
    sandbox = " ".join(rest[at : at + 2])
    del rest[at : at + 2]
    words = [variables.get(word) or shlex.quote(word) for word in rest]
    return f"SANDBOX=${{SANDBOX-{sandbox}}}", "\t\t" + " ".join(words)


def filled(template: Path, settings: Sequence[str], arguments: str = "") -> str:
    """A script that is a template with its parts, its settings and QEMU's arguments."""
    text = template.read_text()
    for name, path in PARTS.items():
        text = text.replace(name, path.read_text().rstrip("\n").split("\n", 1)[1])
    text = text.replace("@SETTINGS@", "\n".join(settings))
    return text.replace("@ARGUMENTS@", arguments)


def readme(told: Told, sign: Sign) -> str:
    """Five lines: what is broken, expected, observed, how to run, how to read."""
    by = {
        "report": "by a report of the kernel (observed.txt, N for each number)",
        "stop": f"by the host stopping in step {sign.step}",
        "lines": f"by step {sign.step}: it shows all of observed.txt and nothing of expected.txt",
        "none": "by nothing that is known: read the console's log",
    }[sign.kind]
    is_told = "the failure" if sign.sure else "a difference that may be another one"
    shown = "the failure is seen" if sign.sure else "that difference is seen"
    ends = f"ends with 0 if {shown}, 1 if not, 2 if that cannot be told"
    run = (
        f"boot Image, initramfs.cpio.gz and cmdline on an arm64 machine like {told.lab} (the head "
        f"of run.sh says how), keep what its console says; `sh run.sh -l LOG` {ends}."
        if told.lab
        else f"`sh run.sh` boots Image in QEMU 7.2 or newer, without a network, and {ends}; "
        "`sh run.sh KERNEL` tries another Image; its head says how to use an arm64 machine."
    )
    lines = (
        f"Broken: {told.check} fails in {told.cell} ({told.kernel}; seed {told.seed}): "
        f"{told.reason}",
        f"Expected: {told.expected}",
        f"Observed: {told.observed}",
        f"Run: {run}",
        f"Read: steps.sh is what runs inside (kvm-guest is its KVM user); {is_told} is told {by}."
        f" {told.tried}",
    )
    return "".join(f"{one_line(line)}\n" for line in lines)


def one_line(text: str) -> str:
    """A text of a run as one line that a terminal can be shown, cut to what fits."""
    line = " ".join(printable(text).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def folder_name(cell: str, check: str) -> str:
    """A name without anything that a shell or a file system would read."""
    return f"{_safe(cell)}--{_safe(check)}"


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text).strip(".-_")[:100]


def tarball(folder: Path) -> bytes:
    """The folder as .tar.gz: the same bytes for the same files, whoever makes it and when."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(folder.iterdir()):
            info = tarfile.TarInfo(f"{folder.name}/{path.name}")
            info.size = path.stat().st_size
            info.mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
            with path.open("rb") as data:
                tar.addfile(info, data)
    return gzip.compress(out.getvalue(), 6, mtime=0)


def publish(target: Path, parent: Path) -> Path:
    """Put the folder where it is to be, in the place of an earlier one, and its tarball beside."""
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / target.name
    archive = tarball(target)
    if final.exists():
        shutil.rmtree(final)
    shutil.copytree(target, final)
    final.with_name(f"{final.name}.tar.gz").write_bytes(archive)
    return final
