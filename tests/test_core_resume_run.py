# SPDX-License-Identifier: GPL-2.0-only
"""What `run --resume` does to a run's folder: nothing, until it is certain that the run goes on."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_up import a_summary
from pydantic import TypeAdapter
from rich.console import Console

from harness import machines, prepare, resume, runinput
from harness import run as run_module
from harness.errors import InfraError
from harness.hosts import qemu
from harness.kernel import series as series_module
from harness.kernel.apply import PatchedTree
from harness.kernel.machine import MachineConfig, keep, kept
from harness.kernel.source import Source
from harness.observe import cpu
from harness.options import Options
from harness.paths import PROJECT
from harness.plan import PlannedCell
from harness.progress import Progress
from harness.records import append, write_atomically
from harness.results import SERIES, Cell, Check, Host, Summary
from harness.run import Run, Step
from harness.runinput import InputChanged
from harness.series_builds import NAMES, SeriesBuild
from harness.timing import judge as timing
from harness.timing.judge import Times
from harness.timing.options import TimingOptions

OPTIONS = TypeAdapter(Options)
BASE, PATCHED = (PlannedCell("n1", label, "vhe", "hardware") for label in ("base", "patched"))
SERIES_OPTIONS = Options(
    series=(str(PROJECT / "tests/mutants/access-fault-sets-nothing.patch"),),
    hosts=("n1",),
    kvm_modes=("vhe",),
)


def check(cell: str, name: str) -> Check:
    return Check(cell=cell, name=name, outcome="pass", expected="e", observed="o", seconds=0.1)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Case:
    """A run that was cut off, and machinery that makes kernels and boots no host."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.out = io.StringIO()
        self.build_id = "ab"
        self.config = folder.parent / "config"
        self.config.write_text("CONFIG_ARM64_4K_PAGES=y\n")
        self.ran: list[str] = []
        self.made: list[tuple[tuple[str, ...], MachineConfig | None]] = []
        """Which kernels, for which hosts and from what."""
        self.builders: dict[str, object] = {}
        self.booted: dict[str, str] = {}
        """The build id that each cell is given."""
        self.of_series: list[str] = []
        self.spread: dict[str, Any] = {}
        self.emulator: Callable[[], str] = lambda: "8.0"
        source = Source(dir=folder, digest="d", version="6.12.117", description="a tree")
        patched = PatchedTree(
            dir=folder, digest="p", source_digest="d", version="6.12.117",
            description="a tree and a patch", touched=("mm/vmscan.c",),
        )  # fmt: skip
        ground = SimpleNamespace(programs={}, image=SimpleNamespace(digest="i"), source=source)
        monkeypatch.setattr(qemu, "check_qemu", lambda: self.emulator())
        self.ground = ground
        self.images: list[bool] = []
        """Whether there was need of a user space for hosts that are emulated here."""
        monkeypatch.setattr(prepare, "ground", self._ground)
        monkeypatch.setattr(prepare, "patched_tree", lambda *_: patched)
        monkeypatch.setattr(prepare, "kernel", self._kernel)
        monkeypatch.setattr(run_module, "_check_selection", lambda _: ("test_a",))
        monkeypatch.setattr(run_module, "build_of_series", self._build_of_series)
        monkeypatch.setattr(prepare, "cell_spec", self._spec)
        monkeypatch.setattr(run_module, "run_cells", self._run_cells)

    def _ground(self, *_: object, emulated: bool, **__: object) -> SimpleNamespace:
        self.images.append(emulated)
        return self.ground

    def base_commit(self, commit: str | None) -> None:
        """Which commit the source is at."""
        self.ground.source = self.ground.source.model_copy(update={"base_commit": commit})

    def _kernel(self, label: str, *_: Any, **how: Any) -> Any:
        self.builders[label] = how.get("builder")
        names = label.partition(" of ")[2]
        self.made.append((tuple(names.split()), how.get("machine")))
        return SimpleNamespace(
            release="6", build_id=f"{self.build_id}-{label}", config_sha256="", cached=True,
            seconds=0.0, compiler="gcc 12", config=self.config, builder="",
        )  # fmt: skip

    def _build_of_series(self, which: SeriesBuild, *_: Any, **__: Any) -> Check:
        self.of_series.append(which.name)
        return check(SERIES, which.name)

    def _spec(
        self, cell: PlannedCell, host: Any, kernel: Any, *_: Any, machine: str, **__: Any
    ) -> Any:
        self.booted[cell.id] = kernel.build_id
        folder = self.folder / "cells" / cell.id
        return SimpleNamespace(cell=cell, folder=folder, pytest_args=(), machine=machine)

    def _run_cells(
        self, specs: Any, *, finished: Any, pass_fds: tuple[int, ...], others: Any, has: Any,
        **_: Any,
    ) -> None:  # fmt: skip
        self.spread = {
            "first": {one.cell.id: one.machine for one in specs},
            "others": {name: [one.machine for one in more] for name, more in others.items()},
            "has": has,
        }
        # The lock of the run, which is on its folder.
        assert [os.fstat(one).st_ino for one in pass_fds] == [self.folder.stat().st_ino]
        for spec in specs:
            self.ran.append(spec.cell.id)
            finished(spec, spec.cell.record("pass"), (check(spec.cell.id, "test_a"),))

    def cut_off(self, inputs: dict[str, str], options: Options = SERIES_OPTIONS) -> None:
        """Leave what a run leaves that was killed after its first cell."""
        cell = self.folder / "cells" / BASE.id
        cell.mkdir(parents=True)
        append(cell / resume.RECORDS, check(BASE.id, "test_a"))
        append(cell / resume.RECORDS, BASE.record("pass"))
        begun = runinput.begin(OPTIONS.dump_python(options, mode="json")).agreed(inputs)
        runinput.save(self.folder, begun)
        self.summarize("the cells have not all run yet", BASE.record("pass"))

    def summarize(self, reason: str, *cells: Cell) -> None:
        summary = a_summary(
            verdict="fail", reason=reason, started=runinput.now(), seconds=61.5, cells=cells
        )
        write_atomically(self.folder / resume.SUMMARY, summary)

    def resumed(self, junitxml: Path | None = None) -> Summary:
        progress = Progress(Console(file=self.out, width=200))
        return Run.resumed(str(self.folder), progress, jobs=1, junitxml=junitxml).execute()


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    (tmp_path / "run").mkdir()
    return Case(tmp_path / "run", monkeypatch)


