# SPDX-License-Identifier: GPL-2.0-only
"""Traces: real ones of an N1 and an A57 whose guest touched 8 of 64 idle pages."""

from __future__ import annotations

import gzip
import re
import subprocess
from pathlib import Path

import pytest
from fake_shell import UnaskedShell

from harness.deadline import Deadline
from harness.errors import InfraError, UsageError
from harness.hosts.protocols import Result
from harness.observe import trace, trace_text, tracefs
from harness.observe.errors import ObserveError
from harness.observe.text import as_script, sections
from harness.observe.trace import Counts, Wanted
from harness.observe.unproven import Unproven

DATA = Path(__file__).parent / "data" / "observe" / "trace"
SLOT = 0x80000000
SAVED_NONCE = "N" * 32
WANTED = Wanted(
    events=(
        "kvm:kvm_access_fault",
        "kvm:kvm_age_hva",
        "kvm:kvm_test_age_hva",
        "kvm:kvm_guest_fault",
        "kvm:kvm_no_such",
    ),
    functions=(
        "kvm_age_gfn",
        "kvm_arch_test_clear_young",
        "kvm_pgtable_stage2_test_clear_young",
        "handle_access_fault",
        "kvm_tlb_flush_vmid_range",
    ),
)
SMALL = Wanted(
    events=("kvm:kvm_exit", "kvm:kvm_entry", "kvm:kvm_age_hva"),
    functions=("kvm_age_gfn",),
    buffer_kib=8,
    filters={"kvm:kvm_age_hva": "start > 0x10"},
)


def saved(name: str) -> str:
    path = DATA / name
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes()).decode("ascii")
    return path.read_text()


def collected(run: str, wanted: Wanted, text: str | None = None) -> Counts:
    absent = trace_text.parse_setup(saved(f"{run}-setup.txt"), wanted)
    stop = saved(f"{run}-stop.txt.gz") if text is None else text
    return trace_text.counts(saved(f"{run}-start.txt"), stop, SAVED_NONCE, wanted, absent)


def test_software_af_faults_once_for_each_touched_page() -> None:
    counts = collected("cortex-a57", WANTED)
    faults = counts.events("kvm:kvm_access_fault")
    assert [event.fields["ipa"] for event in faults] == [SLOT + n * 8 * 4096 for n in range(8)]
    assert counts.of("kvm:kvm_access_fault") == 8


def test_hardware_af_faults_never() -> None:
    counts = collected("neoverse-n1", WANTED)
    assert counts.of("kvm:kvm_access_fault") == 0
    assert counts.of("kvm:kvm_guest_fault") == 1


def test_which_pages_of_the_slot_faulted() -> None:
    counts = collected("cortex-a57", WANTED)
    faults = counts.events("kvm:kvm_access_fault")
    assert trace.pages_by_ipa(faults, SLOT, 64) == frozenset(range(0, 64, 8))
    assert trace.pages_by_ipa(faults, SLOT + 4096, 8) == {7}
    # The MMIO exit of the guest is outside.
    assert trace.pages_by_ipa(counts.events("kvm:kvm_guest_fault"), SLOT, 64) == frozenset(
        range(0, 64, 8)
    )


def test_each_page_was_aged_once() -> None:
    ages = collected("cortex-a57", WANTED).events("kvm:kvm_age_hva")
    hva = min(event.fields["start"] for event in ages)
    assert trace.pages_by_hva(ages, hva, 64) == (1,) * 64
    assert trace.pages_by_hva(ages, hva + 62 * 4096, 4) == (1, 1, 0, 0)
    assert trace.pages_by_hva(ages, hva - 4096, 2) == (0, 1)
    with pytest.raises(KeyError):
        trace.pages_by_ipa(ages, SLOT, 64)


def test_an_event_of_one_address_counts_for_its_page() -> None:
    event = trace.Event(0, 0, "x", 1, "kvm:kvm_test_age_hva", "", {"hva": 0x2FFF})
    assert trace.pages_by_hva([event], 0, 4) == (0, 0, 1, 0)


