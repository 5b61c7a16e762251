# SPDX-License-Identifier: GPL-2.0-only
"""A trace recorded on the host, in an instance of tracefs of our own.

Sources: Documentation/trace/{ftrace,events,kprobetrace}.rst.
"""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

from harness.deadline import Deadline
from harness.errors import HarnessError, InfraError
from harness.hosts.protocols import Shell
from harness.observe.text import run_script
from harness.observe.trace import Counts, Wanted, returned, slowed_entry, slowed_return
from harness.observe.trace_text import counts, parse_setup

TRACEFS = "/sys/kernel/tracing"
NAME = "kvm-harness"
INSTANCE = f"{TRACEFS}/instances/{NAME}"
# Where the probes are enabled that one thread alone is to meet (set_event_pid): to the others they
# take no time, as the kernel looks at that before it fetches anything. Nothing is recorded there.
ALONE = f"{INSTANCE}-alone"
GROUP = "kvm_harness"
# The kernel takes a third of a second to list its functions under emulation; the list of a
# running kernel without modules stays the same, and /run does not outlive it.
FUNCTIONS = "/run/kvm-harness-functions"
ALIASES: dict[str, str] = {}
"""Functions that this kernel has under another name, and that name (harness/observe/callbacks.py):
probes go there. A cell is a process, and boots one kernel."""
# Before each part of what is printed stands a line of a file of this name.
MARKS = "/run/kvm-harness-mark"
# The event of a probe that takes long must be filtered out, as it then goes to a page of its own
# first. Recorded on 6.12, it damaged the ring buffer, likely since the kernel reserves room for the
# name, but takes it to be KSYM_NAME_LEN bytes and clears the last of these.
_NEVER = "common_pid < 0"
# Threads that may be within a function at a time, of which a kretprobe sees the return. By default
# as many as there are CPUs: but they sleep in some, and wait for a lock (kernel/kprobes.c).
RETURN = "r256"

# Probes and buffers come and go after grace periods, for which nobody waits but this script: of a
# trace's 240 ms these were 150. What is traced has the kernel as it was.
# (kernel-parameters.txt, rcupdate.rcu_expedited)
EXPEDITED = "/sys/kernel/rcu_expedited"
EXPEDITE = f"""
E={EXPEDITED}
if [ -e $E ]; then
  read -r expedited < $E
  trap 'echo $expedited > $E' EXIT
  echo 1 > $E
fi
"""

# Events must be off before an instance or a probe can go, and the instance goes first: the
# probes are enabled in it. Works on what a killed run left as well.
REMOVE = f"""{EXPEDITE}T={TRACEFS} I={INSTANCE} J={ALONE}
for i in $J $I; do
  if [ -d $i ]; then echo 0 > $i/tracing_on; echo 0 > $i/events/enable; rmdir $i; fi
done
if [ -e $T/kprobe_events ] && read -r any < $T/kprobe_events; then
  sed -n 's|^[pr][0-9]*:\\({GROUP}/[^ ]*\\) .*|-:\\1|p' $T/kprobe_events |
  while read -r probe; do echo "$probe" >> $T/kprobe_events; done
fi
"""


def new_instance(buffer_kib: int) -> str:
    """The lines that make the instance anew, with tracing off and so large a buffer per CPU."""
    return f"""{REMOVE}mkdir $I
echo 0 > $I/tracing_on
echo mono > $I/trace_clock
echo {buffer_kib} > $I/buffer_size_kb
"""


# Makes the list, where there is none yet.
LIST = f"""[ -s {FUNCTIONS} ] || {{ cat {TRACEFS}/available_filter_functions > {FUNCTIONS}.new
mv {FUNCTIONS}.new {FUNCTIONS}; }}
"""


def _real(function: str) -> str:
    return ALIASES.get(function, function)


