# SPDX-License-Identifier: GPL-2.0-only
"""Evidence, in the tested kernel after a check, and at home after the cell."""

from __future__ import annotations

from fault_scene import Strike

from faults.deeds import (
    BANANA,
    HOME_AGAIN,
    cut,
    kill_and_let_time_pass,
    no_console,
    refuse,
    script,
    stand_still,
    steal,
)
from faults.edits import until_told
from faults.fault import Fault

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
        "machine stands still",
        "gave up waiting for .*was not booted within",
        check="test_before or test_collect_still",
        strikes=(Strike("please stand still", stand_still),),
        death="hang",
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
        "disk full",
        "lease not renewed: .*reboot ordered",
        verdict="pass",
        check="test_before or test_collect_full",
        passes=("test_before", "test_collect_full"),
    ),
    Fault(
        "collect",
        "wall clock jumps",
        "reboot ordered",
        verdict="pass",
        check="test_before or test_collect_clock or test_zz",
        passes=("test_before", "test_collect_clock", "test_zz_after"),
    ),
    Fault(
        "collect",
        "console gone",
        "console showed nothing on the way home",
        check="test_before or test_collect_console",
        strikes=(Strike("please let it go", no_console),),
        edit=until_told,
        passes=("test_before", "test_collect_console"),
    ),
    Fault(
        "collect",
        "lease lost",
        "lease on the host is lost: .* for the run another-run",
        check="test_before or test_collect_lease",
        strikes=(Strike("please take it", steal),),
        lease="another's",
        home=False,
        passes=("test_before", "test_collect_lease"),
    ),
    Fault(
        "collect",
        "own kernel panics at home",
        "Kernel panic - not syncing: sysrq triggered crash",
        strikes=(
            Strike(
                HOME_AGAIN,
                # While the run waits for what it asks of its health: nothing writes to the pipe.
                script(
                    "mkfifo /tmp/pipe; mount --bind /tmp/pipe /proc/sys/kernel/tainted; "
                    "( sleep 0.2; echo c > /proc/sysrq-trigger ) > /dev/null 2>&1 &"
                ),
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
        # Nobody can tell it from a kernel that died, and a reset brings no network back.
        aside=True,
    ),
    Fault(
        "collect",
        "disk full at home",
        "nothing of the cell is left on it",
        verdict="pass",
        strikes=(Strike(HOME_AGAIN, script("mount -o remount,size=64k /var"), True),),
        passes=("test_before",),
        aside=True,
        # It takes room to give it back.
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