def test_a_range_that_ends_inside_a_page_counts_for_it() -> None:
    event = trace.Event(0, 0, "x", 1, "kvm:kvm_age_hva", "", {"start": 0x2800, "end": 0x3001})
    assert trace.pages_by_hva([event], 0, 5) == (0, 0, 1, 1, 0)
    assert trace.asked_pages([event, event], 0, 5) == {2, 3}


@pytest.mark.parametrize("run", ["cortex-a57", "neoverse-n1"])
def test_aging_by_page_idle_goes_page_by_page(run: str) -> None:
    counts = collected(run, WANTED)
    ages = counts.events("kvm:kvm_age_hva")
    assert len(ages) == counts.of("kvm_age_gfn") == 64
    assert {event.fields["end"] - event.fields["start"] for event in ages} == {4096}
    assert counts.of("kvm_tlb_flush_vmid_range") == 1
    assert counts.of("kvm:kvm_test_age_hva") == 0
    assert all(event.task == "mini" for event in ages)
    assert [event.time for event in ages] == sorted(event.time for event in ages)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("kvm_arch_test_clear_young", "not in available_filter_functions"),
        ("handle_access_fault", "not in available_filter_functions"),
        ("kvm:kvm_no_such", "no such event"),
    ],
)
def test_what_the_kernel_lacks_is_unproven_not_zero(name: str, reason: str) -> None:
    counts = collected("neoverse-n1", WANTED)
    with pytest.raises(Unproven, match=reason):
        counts.of(name)


def test_a_name_that_was_not_asked_for() -> None:
    with pytest.raises(KeyError, match="kvm_unmap_gfn_range"):
        collected("neoverse-n1", WANTED).of("kvm_unmap_gfn_range")


def test_overrun_spoils_the_events_but_not_the_functions() -> None:
    counts = collected("lost", SMALL)
    assert counts.lost == 145
    for name in SMALL.events:
        with pytest.raises(Unproven, match="lost 145 events"):
            counts.of(name)
    assert counts.of("kvm_age_gfn") == 512


@pytest.mark.parametrize("loss", ["overrun", "commit overrun", "dropped events"])
def test_each_kind_of_loss_counts(loss: str) -> None:
    text = saved("neoverse-n1-stop.txt.gz").replace(f"\n{loss}: 0\n", f"\n{loss}: 3\n", 1)
    with pytest.raises(Unproven, match="lost 3 events"):
        collected("neoverse-n1", WANTED, text).of("kvm:kvm_access_fault")


def test_a_probe_that_missed_spoils_its_function_only() -> None:
    text = re.sub(
        r"(kvmh0_kvm_age_gfn +[0-9]+ +)0\n", r"\g<1>2\n", saved("neoverse-n1-stop.txt.gz")
    )
    counts = collected("neoverse-n1", WANTED, text)
    with pytest.raises(Unproven, match="its probe missed 2 of 66"):
        counts.of("kvm_age_gfn")
    assert counts.of("kvm_pgtable_stage2_test_clear_young") == 64


def test_a_probe_that_is_gone() -> None:
    text = re.sub(r"  kvmh0_.*\n", "", saved("neoverse-n1-stop.txt.gz"))
    with pytest.raises(ObserveError, match="our probe kvmh0_kvm_age_gfn is gone"):
        collected("neoverse-n1", WANTED, text)


def test_only_what_came_after_the_start_counts() -> None:
    start, stop = saved("neoverse-n1-start.txt"), saved("neoverse-n1-stop.txt.gz")
    absent = trace_text.parse_setup(saved("neoverse-n1-setup.txt"), WANTED)
    later = re.sub(r"(kvmh0_kvm_age_gfn +)0( +)0\n", r"\g<1>60\g<2>9\n", start)
    assert later != start
    again = stop.replace("64               0\n", "64               9\n", 1)
    counts = trace_text.counts(later, again, SAVED_NONCE, WANTED, absent)
    assert counts.of("kvm_age_gfn") == 4
    with pytest.raises(ObserveError, match="counts backwards"):
        trace_text.counts(later, stop, SAVED_NONCE, WANTED, absent)


def test_cut_anywhere_is_an_error() -> None:
    text = saved("cortex-a57-stop.txt.gz")
    for cut in range(0, len(text), 499):
        with pytest.raises(ObserveError):
            collected("cortex-a57", WANTED, text[:cut])