def test_the_record_says_what_was_tested_and_with_what(case: Case) -> None:
    case.cut_off({})
    summary = case.resumed()
    assert summary.emulator == "QEMU 8.0"
    assert {kernel.compiler for kernel in summary.kernels} == {"gcc 12"}
    assert summary.message_id == ""
    assert summary.patches == ("access-fault-sets-nothing.patch",)
    assert summary.subject == "", "a bare diff has none"
    assert summary.series_base == "unnamed"


def test_a_contract_s_thread_is_not_that_of_patches_without_a_message_id(case: Case) -> None:
    options = replace(SERIES_OPTIONS, series=("lockless-harvest-v1",), kvm_modes=("vhe",))
    (patch,) = SERIES_OPTIONS.series
    case.cut_off({}, replace(options, mbox=Path(patch)))
    summary = case.resumed()
    assert summary.series == "lockless-harvest-v1"
    assert summary.message_id == ""
    assert summary.series_base == "doubtful", "the contract says that it was posted against another"


@pytest.mark.parametrize(
    ("source", "allowed", "found"),
    [("a" * 40, False, "same"), ("b" * 40, True, "doubtful"), (None, False, "doubtful")],
)
def test_whether_it_is_the_series_base_is_in_the_record(
    case: Case, tmp_path: Path, source: str | None, allowed: bool, found: str
) -> None:
    (patch,) = SERIES_OPTIONS.series
    named = tmp_path / "named.patch"
    named.write_text(f"{Path(patch).read_text()}\nbase-commit: {'a' * 40}\n")
    case.base_commit(source)
    case.cut_off({}, replace(SERIES_OPTIONS, series=(str(named),), allow_other_base=allowed))
    assert case.resumed().series_base == found