def setup_script(wanted: Wanted) -> str:
    """The script that makes the instance, with everything enabled and tracing off."""
    lines = [
        f"[ -d {TRACEFS}/instances ] || {{ echo '{TRACEFS} is not mounted' >&2; exit 1; }}",
        new_instance(wanted.buffer_kib),
    ]
    if wanted.slowed_thread is not None:
        lines.append(
            f"mkdir $J\necho 0 > $J/tracing_on\necho {wanted.slowed_thread} > $J/set_event_pid"
        )
    for event in wanted.events:
        folder = "$I/events/" + event.replace(":", "/")
        lines.append(f"if [ -d {folder} ]; then")
        if event in wanted.filters:
            lines.append(f"printf '%s\\n' {shlex.quote(wanted.filters[event])} > {folder}/filter")
        lines.append(f"echo 1 > {folder}/enable; echo 'ok {event}'")
        lines.append(f"else echo 'absent {event}: this kernel has no such event'; fi")
    if wanted.functions or wanted.returns:
        names = dict.fromkeys((*wanted.functions, *wanted.returns))
        patterns = " ".join(f"-e {shlex.quote(_real(function))}" for function in names)
        lines.append(f"{LIST}F=$(grep -Fx {patterns} {FUNCTIONS} || true)")
    for function in wanted.functions:
        probe = wanted.probe(function)
        slowly = wanted.fetches(function)
        which = wanted.entry_filter(function)
        only = _NEVER if which is None else which
        lines.append(_probe_script(function, function, probe, "p", (*slowly[:1], ""), only))
        if slowly:
            name = slowed_entry(function)
            more = _further_probes(function, probe, "p", slowly[1:], "$I")
            lines.append(
                f"{more}case $made in 0) echo 'ok {name}' ;;\n"
                f"few) echo 'absent {name}: this kernel refuses a further probe on it' ;;\n"
                f"'') echo 'absent {name}: it has no probe' ;;\n"
                f"*) echo 'absent {name}: this kernel looks up no symbol in a probe' ;; esac"
            )
    for function, condition in wanted.returns.items():
        probe = wanted.return_probe(function)
        lines.append(
            _probe_script(returned(function), function, probe, RETURN, (" ret=$retval",), condition)
        )
        if slowly := wanted.fetches(function):
            # Of two probes on a return the one that was made first comes first: the last one is
            # at the head of the probe's list, so it is entered first, and what was entered first
            # returns last (kernel/kprobes.c).
            name = slowed_return(function)
            where = "$I" if wanted.slowed_thread is None else "$J"
            slow = f"{probe}_slow"
            lines.append(
                _probe_script(name, function, slow, RETURN, slowly[:1], _NEVER, where)
                + f"\n{_further_probes(function, probe, RETURN, slowly[1:], where)}"
            )
    return "\n".join(lines)


def _probe_script(
    name: str,
    function: str,
    probe: str,
    kind: str,
    fetches: Sequence[str],
    condition: str,
    instance: str = "$I",
) -> str:
    """The lines that make and enable one probe and print "ok" or "absent" with its `name`.

    It has the first of `fetches` that the kernel takes: `made` is its index.
    """
    event = f"{instance}/events/{GROUP}/{probe}"
    real = _real(function)
    makes = " || ".join(
        f"{{ echo '{kind}:{GROUP}/{probe} {real}{fetch}' 2>/dev/null >> $T/kprobe_events &&"
        f" made={index}; }}"
        for index, fetch in enumerate(fetches)
    )
    only = f"printf '%s\\n' {shlex.quote(condition)} > {event}/filter\n" if condition else ""
    return (
        f'made= n=0\nfor f in $F; do [ "$f" != {real} ] || n=$((n + 1)); done\n'
        f"if [ $n -eq 0 ]; then echo 'absent {name}: not in available_filter_functions'\n"
        f"elif [ $n -gt 1 ]; then echo 'absent {name}: names more than one function'\n"
        f"elif {makes}; then\n{only}echo 1 > {event}/enable; echo 'ok {name}'\n"
        f"else echo 'absent {name}: this kernel refuses a probe on it'; fi"
    )