def test_a_line_lost_in_the_middle_is_an_error() -> None:
    text = saved("cortex-a57-stop.txt.gz")
    lines = text.splitlines(keepends=True)
    gone = next(n for n, line in enumerate(lines) if "IPA: 80008000" in line)
    with pytest.raises(ObserveError, match=r"trace:3: the header tells 81 of 81 entries, 80"):
        collected("cortex-a57", WANTED, "".join(lines[:gone] + lines[gone + 1 :]))


HEAD = "# tracer: nop\n#\n# entries-in-buffer/entries-written: {0}/{0}   #P:2\n#\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("mini-1 [000] ..... 1.000001: sched_switch: x\n", "was not asked for"),
        ("mini-1 [000] ..... 1.000001: kvm_access_fault: IPA: zz\n", "unknown form"),
        ("mini-1 [000] ..... 1.000001: kvm_access_fault: IPA: 1 2\n", "unknown form"),
        ("mini-1 [000] ..... 1.01: kvm_access_fault: IPA: 1\n", "not an event"),
        ("CPU:0 [LOST\n", "not an event"),
    ],
)
def test_malformed_lines(line: str, problem: str) -> None:
    with pytest.raises(ObserveError, match=problem):
        trace_text.parse_trace(HEAD.format(1) + line, WANTED.names)


def test_a_task_may_have_any_name() -> None:
    line = " a-1 [000] ..-99      [003] d.h2.    12.000345: kvm_access_fault: IPA: 80001000\n"
    ((event,), written) = trace_text.parse_trace(HEAD.format(1) + line, WANTED.names)
    assert (event.task, event.pid, event.cpu, event.time) == ("a-1 [000] ..", 99, 3, 12_000_345)
    assert written == 1


def test_a_task_name_cannot_end_the_output_early() -> None:
    text = saved("neoverse-n1-stop.txt.gz").replace("mini-", "NNNN end-")
    with pytest.raises(ObserveError):
        trace_text.counts("", text, "another nonce", WANTED, {})


def test_wrong_answers_of_the_set_up() -> None:
    text = saved("neoverse-n1-setup.txt")
    with pytest.raises(ObserveError, match="9 of 10 answers"):
        trace_text.parse_setup(text[: text.rindex("ok ")], WANTED)
    with pytest.raises(ObserveError, match=r":2: unexpected"):
        trace_text.parse_setup(text.replace("ok kvm:kvm_age_hva", "ok kvm:kvm_x"), WANTED)


@pytest.mark.parametrize(
    "wanted",
    [
        {"events": ("kvm_age_hva",)},
        {"events": ("kvm:x; reboot",)},
        {"functions": ("$(reboot)",)},
        {"functions": ("a", "a")},
        {"events": ("a:x", "b:x")},
        {"filters": {"kvm:kvm_age_hva": "1"}},
        {"events": ("a:x",), "filters": {"a:x": "1\n2"}},
    ],
)
def test_names_of_a_contract_are_checked_before_they_meet_a_shell(
    wanted: dict[str, tuple[str, ...]],
) -> None:
    with pytest.raises(UsageError):
        Wanted(**wanted)  # type: ignore[arg-type]


def test_probe_names_are_short_legal_and_distinct() -> None:
    long = "kvm_" + "x" * 100
    wanted = Wanted(functions=(f"{long}1", f"{long}2", "f.isra.0"))
    probes = [wanted.probe(function) for function in wanted.functions]
    assert len(set(probes)) == 3
    assert all(re.fullmatch(r"[a-z0-9_]{1,63}", probe) for probe in probes)


@pytest.mark.parametrize(
    "script",
    [
        tracefs.REMOVE,
        tracefs.setup_script(WANTED),
        tracefs.setup_script(SMALL),
        tracefs.start_script(),
        tracefs.stop_script("0f"),
    ],
)
def test_scripts_are_sh(script: str) -> None:
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=10)