@pytest.mark.parametrize(
    ("narrowing", "only"),
    [
        ({}, ()),
        ({"hosts": ("n1",)}, ("n1 only",)),
        ({"hosts": ("n1", "a57")}, ()),
        ({"kvm_modes": ("vhe",)}, ("VHE only",)),
        ({"pytest_args": ("-k", "a")}, ("-k a",)),
    ],
)
def test_only_a_run_that_leaves_nothing_out_is_whole(
    case: Case, narrowing: dict[str, Any], only: tuple[str, ...]
) -> None:
    case.cut_off({}, replace(SERIES_OPTIONS, **{"hosts": (), "kvm_modes": (), **narrowing}))
    summary = case.resumed()
    assert (summary.whole, summary.only) == (not only, only)


def test_a_run_that_was_cut_off_goes_on(case: Case) -> None:
    case.cut_off({})
    summary = case.resumed()
    assert summary.kernels[0].page_kib == 4
    assert summary.harness_digest
    assert {host.name for host in summary.hosts} == {cell.host for cell in summary.cells}
    assert case.ran == [PATCHED.id]
    assert [cell.id for cell in summary.cells] == [BASE.id, PATCHED.id]
    assert (summary.verdict, summary.reason, len(summary.resumed)) == ("pass", "", 1)
    assert runinput.load(str(case.folder))[1].resumed == summary.resumed
    assert [one.name for one in summary.checks] == [NAMES[0], "test_a", "test_a"]
    assert case.of_series == [NAMES[0]]


def test_a_check_of_the_series_is_not_made_twice(case: Case) -> None:
    case.cut_off({}, replace(SERIES_OPTIONS, build_others=True))
    append(case.folder / run_module.RECORDS, check(SERIES, NAMES[0]))
    assert [one.name for one in case.resumed().checks] == [*NAMES, "test_a", "test_a"]
    assert case.of_series == list(NAMES[1:])


def test_a_run_that_had_ended_is_shown_and_left_alone(case: Case) -> None:
    case.cut_off({})
    case.summarize("", BASE.record("fail"))
    before = files(case.folder)
    summary = case.resumed()
    assert (summary.verdict, summary.seconds) == ("fail", 61.5)
    assert "verdict: FAIL" in case.out.getvalue()
    assert files(case.folder) == before
    assert (case.ran, case.of_series) == ([], [])


def test_nothing_is_touched_where_the_emulator_is_another(case: Case) -> None:
    case.cut_off({"QEMU": "7.2"})
    before = files(case.folder)
    with pytest.raises(InputChanged, match=r"QEMU: 7.2 then, 8.0 now"):
        case.resumed()
    assert files(case.folder) == before


def test_nothing_is_touched_where_a_kernel_is_another(case: Case) -> None:
    """Nor is a check of the series made before that is known."""
    case.cut_off({"patched kernel": "xy"})
    before = files(case.folder)
    with pytest.raises(InputChanged, match=r"patched kernel: xy then, ab-patched now"):
        case.resumed()
    assert files(case.folder) == before
    assert case.of_series == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, InfraError("QEMU is missing")])
def test_an_error_before_a_run_goes_on_is_none_of_the_run(
    case: Case, error: BaseException | type[BaseException]
) -> None:
    def broken() -> str:
        raise error

    case.cut_off({})
    case.emulator = broken
    before = files(case.folder)
    with pytest.raises(error if isinstance(error, type) else type(error)):
        case.resumed()
    assert files(case.folder) == before


def test_a_record_that_cannot_be_read_changes_nothing(case: Case) -> None:
    case.cut_off({})
    (case.folder / "cells" / BASE.id / resume.RECORDS).write_text("no record\n")
    before = files(case.folder)
    with pytest.raises(InfraError, match="not a record"):
        case.resumed()
    assert files(case.folder) == before


@pytest.mark.parametrize("asked", [None, "another.xml"])
def test_the_copy_of_junit_xml_that_the_run_was_asked_for_is_made(
    case: Case, tmp_path: Path, asked: str | None
) -> None:
    case.cut_off({}, replace(SERIES_OPTIONS, junitxml=tmp_path / "its.xml"))
    case.resumed(tmp_path / asked if asked else None)
    assert [path.name for path in tmp_path.glob("*.xml")] == [asked or "its.xml"]
    junit = (case.folder / "junit.xml").read_bytes()
    assert (tmp_path / (asked or "its.xml")).read_bytes() == junit


