# SPDX-License-Identifier: GPL-2.0-only
"""Kill the owner of a VM and have the kernel reap its memory before the owner gets to run.

So does the OOM killer (mm/oom_kill.c, __oom_reap_task_mm()), and a manager of memory by
process_mrelease(2), which is what is used here: the notifiers of that unmap may not block.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from harness.companion import Companion
from harness.guests import Guest
from harness.hosts.protocols import Shell
from harness.observe import cpu_list, kvmstats, preempt
from harness.observe.collect import Dump, dump_by, refusal, refuse
from harness.observe.unproven import Unproven

_REAPED = r"ok errno=([0-9]+) waited=([01]) dump=(.*)|error system sched_setscheduler: (.*)"


@contextlib.contextmanager
def reaper(vm: Guest, shell: Shell) -> Iterator[Callable[[], Dump | None]]:
    """What kills a guest's process and has its memory taken when it is called, at once.

    It returns what stage 2 is then, or None if others had the CPU before that was done, so that the
    owner may have ended first; the process has ended when the guest is closed. Unproven where the
    owner always might, and if the kernel did not take the memory, or came too late for it; NoDump,
    when it was taken, where the kernel does not show stage 2.
    """
    # The locks that are taken on the way let others run, on such a kernel.
    if preempt.is_realtime(shell):
        raise Unproven("with PREEMPT_RT the owner may end before its memory is taken")
    why = refusal(shell, vm.vm_dir)
    dump = "-" if why else f"{kvmstats.folder(vm.vm_dir)}/stage2_page_tables"
    command = f"reap {vm.greeting.pid} {dump}"
    cpu = cpu_list.usable(shell)[0]
    # None of its threads is to run before all is done: the reaper has that CPU until then.
    shell.run(f"taskset -apc {cpu} {vm.greeting.pid}")
    pinned = ("taskset", "-c", str(cpu))
    with Companion.start(
        shell, ("--reaper",), "reaper", "reaper", vm.slowdown, before=pinned
    ) as process:

        def reap() -> Dump | None:
            process.send(command)
            error, waited, text, refused = process.replied(command, _REAPED).groups()
            if refused:
                raise Unproven(f"this host lets nobody have a real-time priority: {refused}")
            if number := int(error):
                why_not = os.strerror(number)
                raise Unproven(f"process_mrelease() did not take the memory: {why_not}")
            refuse(why)
            if waited == "1":
                return None
            return dump_by(vm.vm_dir, text.replace(";", "\n"))

        yield reap
