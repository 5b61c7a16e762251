# SPDX-License-Identifier: GPL-2.0-only
"""The machine is started as a lost one is."""

from __future__ import annotations

from fault_scene import Strike
from fault_scripts import INTO_OTHER, reboot_by

from faults.deeds import kill, put_other, refuse
from faults.edits import both, no_power, power, short_way_back
from faults.fault import Fault

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