def test_a_machine_of_the_lab_that_nobody_asked_for_is_no_part_of_a_run(
    case: Case, tmp_path: Path
) -> None:
    """It is not even looked at, and the run's notes say so."""
    stock = (PROJECT / "inventory.yaml").read_text().rstrip()
    lab = "\n  lab1:\n    kind: ssh\n    address: 127.0.0.1\n    port: 1\n    agent: true\n"
    (tmp_path / "lab.yaml").write_text(f"{stock}{lab}    kvm_modes: [vhe]\n    af: hardware\n")
    case.cut_off({}, Options(inventory=tmp_path / "lab.yaml", base_only=True))
    summary = case.resumed()
    assert "not used: lab1 (kind ssh: a run reboots it, so --host must name it)" in summary.notes
    assert len(case.ran) > 1
    assert not any(cell.host == "lab1" for cell in summary.cells)
    assert (summary.whole, summary.only) == (False, ("without lab1",)), "it has one machine more"


N1, UNKNOWN = (cpu.parse_midr(f"{midr:#018x}\n") for midr in (0x414FD0C1, 0x511F0011))
SEEN = SimpleNamespace(
    seen=SimpleNamespace(cpus={0: N1, 1: N1, 2: UNKNOWN}, memory_mib=65536, emulator=""),
    findings=(),
)
VIRTUAL = SimpleNamespace(
    seen=SimpleNamespace(**{**vars(SEEN.seen), "emulator": "QEMU (DMI: QEMU x)"}), findings=()
)
OWN = MachineConfig("CONFIG_ARM64=y\nCONFIG_EXT4_FS=m\n", ("ext4",))


class Own:
    """Machines of a lab with configurations of their own, which are not there."""

    def __init__(self, case: Case, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[str, str]] = []
        self.now = OWN
        host = "\n    kind: ssh\n    address: 127.0.0.1\n    port: 1\n    agent: true\n"
        host += "    kvm_modes: [vhe]\n    af: hardware\n"
        stock = (PROJECT / "inventory.yaml").read_text().rstrip()
        stock += f"\n  lab1:{host}    config: machine\n    trim: true\n  lab2:{host}"
        (folder / "lab.yaml").write_text(stock)
        self.options = Options(
            inventory=folder / "lab.yaml", base_only=True, hosts=("n1", "lab1", "lab2"),
            kvm_modes=("vhe",),
        )  # fmt: skip
        monkeypatch.setattr(machines, "examine", lambda name, host: SEEN)
        monkeypatch.setattr(machines, "own_config", self._own_config)

    def _own_config(self, name: str, host: object, run: str, wait: float, say: object) -> Any:
        self.read.append((name, run))
        return self.now