def _further_probes(
    function: str, probe: str, kind: str, fetches: Sequence[str], instance: str
) -> str:
    """The lines that make and enable more probes beside the first slow one, if that was made.

    `made` is "few" if they fail.
    """
    if not fetches:
        return ""
    more = "".join(
        f"{_further_probe(function, f'{probe}_slow{index}', kind, fetch, instance)}\n"
        for index, fetch in enumerate(fetches, 1)
    )
    return f'[ "$made" != 0 ] || {{\n{more}:; }}\n'


def _further_probe(function: str, probe: str, kind: str, fetch: str, instance: str) -> str:
    """The lines that make and enable a probe beside one like it; `made` is "few" if they fail."""
    event = f"{instance}/events/{GROUP}/{probe}"
    return (
        f"{{ echo '{kind}:{GROUP}/{probe} {_real(function)}{fetch}' >> $T/kprobe_events &&\n"
        f"printf '%s\\n' {shlex.quote(_NEVER)} > {event}/filter &&\n"
        f"echo 1 > {event}/enable; }} 2>/dev/null || made=few"
    )


def start_script() -> str:
    """The script that empties the buffer, prints the probes' profile so far, and records."""
    return (
        f"I={INSTANCE}\n({EXPEDITE}echo > $I/trace)\n"
        f"[ ! -e {TRACEFS}/kprobe_profile ] || cat {TRACEFS}/kprobe_profile\n"
        "echo 1 > $I/tracing_on"
    )


def stop_script(nonce: str) -> str:
    """The script that ends recording and prints statistics, profile and trace.

    One program prints all of it: to start one takes longer than a trace of a hundred lines.
    """
    return (
        f"I={INSTANCE} M={MARKS}; echo 0 > $I/tracing_on\nset --\n"
        "for c in $I/per_cpu/cpu*; do\n"
        f'echo "{nonce} stats ${{c##*/}}" > $M-${{c##*/}}; set -- "$@" $M-${{c##*/}} $c/stats\n'
        "done\n"
        f'for part in profile trace end; do echo "{nonce} $part" > $M-$part; done\n'
        'set -- "$@" $M-profile\n'
        f'[ ! -e {TRACEFS}/kprobe_profile ] || set -- "$@" {TRACEFS}/kprobe_profile\n'
        'cat "$@" $M-trace $I/trace $M-end'
    )


# ---- effects --------------------------------------------------------------------------------


class Session:
    """A prepared instance; each start() and stop() pair gives the Counts of what lay between."""

    def __init__(self, shell: Shell, wanted: Wanted, absent: Mapping[str, str]) -> None:
        self._shell = shell
        self._before: str | None = None
        self.wanted = wanted
        self.absent = absent

    def start(self, deadline: Deadline | None = None) -> None:
        """Forget what was recorded and record from now on."""
        self._before = run_script(self._shell, start_script(), deadline)

    def stop(self, deadline: Deadline | None = None) -> Counts:
        """End recording; what was recorded since start(). InfraError without a start()."""
        if self._before is None:
            raise InfraError("trace: stop() without start()")
        nonce = secrets.token_hex(16)
        before, self._before = self._before, None
        after = run_script(self._shell, stop_script(nonce), deadline)
        return counts(before, after, nonce, self.wanted, self.absent)


@contextmanager
def tracing(shell: Shell, wanted: Wanted, deadline: Deadline | None = None) -> Iterator[Session]:
    """An instance that records `wanted`, gone with its probes at the end.

    `deadline` bounds set-up and removal. What a killed run left is removed first. InfraError if
    tracefs is not mounted or refuses.
    """
    try:
        absent = parse_setup(run_script(shell, setup_script(wanted), deadline), wanted)
        yield Session(shell, wanted, absent)
    except BaseException:
        # The error that ends the block is the one to tell; a dead host cannot be cleaned.
        with suppress(HarnessError):
            run_script(shell, REMOVE, deadline)
        raise
    run_script(shell, REMOVE, deadline)
