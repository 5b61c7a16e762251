# SPDX-License-Identifier: GPL-2.0-only
"""The kernel is copied and loaded."""

from __future__ import annotations

from fault_scene import Strike

from faults.deeds import cut_after, kill, no_console, nothing_yet, script, steal
from faults.edits import until_told
from faults.fault import Fault
from harness.hosts.kexec import IMAGE
from harness.hosts.places import PROGRAMS

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
        "wall clock jumps",
        "reboot ordered",
        verdict="pass",
        strikes=(Strike("copying the kernel", script("date -s @86400")),),
        passes=("test_before",),
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
