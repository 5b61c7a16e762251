# SPDX-License-Identifier: GPL-2.0-only
"""Back to the known-good kernel."""

from __future__ import annotations

from fault_scene import Strike

from faults.deeds import (
    BANANA,
    BOOT_ID,
    another_machine,
    kill,
    once_home,
    refuse,
    refuse_for,
    script,
    steal,
)
from faults.edits import both, power, short_way_back
from faults.fault import Fault

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
        "did not come back .*reboot: .*it is in the boot.*reset: .*it is in the boot"
        ".*power off and on: .*it is in the boot",
        check="test_before or test_reboot_does",
        edit=both(power("['true']", "on|off|reset"), short_way_back),
        aside=True,
        home=False,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "neither reboot nor reset does anything",
        "power off and on ordered",
        verdict="pass",
        check="test_before or test_reboot_does",
        edit=both(power("['true']"), short_way_back),
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
        edit=both(power("['false']", "on|off|reset"), short_way_back),
        aside=True,
        home=False,
        passes=("test_before",),
    ),
    Fault(
        "home",
        "reset fails after a hang",
        "gave up waiting for .* on the host",
        check="test_before or test_no_network",
        edit=both(power("['false']"), short_way_back),
        death="hang",
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
