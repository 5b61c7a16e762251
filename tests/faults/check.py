# SPDX-License-Identifier: GPL-2.0-only
"""In the kernel that is tested."""

from __future__ import annotations

from fault_scene import Strike

from faults.deeds import (
    cut_after,
    heal,
    kill_and_hang,
    kill_and_let_time_pass,
    silence,
    silence_of,
    stand_still,
    steal,
)
from faults.edits import until_told
from faults.fault import Fault

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
    Fault(
        "check",
        "controller killed, and the kernel hangs",
        verdict="killed",
        check="test_before or test_wait",
        strikes=(Strike("please now", kill_and_hang),),
        home=False,
        passes=("test_before",),
    ),
)
