# SPDX-License-Identifier: GPL-2.0-only
"""From the jump to a login."""

from __future__ import annotations

from fault_scene import Strike

from faults.deeds import (
    BANANA,
    BEFORE_LOADING,
    BOOT_ID,
    DEAD,
    INSTEAD,
    NO_NETWORK,
    heal,
    kill,
    no_console,
    other_key_there,
    put_other,
    refuse,
    stand_still,
    steal,
    there,
)
from faults.edits import both, short_boot, until_told, with_key
from faults.fault import Fault

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
        "console gone",
        "console showed nothing on the way home",
        strikes=(Strike("kvm_harness.cell=", no_console),),
        edit=until_told,
        passes=("test_before",),
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