@pytest.fixture
def own(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Own:
    return Own(case, tmp_path, monkeypatch)


def test_a_machine_with_its_own_configuration_has_its_own_kernels(case: Case, own: Own) -> None:
    case.cut_off({}, own.options)
    summary = case.resumed()
    assert own.read == [("lab1", case.folder.name)]
    assert case.made == [(("n1", "lab2"), None), (("lab1",), OWN)]
    assert [(one.label, one.hosts) for one in summary.kernels] == [
        ("base", ("n1", "lab2")),
        ("base", ("lab1",)),
    ]
    assert [one.name for one in summary.hosts] == ["n1", "lab1", "lab2"]
    assert summary.hosts[1] == Host(
        name="lab1", cpu="Neoverse N1 0x414fd0c1 (CPU 0-1), 0x511f0011 (CPU 2)", cpus=3,
        memory_mib=65536,
    )  # fmt: skip
    (note,) = [note for note in summary.notes if "its own configuration" in note]
    assert note.startswith("kernels of lab1 start from its own configuration: 2 settings")
    inputs = runinput.load(str(case.folder))[1].inputs
    assert inputs["configuration of lab1"] == OWN.digest
    assert inputs["base kernel of lab1"] == "ab-base of lab1"
    assert case.booted == {
        "n1-vhe-base": "ab-base of n1 lab2",
        "lab1-vhe-base": "ab-base of lab1",
        "lab2-vhe-base": "ab-base of n1 lab2",
    }


def test_a_machine_that_builds_does_so_for_its_own_kernels_alone(
    case: Case, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    def builder_on(name: str, host: object, run: str, *_: object) -> Any:
        asked.append((name, run))
        return contextlib.nullcontext(f"builder {name}")

    monkeypatch.setattr(machines, "builder_on", builder_on)
    stock = own.options.inventory
    assert stock is not None
    text = stock.read_text()
    stock.write_text(text.replace("    trim: true\n", "    trim: true\n    build: on-host\n"))
    case.cut_off({}, own.options)
    case.resumed()
    assert asked == [("lab1", case.folder.name)]
    assert case.builders == {"base of n1 lab2": None, "base of lab1": "builder lab1"}


@pytest.mark.parametrize("fact", ["cpus", "memory_mib"])
def test_a_machine_that_does_not_tell_what_it_is_is_not_told_in_part(
    case: Case, own: Own, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    silent = SimpleNamespace(**{**vars(SEEN.seen), fact: None})
    told = {"lab1": SEEN, "lab2": SimpleNamespace(seen=silent, findings=())}
    monkeypatch.setattr(machines, "examine", lambda name, host: told[name])
    case.cut_off({}, own.options)
    assert [one.name for one in case.resumed().hosts] == ["n1", "lab1"]


def machine_of_lab(own: Own, monkeypatch: pytest.MonkeyPatch, *hosts: str) -> Options:
    """A run on these, of which lab2 says that it is emulated."""
    told = {"lab1": SEEN, "lab2": VIRTUAL}
    monkeypatch.setattr(machines, "examine", lambda name, host: told[name])
    return replace(own.options, hosts=hosts)


@pytest.mark.parametrize(
    ("hosts", "emulator", "here"),
    [
        (("lab1",), "", False),
        (("lab2",), "QEMU (DMI: QEMU x)", False),
        (("lab1", "lab2"), "QEMU (DMI: QEMU x)", False),
        (("n1", "lab1"), "QEMU 8.0", True),
        (("n1", "lab2"), "QEMU 8.0; QEMU (DMI: QEMU x)", True),
    ],
)
def test_a_machine_that_says_that_it_is_emulated_is(
    case: Case,
    own: Own,
    monkeypatch: pytest.MonkeyPatch,
    hosts: tuple[str, ...],
    emulator: str,
    here: bool,
) -> None:
    """That is told of the run; what is made for its hosts is as before."""
    case.cut_off({}, machine_of_lab(own, monkeypatch, *hosts))
    summary = case.resumed()
    assert (summary.emulated, summary.emulator) == (bool(emulator), emulator)
    told = [note for note in summary.notes if note.startswith("hosts are emulated by ")]
    assert told == ([f"hosts are emulated by {emulator}"] if emulator else [])
    assert case.images == [here]
    inputs = runinput.load(str(case.folder))[1].inputs
    assert inputs["QEMU"] == ("8.0" if here else "")


def test_a_machine_in_a_test_kernel_that_says_less_is_what_it_was(
    case: Case, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run may have left one there, which has no DMI."""
    case.cut_off({}, machine_of_lab(own, monkeypatch, "lab2"))
    assert case.resumed().emulated
    case.summarize("x")
    monkeypatch.setattr(machines, "examine", lambda name, host: SEEN)
    summary = case.resumed()
    assert (summary.emulated, summary.emulator) == (True, "QEMU (DMI: QEMU x)")
    case.summarize("x")
    other = SimpleNamespace(**{**vars(SEEN.seen), "emulator": "a hypervisor"})
    monkeypatch.setattr(
        machines, "examine", lambda name, host: SimpleNamespace(seen=other, findings=())
    )
    assert case.resumed().emulator == "QEMU (DMI: QEMU x)"


def test_a_machine_without_a_cell_makes_no_run_emulated(
    case: Case, own: Own, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for, and has not the mode of KVM that was."""
    options = machine_of_lab(own, monkeypatch, "lab1", "lab2")
    assert options.inventory is not None
    head, lab2 = options.inventory.read_text().split("  lab2:")
    options.inventory.write_text(f"{head}  lab2:{lab2.replace('[vhe]', '[nvhe]')}")
    case.cut_off({}, options)
    summary = case.resumed()
    assert [one.name for one in summary.hosts] == ["lab1"]
    assert (summary.emulated, summary.emulator) == (False, "")


def test_cells_of_a_machine_that_is_lost_by_now_were_emulated_all_the_same(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = rack(tmp_path, monkeypatch, "a1")
    case.cut_off({}, options)
    (case.folder / machines.FOLDER).mkdir()
    (case.folder / machines.FOLDER / "a1.emulator").write_text("QEMU (DMI: QEMU x)\n")
    summary = case.resumed()
    assert [one.name for one in summary.hosts] == ["a2", "a3"]
    assert (summary.emulated, summary.emulator) == (True, "QEMU (DMI: QEMU x)")


@pytest.mark.parametrize(("host", "emulated"), [("lab1", False), ("lab2", True)])
def test_no_time_on_an_emulated_machine_of_a_lab_is_a_result(
    case: Case, own: Own, monkeypatch: pytest.MonkeyPatch, host: str, emulated: bool
) -> None:
    (patch,) = SERIES_OPTIONS.series
    judged: list[bool] = []

    def judge(*_: object, emulated: bool) -> Times:
        judged.append(emulated)
        return Times()

    monkeypatch.setattr(timing, "judge", judge)
    monkeypatch.setattr(timing, "collect", lambda *_: None)
    options = machine_of_lab(own, monkeypatch, host)
    options = replace(options, series=(patch,), base_only=False, timing=TimingOptions())
    case.cut_off({}, options)
    case.resumed()
    assert judged == [emulated]


def test_a_run_goes_on_with_what_was_read_at_its_start(case: Case, own: Own) -> None:
    """The machine may have loaded other modules by now; nor is it asked again."""
    case.cut_off({"configuration of lab1": OWN.digest}, own.options)
    keep(OWN, case.folder / machines.FOLDER, "lab1")
    own.now = MachineConfig(OWN.text, ("ext4", "xfs"))
    case.resumed()
    assert own.read == []
    assert case.made[1] == (("lab1",), OWN)


def test_a_run_that_lost_what_was_read_does_not_go_on_with_another(case: Case, own: Own) -> None:
    case.cut_off({"configuration of lab1": OWN.digest}, own.options)
    own.now = MachineConfig(OWN.text, ("ext4", "xfs"))
    before = files(case.folder)
    with pytest.raises(InputChanged, match="configuration of lab1"):
        case.resumed()
    assert files(case.folder) == before


def test_a_step_along_a_series_has_the_configuration_of_its_base(
    case: Case, own: Own, tmp_path: Path
) -> None:
    keep(OWN, case.folder / machines.FOLDER, "lab1")
    (patch,) = SERIES_OPTIONS.series
    base = Summary(
        schema=1, harness="0", verdict="pass", reason="", series="", seed=1,
        started=runinput.now(), seconds=1.0, emulated=False,
    )  # fmt: skip
    step = Step(series_module.load(patch), True, base, case.folder)
    options = replace(own.options, base_only=False, series=(patch,), output=tmp_path / "steps")
    (tmp_path / "steps").mkdir()
    run = Run(options, Progress(Console(file=case.out, width=200)), step)
    # The mark on the folder's lock is that of another run.
    case.folder = run.folder
    run.execute(show=False)
    assert own.read == []
    assert kept(run.folder / machines.FOLDER, "lab1") == OWN


def rack(folder: Path, monkeypatch: pytest.MonkeyPatch, *silent: str) -> Options:
    """Three machines that are alike, some of which do not answer."""
    one = "    kind: ssh\n    address: 127.0.0.1\n    agent: true\n    kvm_modes: [vhe, nvhe]\n"
    one += "    af: hardware\n    group: altra\n"
    lab = "".join(f"  a{number}:\n{one}" for number in (1, 2, 3))
    defaults = (PROJECT / "inventory.yaml").read_text().partition("hosts:")[0]
    (folder / "lab.yaml").write_text(f"{defaults}hosts:\n{lab}")

    def examine(name: str, _: object) -> object:
        if name in silent:
            raise InfraError(f"no answer from {name}")
        return SEEN

    monkeypatch.setattr(machines, "examine", examine)
    return replace(SERIES_OPTIONS, inventory=folder / "lab.yaml", hosts=("altra",), kvm_modes=())


def test_the_cells_of_a_group_are_for_all_of_its_machines(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for those that the run must do without; which has run cells of a mode is remembered."""
    case.cut_off({}, rack(tmp_path, monkeypatch, "a1"))
    (case.folder / "cells" / BASE.id / resume.RECORDS).unlink()
    done = PlannedCell("altra", "base", "vhe", "hardware")
    folder = case.folder / "cells" / done.id
    folder.mkdir()
    append(folder / resume.RECORDS, done.record("pass").model_copy(update={"machine": "a2"}))
    summary = case.resumed()
    left = ["altra-vhe-patched", "altra-nvhe-base", "altra-nvhe-patched"]
    assert case.spread == {
        "first": dict.fromkeys(left, "a2"),
        "others": {name: ["a3"] for name in (done.id, *left)},
        "has": {("altra", "vhe"): "a2"},
    }
    assert "not used: a1: no answer from a1" in summary.notes
    assert [one.name for one in summary.hosts] == ["a2", "a3"]


def test_a_group_does_without_a_machine_that_was_lost_while_it_built(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = rack(tmp_path, monkeypatch)
    stock = tmp_path / "lab.yaml"
    alike = "    group: altra\n"
    text = stock.read_text()
    stock.write_text(text.replace(alike, f"{alike}    config: machine\n    build: on-host\n"))
    lost = {"a1"}

    def builder_on(name: str, *_: object) -> Any:
        if name in lost:
            raise InfraError(f"the connection to {name} ended")
        return contextlib.nullcontext(f"builder {name}")

    monkeypatch.setattr(machines, "builder_on", builder_on)
    monkeypatch.setattr(machines, "own_config", lambda *_: OWN)
    case.cut_off({}, options)
    summary = case.resumed()
    assert "not used: a1: the connection to a1 ended" in summary.notes
    assert set(case.spread["first"].values()) == {"a2"}
    assert {name for more in case.spread["others"].values() for name in more} == {"a3"}
    assert set(case.builders) == {f"{a} of {b}" for a in ("base", "patched") for b in ("a2", "a3")}
    case.summarize("x")
    lost |= {"a2", "a3"}
    with pytest.raises(InfraError, match="the connection to a3 ended"):
        case.resumed()


def test_trouble_with_a_patched_kernel_ends_the_run_of_a_group(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be the series' doing; and whoever has the machine meanwhile learns of it."""
    options = rack(tmp_path, monkeypatch)
    stock = tmp_path / "lab.yaml"
    alike = "    group: altra\n"
    text = stock.read_text()
    stock.write_text(text.replace(alike, f"{alike}    config: machine\n    build: on-host\n"))
    told: list[str] = []

    @contextlib.contextmanager
    def builder_on(name: str, *_: object) -> Iterator[str]:
        try:
            yield f"builder {name}"
        except InfraError as exc:
            told.append(f"{name}: {exc}")
            raise

    def kernel(label: str, *args: Any, **how: Any) -> Any:
        if label == "patched of a1":
            raise InfraError("make exited 2 without an error of its own")
        return case._kernel(label, *args, **how)

    monkeypatch.setattr(machines, "builder_on", builder_on)
    monkeypatch.setattr(machines, "own_config", lambda *_: OWN)
    monkeypatch.setattr(prepare, "kernel", kernel)
    case.cut_off({}, options)
    with pytest.raises(InfraError, match="make exited 2"):
        case.resumed()
    assert told == ["a1: make exited 2 without an error of its own"]


def test_a_group_without_any_machine_ends_the_run(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = rack(tmp_path, monkeypatch, "a1", "a2")
    case.cut_off({}, replace(options, hosts=("altra", "a2")))
    with pytest.raises(InfraError, match="no answer from a2"):
        case.resumed()
    case.summarize("x")
    rack(tmp_path, monkeypatch, "a1", "a2", "a3")
    with pytest.raises(InfraError, match="no answer from"):
        case.resumed()