@pytest.mark.parametrize("profile", [True, False])
def test_all_that_was_recorded_is_printed_in_parts(tmp_path: Path, profile: bool) -> None:
    instance, tracing = tmp_path / "instance", tmp_path / "tracing"
    for cpu in (0, 1):
        folder = instance / "per_cpu" / f"cpu{cpu}"
        folder.mkdir(parents=True)
        (folder / "stats").write_text(f"entries: {cpu}\n")
    (instance / "tracing_on").write_text("1\n")
    (instance / "trace").write_text("# tracer: nop\n")
    tracing.mkdir()
    if profile:
        (tracing / "kprobe_profile").write_text("  probe 1 0\n")
    script = tracefs.stop_script("N")
    for path, ours in (
        (tracefs.INSTANCE, instance),
        (tracefs.TRACEFS, tracing),
        (tracefs.MARKS, tmp_path / "mark"),
    ):
        script = script.replace(path, str(ours))
    done = subprocess.run(
        ["sh", "-c", as_script(script)], capture_output=True, text=True, check=True, timeout=10
    )
    assert sections(done.stdout, "N", "trace") == [
        ("stats cpu0", "entries: 0\n"),
        ("stats cpu1", "entries: 1\n"),
        ("profile", "  probe 1 0\n" if profile else ""),
        ("trace", "# tracer: nop\n"),
    ]
    assert (instance / "tracing_on").read_text() == "0\n"


@pytest.mark.parametrize("ends", ["true", "false", "exit 3"])
def test_grace_periods_are_expedited_in_a_script_alone(tmp_path: Path, ends: str) -> None:
    knob, seen = tmp_path / "rcu_expedited", tmp_path / "seen"
    knob.write_text("0\n")
    script = tracefs.EXPEDITE.replace(tracefs.EXPEDITED, str(knob)) + f"cp {knob} {seen}\n{ends}"
    subprocess.run(["sh", "-c", f"(set -eu\n{script}\n) </dev/null"], check=False, timeout=10)
    assert (seen.read_text(), knob.read_text()) == ("1\n", "0\n")
    for step in (tracefs.REMOVE, tracefs.setup_script(WANTED)):
        assert step.count(tracefs.EXPEDITE) == 1
    # Over before anything is recorded.
    _, after = tracefs.start_script().split(tracefs.EXPEDITE)
    assert re.match(r"echo > \$I/trace\)\n", after)


def test_a_kernel_without_expedited_grace_periods_is_traced_too(tmp_path: Path) -> None:
    script = tracefs.EXPEDITE.replace(tracefs.EXPEDITED, str(tmp_path / "absent"))
    subprocess.run(["sh", "-eu", "-c", script], check=True, timeout=10)
    assert not list(tmp_path.iterdir())


class SavedHost(UnaskedShell):
    """A Shell that answers each of the scripts with what a real host printed."""

    def __init__(self, run: str) -> None:
        self.saved = run
        self.scripts: list[str] = []
        self.dead = False

    def run(self, command: str, deadline: Deadline | None = None, *, check: bool = True) -> Result:
        if self.dead:
            raise InfraError("host is gone")
        assert command.startswith("set -eu\n")
        if "mkdir" in command:
            kind, out = "setup", saved(f"{self.saved}-setup.txt")
        elif nonce := re.search(r"([0-9a-f]{32}) \$part", command):
            kind = "stop"
            out = saved(f"{self.saved}-stop.txt.gz").replace(SAVED_NONCE, nonce[1])
        elif "echo 1 > $I/tracing_on" in command:
            kind, out = "start", saved(f"{self.saved}-start.txt")
        else:
            kind, out = "remove", ""
        self.scripts.append(kind)
        return Result(command, 0, out, "")


def test_a_session_costs_four_commands_and_leaves_nothing() -> None:
    host = SavedHost("cortex-a57")
    with tracefs.tracing(host, WANTED) as session:
        assert set(session.absent) == {
            "kvm:kvm_no_such",
            "kvm_arch_test_clear_young",
            "handle_access_fault",
        }
        session.start()
        assert session.stop().of("kvm:kvm_access_fault") == 8
    assert host.scripts == ["setup", "start", "stop", "remove"]


def test_a_failure_inside_still_removes_the_instance() -> None:
    host = SavedHost("cortex-a57")
    with pytest.raises(ZeroDivisionError), tracefs.tracing(host, WANTED):
        raise ZeroDivisionError
    assert host.scripts == ["setup", "remove"]


