# SPDX-License-Identifier: GPL-2.0-only
"""How a check ends decides its outcome. Real pytest, real plugin, no host behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from harness.checks import plugin as plugin_module
from harness.checks.plugin import PYTEST_ARGS, CellPlugin
from harness.contract_load import BASE
from harness.errors import ConnectionCut, DeadlineExceeded, HostDied, InfraError
from harness.records import append, read
from harness.results import Check, CpuAf, af_seen

HEAD = """
import pytest
from fake_guest import start
from harness.errors import DeadlineExceeded, HostDied, InfraError, LinuxGuestDied
from harness.guest_errors import GuestBroke, GuestDataLost, GuestHung, IdleBitmapShort
from harness.observe.errors import Impossible
from harness.observe.unproven import Unproven
"""


class NoCollector:
    """Counters are collected from a real host elsewhere."""

    def __init__(self, shell: object) -> None:
        pass

    def before(self) -> str:
        return "before"

    def after(self) -> str:
        return "after"


class Spec:
    """What of a CellSpec the plugin looks at."""

    def __init__(self, folder: Path) -> None:
        self.run_folder = folder
        self.folder = folder / "cells" / "n1-vhe-base"
        self.folder.mkdir(parents=True)
        self.contract = None
        self.becomes = None
        self.base_contract = BASE
        self.seed = 7
        self.check_seconds = 0.5
        self.slowdown = 1.0
        self.cell = type("Planned", (), {"id": "n1-vhe-base"})()


class Host:
    """A shell and a console; `error` is what every command ends with."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def run(self, command: str, deadline: object = None, *, check: bool = True) -> None:
        if self.error is not None:
            raise self.error

    def text(self) -> str:
        return ""

    def hung(self, why: str) -> HostDied:
        return HostDied("hang", why)


def run_checks(
    text: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: Host | None = None,
    earlier: Check | None = None,
) -> tuple[dict[str, Check], CellPlugin]:
    monkeypatch.setattr(plugin_module, "Collector", NoCollector)
    monkeypatch.setattr(plugin_module, "evidence", lambda before, after: {"dmesg.txt": "log\n"})
    path = folder / f"test_given_{abs(hash(folder))}.py"
    path.write_text(HEAD + text)
    machine: Any = host or Host()
    spec: Any = Spec(folder)
    if earlier is not None:
        append(spec.folder / "records.jsonl", earlier)
    began: list[str] = []
    plugin = CellPlugin(spec, machine, machine, machine, begins=began.append)
    pytest.main([*PYTEST_ARGS, "--rootdir", str(folder), str(path)], plugins=[plugin])
    records = read(spec.folder / "records.jsonl")
    ran = [one.name for one in records if isinstance(one, Check) and one != earlier]
    assert began == ran, "each check is told of before it does anything"
    return {one.name: one for one in records if isinstance(one, Check)}, plugin


KASAN = """\
[   15.186654] BUG: KASAN: use-after-free in __kvm_pgtable_walk+0x7e8/0x810
[   15.186700] Read of size 8 at addr ffff000005182100 by task dd/101
"""
LOST = """
def test_lost():
    raise InfraError("kvm-guest ended")
"""


class Reports(Host):
    """A console on which the kernel reports something, before a check begins or in it."""

    def __init__(self, *, early: bool) -> None:
        super().__init__()
        self._shown = KASAN if early else ""

    def text(self) -> str:
        before, self._shown = self._shown, KASAN
        return before


def test_what_the_kernel_reported_in_a_check_that_could_not_go_on_is_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have taken the guest along, or the connection."""
    checks, _ = run_checks(LOST, tmp_path, monkeypatch, Reports(early=False))
    (lost,) = checks.values()
    title = "BUG: KASAN: use-after-free in __kvm_pgtable_walk+0x7e8/0x810"
    assert lost.outcome == "fail"
    assert lost.reason == f"the kernel reported {title}; kvm-guest ended"
    assert [splat.title for splat in lost.splats] == [title]
    assert any(path.endswith("error.txt") for path in lost.evidence)


def test_what_it_reported_before_that_check_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, _ = run_checks(LOST, tmp_path, monkeypatch, Reports(early=True))
    (lost,) = checks.values()
    assert (lost.outcome, lost.reason, lost.splats) == ("error", "kvm-guest ended", ())


def test_a_death_is_judged_as_a_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = LOST.replace('InfraError("', 'HostDied("panic", "')
    checks, _ = run_checks(text, tmp_path, monkeypatch, Reports(early=False))
    (lost,) = checks.values()
    assert (lost.outcome, lost.death, lost.splats) == ("error", "panic", ())


ENDS = """
def test_good(claim):
    '''Expected by its docstring.'''
    claim.observe("seen")

def test_wrong(claim):
    claim.expect("4 young")
    assert 3 == 4, "3 are young"

def test_wrong_by_pytest():
    pytest.fail("3 are young")

def test_says_nothing():
    pass

def test_of_a_part(claim):
    claim.observe("no splat")
    claim.not_judged("tables, since the host has 1 other VM")

def test_wrong_in_the_rest(claim):
    claim.not_judged("tables, since the host has 1 other VM")
    assert not 1, "a splat"

def test_loops():
    while True:
        pass

def test_lost():
    raise Unproven("2 events were lost")

def test_not_here():
    pytest.skip("only in protected mode")

def test_ours():
    raise InfraError("the lab is on fire")

def test_broken_check():
    {}["nothing"]

def test_data():
    raise GuestDataLost("page 3 is not what was written")

def test_short():
    raise IdleBitmapShort("8 of 16 bytes")

def test_no_page_idle():
    guest, _ = start("error system /sys/kernel/mm/page_idle/bitmap: No such file or directory "
                     "(errno 2)")
    guest.idle_mark()

def test_page_idle_fails():
    guest, _ = start("error system /sys/kernel/mm/page_idle/bitmap: Bad address (errno 14)")
    guest.idle_mark()

def test_broken_table():
    raise Impossible("stage2_page_tables", 3, "a leaf of level 3 with BLK True")

def test_broken_guest():
    raise GuestBroke("vCPU 0 took an exception")

def test_livelock():
    raise GuestHung("vCPU 0 hangs", 0, None, 1, 2)

@pytest.fixture
def bad():
    raise InfraError("set-up failed")

def test_set_up(bad):
    pass
"""


def test_each_end_has_its_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks, plugin = run_checks(ENDS, tmp_path, monkeypatch)
    assert {name: check.outcome for name, check in checks.items()} == {
        "test_good": "pass",
        "test_wrong": "fail",
        "test_wrong_by_pytest": "fail",
        "test_says_nothing": "unproven",
        "test_of_a_part": "unproven",
        "test_wrong_in_the_rest": "fail",
        "test_loops": "error",
        "test_lost": "unproven",
        "test_not_here": "skip",
        "test_ours": "error",
        "test_broken_check": "error",
        "test_data": "fail",
        "test_short": "fail",
        "test_no_page_idle": "unproven",
        "test_page_idle_fails": "error",
        "test_broken_guest": "fail",
        "test_broken_table": "fail",
        "test_livelock": "error",
        "test_set_up": "error",
    }
    assert plugin.death is None
    assert checks["test_livelock"].death == "livelock"
    assert checks["test_good"].expected == "Expected by its docstring."
    assert checks["test_good"].observed == "seen"
    assert checks["test_wrong"].expected == "4 young"
    assert checks["test_wrong"].reason == "3 are young"
    assert "observed nothing" in checks["test_says_nothing"].reason
    assert "CONFIG_IDLE_PAGE_TRACKING is off" in checks["test_no_page_idle"].reason
    of_a_part = checks["test_of_a_part"]
    assert of_a_part.observed == "no splat; not judged: tables, since the host has 1 other VM"
    assert of_a_part.reason == "not judged: tables, since the host has 1 other VM"
    assert "longer than a check may" in checks["test_loops"].reason
    assert "itself is broken" in checks["test_broken_check"].reason
    assert checks["test_good"].evidence == ("cells/n1-vhe-base/test_good/dmesg.txt",)
    trace = tmp_path / "cells/n1-vhe-base/test_broken_check/error.txt"
    assert "KeyError" in trace.read_text()


DIES = """
def test_first():
    raise {error}