def test_a_dead_host_does_not_hide_the_first_error() -> None:
    host = SavedHost("cortex-a57")
    with pytest.raises(ZeroDivisionError), tracefs.tracing(host, WANTED):
        host.dead = True
        raise ZeroDivisionError


def test_a_host_that_cannot_be_cleaned_is_an_error() -> None:
    host = SavedHost("cortex-a57")
    with pytest.raises(InfraError, match="gone"), tracefs.tracing(host, WANTED):
        host.dead = True


def test_stop_without_start() -> None:
    session = tracefs.Session(SavedHost("cortex-a57"), WANTED, {})
    with pytest.raises(InfraError, match="without start"):
        session.stop()


def test_returns_are_events_with_what_was_returned() -> None:
    wanted = trace.Wanted(returns={"kvm_pgtable_stage2_mkyoung": "ret == 0"})
    line = (
        " kvm-guest-61      [001] .....    35.000147: kvmhr0_kvm_pgtable_stage2_mkyoung: "
        "(kvm_handle_guest_abort+0x2b8/0x640 <- kvm_pgtable_stage2_mkyoung) ret=0x0\n"
    )
    head = "# tracer: nop\n#\n# entries-in-buffer/entries-written: 1/1   #P:2\n#\n"
    events, _ = trace_text.parse_trace(head + line, wanted.names)
    assert [(event.name, event.fields) for event in events] == [
        (trace.returned("kvm_pgtable_stage2_mkyoung"), {"ret": 0})
    ]


def test_the_probe_on_a_return_is_filtered_by_what_is_returned() -> None:
    script = tracefs.setup_script(trace.Wanted(returns={"f": "ret == 0", "g": ""}))
    assert "r256:kvm_harness/kvmhr0_f f ret=$retval" in script
    assert "'ret == 0' > $I/events/kvm_harness/kvmhr0_f/filter" in script
    assert "kvmhr1_g/filter" not in script