def test_second():
    pass
"""


PROVES_AND_DIES = """
from harness.checks.undo import undone

def die():
    raise HostDied("hang", "the VM does not go")

def test_in_the_call():
    with undone(die):
        assert 257 == 0, "257 tables left"

@pytest.fixture
def dies():
    yield
    die()

def test_at_the_end(dies):
    assert 257 == 0, "257 tables left"
"""


@pytest.mark.parametrize("name", ["test_in_the_call", "test_at_the_end"])
def test_what_was_proven_before_the_host_died_stays(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PROVES_AND_DIES.replace(f"def {name}", "def test_a").replace("def test_in", "def in")
    text = text.replace("def test_at", "def at")
    checks, plugin = run_checks(text, tmp_path, monkeypatch)
    (check,) = checks.values()
    assert (check.outcome, check.reason, check.death) == ("fail", "257 tables left", None)
    assert plugin.death is not None


HANGS = """
def test_first():
    raise GuestHung("vCPU 0 hangs", 0, None, 1, 2)

def test_second(claim):
    claim.observe("seen")

def test_third():
    raise GuestHung("vCPU 0 hangs", 0, None, 1, 2)

def test_fourth():
    pass
"""


def test_a_second_guest_that_hangs_ends_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, plugin = run_checks(HANGS, tmp_path, monkeypatch)
    assert {name: check.death for name, check in checks.items()} == {
        "test_first": "livelock",
        "test_second": None,
        "test_third": "livelock",
    }
    assert plugin.death is not None
    assert plugin.death.kind == "livelock"


GUEST_ENDS = """
@pytest.mark.parametrize("kind", ["guest-panic", "guest-hang", "guest-gone"])
def test_guest(kind):
    raise LinuxGuestDied(kind, "the last on its console: ...")

def test_next(claim, deadline):
    assert 0 < deadline.remaining() <= 0.5 == deadline.budget
    claim.observe("seen")
"""


def test_ends_of_linux_guests_are_their_own_and_end_no_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks, plugin = run_checks(GUEST_ENDS, tmp_path, monkeypatch)
    assert {name: (check.outcome, check.death) for name, check in checks.items()} == {
        "test_guest[guest-panic]": ("error", "guest-panic"),
        "test_guest[guest-hang]": ("error", "guest-hang"),
        "test_guest[guest-gone]": ("error", "guest-gone"),
        "test_next": ("pass", None),
    }
    assert plugin.death is None


def test_a_dead_host_ends_the_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = DIES.format(error="HostDied('panic', 'Kernel panic')")
    checks, plugin = run_checks(text, tmp_path, monkeypatch)
    assert list(checks) == ["test_first"]
    assert (checks["test_first"].outcome, checks["test_first"].death) == ("error", "panic")
    assert plugin.death is not None
    assert plugin.death.kind == "panic"


def test_a_death_outranks_what_came_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
@pytest.fixture
def guest():
    yield
    raise HostDied("panic", "while the guest went")

def test_a(guest):
    raise Unproven("lost")
"""
    checks, plugin = run_checks(text, tmp_path, monkeypatch)
    assert checks["test_a"].death == "panic"
    assert plugin.death is not None


def test_a_death_while_several_fixtures_end_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
@pytest.fixture
def first():
    yield
    raise InfraError("the first")

@pytest.fixture
def second(first):
    yield
    raise HostDied("panic", "the second")

def test_a(second, claim):
    claim.observe("seen")
"""
    checks, plugin = run_checks(text, tmp_path, monkeypatch)
    assert checks["test_a"].death == "panic"
    assert plugin.death is not None


def test_an_error_outranks_a_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """
@pytest.fixture
def host():
    yield
    raise InfraError("the lab is on fire")

def test_a(host):
    pytest.skip("not here")