def test_a_probe_is_put_on_what_the_kernel_calls_a_function(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Under the name that was asked for, so that nothing else need know."""
    often = 2 * trace.PROBE_FULL
    wanted = trace.Wanted(functions=("f",), returns={"f": "", "g": ""}, slowed={"f": often // 2})
    plain = tracefs.setup_script(wanted)
    monkeypatch.setitem(tracefs.ALIASES, "f", "h.cold")
    script = tracefs.setup_script(wanted)
    assert "grep -Fx -e h.cold -e g " in script
    made = {line.split("'")[0] for line in script.split("echo '")[1:] if ":kvm_harness/" in line}
    assert {tuple(line.split()[:2]) for line in made} == {
        ("p:kvm_harness/kvmh0_f", "h.cold"),
        ("r256:kvm_harness/kvmhr0_f", "h.cold"),
        ("r256:kvm_harness/kvmhr0_f_slow", "h.cold"),
        ("r256:kvm_harness/kvmhr1_g", "g"),
    }
    assert [line for line in plain.splitlines() if "echo 'ok" in line] == [
        line for line in script.splitlines() if "echo 'ok" in line
    ]


def test_a_return_that_cannot_be_recorded_is_absent() -> None:
    wanted = trace.Wanted(functions=("f",), returns={"f": ""})
    assert trace_text.parse_setup("ok f\nabsent f(): gone\n", wanted) == {"f()": "gone"}


def test_returns_that_a_probe_missed_are_told() -> None:
    wanted = trace.Wanted(returns={"f": ""})
    stats = "overrun: 0\ncommit overrun: 0\ndropped events: 0\n"
    stop = (
        f"N stats cpu0\n{stats}N profile\n  kvmhr0_f 12 3\n"
        "N trace\n# entries-in-buffer/entries-written: 0/0   #P:1\nN end\n"
    )
    found = trace_text.counts("  kvmhr0_f 5 1\n", stop, "N", wanted, {})
    assert found.probes == {trace.returned("f"): trace.Probe(7, 2)}


def test_a_slowed_probe_is_made_without_slowness_where_the_kernel_cannot() -> None:
    script = tracefs.setup_script(trace.Wanted(functions=("f", "g"), slowed={"f": 8}))
    slow, plain = script.split(" || { echo 'p:kvm_harness/kvmh0_f f'")
    assert slow.endswith(":symstr' 2>/dev/null >> $T/kprobe_events && made=0; }")
    assert "%x30" not in plain
    assert "kvmh1_g g'" in plain


def test_whether_an_entry_takes_long_is_told() -> None:
    wanted = trace.Wanted(functions=("f", "g"), slowed={"f": 8})
    script = tracefs.setup_script(wanted)
    told = script.index("case $made in")
    assert script.index("kvmh0_f") < told < script.index("kvmh1_g")
    # By what the probe was made, if it was.
    case = script[told : script.index("esac") + 4]
    for made, words in (("0", "ok slowed f"), ("1", "looks up no symbol"), ("", "has no probe")):
        done = subprocess.run(
            ["sh", "-eu", "-c", f"made={made}\n{case}"], capture_output=True, text=True, check=True
        )
        assert words in done.stdout
    assert "slowed g" not in script
    assert trace_text.parse_setup("ok f\nok slowed f\nok g\n", wanted) == {}
    said = "ok f\nabsent slowed f: no symbols\nok g\n"
    assert trace_text.parse_setup(said, wanted) == {trace.slowed_entry("f"): "no symbols"}


def test_what_takes_longer_than_one_probe_can_gets_more_of_them() -> None:
    often = 2 * trace.PROBE_FULL + 1
    script = tracefs.setup_script(trace.Wanted(functions=("f",), slowed={"f": often}))
    assert script.count(":symstr") == often
    made = [line for line in script.split("echo '") if line.startswith("p:kvm_harness/kvmh0_f")]
    # The last is the one that is made where the kernel looks up no symbol.
    assert [line.count(":symstr") for line in made] == [trace.PROBE_FULL, 0, trace.PROBE_FULL, 1]
    slow = {line.split()[0] for line in made}
    assert slow == {f"p:kvm_harness/kvmh0_f{end}" for end in ("", "_slow1", "_slow2")}
    for end in ("_slow1", "_slow2"):
        assert f"kvmh0_f{end}/filter" in script
        assert f"kvmh0_f{end}/enable" in script


def test_a_further_probe_that_is_refused_is_told(tmp_path: Path) -> None:
    often = 2 * trace.PROBE_FULL
    script = tracefs.setup_script(trace.Wanted(functions=("f",), slowed={"f": often}))
    part = script[script.index('[ "$made" != 0 ]') : script.index("esac") + 4]
    said = {}
    for made in ("0", "1", ""):
        # There is no event that could be filtered.
        argv = ["sh", "-eu", "-c", f"made={made} T={tmp_path} I={tmp_path}/no\n{part}"]
        said[made] = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert "refuses a further probe" in said["0"]
    assert "looks up no symbol" in said["1"] and "has no probe" in said[""]


def test_a_return_that_takes_longer_than_one_probe_can_gets_more_of_them() -> None:
    often = trace.PROBE_FULL + 2
    script = tracefs.setup_script(trace.Wanted(returns={"f": ""}, slowed={"f": often}))
    assert script.count(":symstr") == often
    made = [line for line in script.split("echo '") if line.startswith("r256:kvm_harness/")]
    assert [line.split()[0].removeprefix("r256:kvm_harness/kvmhr0_f") for line in made] == [
        "",
        "_slow",
        "_slow1",
    ]
    assert "'common_pid < 0' > $I/events/kvm_harness/kvmhr0_f_slow1/filter" in script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=10)


def test_what_one_thread_alone_is_slowed_by_is_in_an_instance_for_it() -> None:
    often = trace.PROBE_FULL + 1
    wanted = trace.Wanted(returns={"f": ""}, slowed={"f": often}, slowed_thread=97)
    script = tracefs.setup_script(wanted)
    subprocess.run(["sh", "-n"], input=script, text=True, check=True, timeout=10)
    assert "echo 97 > $J/set_event_pid" in script
    # Before a probe is enabled: none may be met by others.
    assert script.index("set_event_pid") < script.index("/enable; echo 'ok f()'")
    for end, instance in (("", "$I"), ("_slow", "$J"), ("_slow1", "$J")):
        assert f"echo 1 > {instance}/events/kvm_harness/kvmhr0_f{end}/enable" in script
    assert "set_event_pid" not in tracefs.setup_script(trace.Wanted(returns={"f": ""}))
    both = trace.merged(trace.Wanted(returns={"g": ""}), wanted)
    assert both.slowed_thread == 97


def test_what_a_killed_run_left_goes_with_both_instances(tmp_path: Path) -> None:
    alone, instance = tmp_path / "kvm-harness-alone", tmp_path / "kvm-harness"
    script = tracefs.REMOVE.replace(tracefs.INSTANCE, str(instance)).replace(
        tracefs.TRACEFS, str(tmp_path / "no")
    )
    for folder in (alone, instance):
        (folder / "events").mkdir(parents=True)
    # In tracefs the files go with the folder.
    script = script.replace("rmdir", "rm -r")
    subprocess.run(["sh", "-eu", "-c", script], check=True, timeout=10)
    assert not list(tmp_path.iterdir())


def test_a_slowed_return_is_another_probe_than_the_one_that_is_recorded() -> None:
    wanted = trace.Wanted(returns={"f": "", "g": ""}, slowed={"f": 2})
    script = tracefs.setup_script(wanted)
    plain, slow = (script.index(f"r256:kvm_harness/kvmhr0_f{end} f") for end in ("", "_slow"))
    # Of two on one return the earlier one comes first, so its event is not late.
    assert plain < slow
    assert "symstr" not in script[plain:slow]
    assert "s1=%x30:symstr" in script[slow:]
    # In the ring buffer such an event damages what follows it.
    assert "'common_pid < 0' > $I/events/kvm_harness/kvmhr0_f_slow/filter" in script[slow:]
    said = "ok f()\nabsent slowed f(): refused\nok g()\n"
    assert trace_text.parse_setup(said, wanted) == {trace.slowed_return("f"): "refused"}


HEADER = "# tracer: nop\n# entries-in-buffer/entries-written: 2/2   #P:2\n"
MARKS = (
    "       kvm-guest-146     [000] .....    11.567114: tracing_mark_write: "
    "kvm-guest: 1 0xffff82e00000 0xffff82e40000\n"
    "       kvm-guest-146     [000] .....    11.590043: tracing_mark_write: "
    "kvm-guest: 0 0xffff82e00000 0xffff82e40000\n"
)


def test_what_the_guest_program_marked_is_an_event() -> None:
    events, _ = trace_text.parse_trace(HEADER + MARKS, SMALL.names)
    assert [event.name for event in events] == [trace.MARK] * 2
    assert [event.fields["begins"] for event in events] == [1, 0]
    assert events[0].fields["end"] - events[0].fields["start"] == 64 * 4096
    counts = Counts(SMALL, {}, 0, {}, events, "")
    assert counts.events(trace.MARK) == events


def test_a_mark_of_somebody_else_is_an_error() -> None:
    with pytest.raises(ObserveError, match="unknown form of mark"):
        trace_text.parse_trace(HEADER + MARKS.replace("kvm-guest: 1", "hello: 1"), SMALL.names)


def test_an_entry_that_is_recorded_stands_in_the_trace_by_its_function() -> None:
    wanted = trace.Wanted(functions=("f", "g.isra.0"), entries=("g.isra.0",))
    script = tracefs.setup_script(wanted)
    assert "'common_pid < 0' > $I/events/kvm_harness/kvmh0_f/filter" in script
    assert "kvmh1_g_isra_0/filter" not in script
    text = (
        "# entries-in-buffer/entries-written: 1/1   #P:2\n"
        "  kvm-guest-196     [000] d..2.    36.672000: kvmh1_g_isra_0: (g.isra.0+0x0/0x88)\n"
    )
    (event,), _ = trace_text.parse_trace(text, wanted.names)
    assert (event.name, event.time, event.pid, event.fields) == ("g.isra.0", 36672000, 196, {})
    found = Counts(wanted, {}, 0, {"g.isra.0": trace.Probe(1, 0)}, (event,), "")
    assert found.events("g.isra.0") == (event,)
    with pytest.raises(KeyError):
        found.events("f")


def test_an_entry_that_is_recorded_has_a_probe_that_takes_no_longer() -> None:
    with pytest.raises(UsageError, match="what has no probe"):
        trace.Wanted(functions=("f",), entries=("g",))
    with pytest.raises(UsageError, match="cannot take long"):
        trace.Wanted(functions=("f",), entries=("f",), slowed={"f": 2})
    with pytest.raises(Unproven, match="cannot be observed"):
        Counts(trace.Wanted(functions=("f",), entries=("f",)), {"f": "none"}, 0, {}, (), "").events(
            "f"
        )


def test_events_of_a_probe_that_missed_some_prove_nothing() -> None:
    """One return less makes two agings of what were three, or one that lasts for both."""
    wanted = Wanted(functions=("f", "g"), returns={"r": ""}, entries=("f",))
    probes = {
        "f": trace.Probe(0, 2),
        "g": trace.Probe(1, 0),
        trace.returned("r"): trace.Probe(5, 1),
    }
    counts = Counts(wanted, {}, 0, probes, (), "")
    for name, words in (("f", "missed 2 of 2"), (trace.returned("r"), "missed 1 of 6")):
        for read in (counts.events, counts.in_order):
            with pytest.raises(Unproven, match=words):
                read(name)
    assert counts.of("g") == 1


OURS = Wanted(functions=("f", "g", "h"), entries=("g",), slowed={"h": 1}, ours=("ager", "guest"))


def test_entries_by_others_are_recorded_and_of_what_must_not_be_entered_those_by_ours() -> None:
    script = tracefs.setup_script(OURS)
    for filtered, name in (
        ('comm != "ager" && comm != "guest"', "kvmh0_f"),
        ('comm == "ager" || comm == "guest"', "kvmh1_g"),
        # For everybody: it would be a name that takes long to print.
        ("common_pid < 0", "kvmh2_h"),
    ):
        assert f"printf '%s\\n' '{filtered}' > $I/events/kvm_harness/{name}/filter" in script
    assert [OURS.names[name] for name in ("kvmh0_f", "kvmh1_g")] == [trace.by_others("f"), "g"]
    assert "kvmh2_h" not in OURS.names
    with pytest.raises(UsageError, match="name of a task"):
        Wanted(ours=('x" || comm != "x',))


def by_whom(*names: str, lost: int = 0, missed: int = 0) -> Counts:
    """Five entries of each function, and the recorded ones of them."""
    events = tuple(trace.Event(0, 0, "any", 1, name, "", {}) for name in names)
    probes = {name: trace.Probe(5, missed) for name in OURS.functions}
    return Counts(OURS, {}, lost, probes, events, "")


def test_only_entries_by_ours_count() -> None:
    found = by_whom(trace.by_others("f"), trace.by_others("f"), "g")
    assert (found.of("f"), found.of_others("f")) == (3, 2)
    assert (found.of("g"), found.of_others("g")) == (1, 4)
    assert (found.of("h"), found.of_others("h")) == (5, 0)
    for name in ("f", "g"):
        with pytest.raises(Unproven, match="does not tell by whom"):
            by_whom(lost=1).of(name)
        with pytest.raises(Unproven, match="missed 1 of 6"):
            by_whom(missed=1).of(name)
    none = Counts(OURS, {}, 9, {"f": trace.Probe(0, 0)}, (), "")
    assert none.of("f") == 0


def test_what_several_record_is_recorded_once() -> None:
    first = Wanted(
        ("a:x", "a:y", "a:z"), ("f", "g"), filters={"a:x": "x > 0", "a:y": "p"}, ours=("t",)
    )
    other = Wanted(
        ("a:y", "a:x"), ("g", "h"), filters={"a:x": "x > 1"}, entries=("g",), ours=("u",)
    )
    both = trace.merged(first, other, Wanted(buffer_kib=4096))
    assert both.events == ("a:x", "a:y", "a:z")
    assert both.filters == {"a:x": "(x > 0) || (x > 1)"}
    assert (both.functions, both.entries, both.ours) == (("f", "g", "h"), ("g",), ("t", "u"))
    assert both.buffer_kib == 4096