"""
    checks, _ = run_checks(text, tmp_path, monkeypatch)
    assert checks["test_a"].outcome == "error"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (None, "hang"),
        (DeadlineExceeded("nothing came"), "hang"),
        (InfraError("the connection broke"), "hang"),
        (HostDied("panic", "late panic"), "panic"),
    ],
)
def test_a_wait_without_end_is_a_hang(
    answer: Exception | None, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DIES.format(error="DeadlineExceeded('gave up')")
    checks, plugin = run_checks(text, tmp_path, monkeypatch, Host(answer))
    assert list(checks) == ["test_first"]
    assert checks["test_first"].death == kind
    assert plugin.death is not None


def test_a_wait_over_a_connection_that_was_cut_is_no_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = DIES.format(error="DeadlineExceeded('gave up')")
    checks, plugin = run_checks(text, tmp_path, monkeypatch, Host(ConnectionCut("cut")))
    assert (checks["test_first"].outcome, checks["test_first"].death) == ("error", None)
    assert plugin.death is None
    assert len(checks) == 2, "the next one runs, over another connection"


def test_marked_last_runs_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "@pytest.mark.last\ndef test_a(): pass\ndef test_b(): pass\n"
    checks, _ = run_checks(text, tmp_path, monkeypatch)
    assert list(checks) == ["test_b", "test_a"]


def test_random_numbers_depend_on_seed_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def test_a(claim, rng): claim.observe(str(rng.random()))\n"
    text += "def test_b(claim, rng): claim.observe(str(rng.random()))\n"
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    first, _ = run_checks(text, tmp_path / "1", monkeypatch)
    again, _ = run_checks(text, tmp_path / "2", monkeypatch)
    assert first["test_a"].observed == again["test_a"].observed
    assert first["test_a"].observed != first["test_b"].observed


def test_what_a_check_saw_on_each_cpu_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
from harness.results import CpuAf

def test_looks(claim, expected_af):
    claim.observe(str(expected_af))
    kind = CpuAf(cpus="0", midr="", model="", expected="software", why="", observed="hardware")
    claim.af_cpus = (kind,)

def test_does_not(claim):
    claim.observe("seen")
"""
    checks, plugin = run_checks(text, tmp_path, monkeypatch)
    kinds = cast(tuple[CpuAf, ...], af_seen(plugin.checks)["af_cpus"])
    assert [(kind.cpus, kind.observed) for kind in kinds] == [("0", "hardware")]
    assert checks["test_looks"].observed == "()"


GOES_ON = """
import pytest

@pytest.mark.last
def test_whole(claim):
    claim.observe("seen")

@pytest.mark.parametrize("way", ["done", "left"])
def test_some(claim, way):
    claim.observe("seen anew")
"""


def test_a_cell_that_was_cut_off_goes_on_from_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Check(
        cell="n1-vhe-base",
        name="test_some[done]",
        outcome="fail",
        expected="e",
        observed="seen once",
        af_observed="hardware",
    )
    checks, plugin = run_checks(GOES_ON, tmp_path, monkeypatch, earlier=done)
    assert list(checks) == ["test_some[done]", "test_some[left]", "test_whole"]
    assert checks["test_some[done]"] == done
    assert af_seen(plugin.checks)["af_observed"] == "hardware"


def test_what_a_check_saw_of_the_fast_path_is_in_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
def test_seen(claim):
    claim.observe("seen")
    claim.fast_path = False

def test_blind(claim):
    claim.observe("seen")
"""
    checks, _ = run_checks(text, tmp_path, monkeypatch)
    assert {name: one.fast_path for name, one in checks.items()} == {
        "test_seen": False,
        "test_blind": None,
    }


def test_a_hang_before_the_cut_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = Check(
        cell="n1-vhe-base",
        name="test_earlier",
        outcome="error",
        expected="e",
        observed="o",
        death="livelock",
    )
    checks, plugin = run_checks(HANGS, tmp_path, monkeypatch, earlier=hung)
    assert list(checks) == ["test_earlier", "test_first"]
    assert plugin.death is not None
