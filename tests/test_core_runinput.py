# SPDX-License-Identifier: GPL-2.0-only
"""A run goes on only from what it began with, in one process at a time."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from harness import inputs, inventory, programs, runinput
from harness.cli import main
from harness.errors import UsageError
from harness.options import Options
from harness.runinput import InputChanged

OPTIONS = TypeAdapter(Options)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """The command takes over signals of its process, which here is the tests'."""
    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in ours.items():
        signal.signal(number, handler)


def test_options_come_back_as_they_were(tmp_path: Path) -> None:
    options = Options(
        inventory=Path("i.yaml"),
        series=("a.patch", "b.patch"),
        kvm_modes=("vhe",),
        checks=(Path("/x/y.py"),),
        pytest_args=("-k", "a or b", "-x"),
        jobs=2,
    )
    runinput.save(tmp_path, runinput.begin(OPTIONS.dump_python(options, mode="json")))
    folder, found = runinput.load(str(tmp_path))
    assert folder == tmp_path
    assert found.cwd == Path.cwd()
    assert OPTIONS.validate_python(found.options) == options


def test_inputs_are_added_as_they_become_known_and_never_change() -> None:
    begun = runinput.begin({}).agreed({"base kernel": "aa", "series": "cc"})
    assert begun.agreed({"base kernel": "aa", "patched kernel": "bb"}).inputs == {
        **begun.inputs,
        "patched kernel": "bb",
    }
    with pytest.raises(InputChanged) as caught:
        begun.agreed({"base kernel": "ab", "series": "cd"})
    assert "base kernel: aa then, ab now; series: cc then, cd now" in str(caught.value)
    assert caught.value.exit_code == 2


def test_the_harness_is_all_that_measures_and_judges(tmp_path: Path) -> None:
    """Two that count or time by other programs are two, whatever else they have in common."""
    measures = ("harness/a.py", "harness/b/c.sh", "guests/Makefile", "guests/cost/a.c")
    others = ("README.md", "harness/report/report.css", "guests/build/main.o", "tests/a.py")
    for name in (*measures, *others, "guests/kvm-guest/p.lds", "series/base.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("1")
    seen = {runinput.harness(tmp_path)}
    for name in (*measures, "guests/kvm-guest/p.lds", "series/base.yaml"):
        (tmp_path / name).write_text("2")
        assert runinput.harness(tmp_path) not in seen, name
        seen.add(runinput.harness(tmp_path))
    for name in others:
        (tmp_path / name).write_text("2")
        assert runinput.harness(tmp_path) in seen, name


def test_the_harness_that_runs_has_its_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = runinput.harness()
    monkeypatch.setattr(programs, "sources", lambda _: ())
    assert runinput.harness() != whole


def test_a_run_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folder = tmp_path / "kvm-harness/runs/20261122-1"
    folder.mkdir(parents=True)
    with pytest.raises(UsageError, match="no run '20261122-1'"):
        runinput.load("20261122-1")
    runinput.save(folder, runinput.begin({}))
    assert runinput.load("20261122-1")[0] == folder
    (folder / runinput.NAME).write_text('{"schema": 1}')
    with pytest.raises(UsageError, match="not from this version"):
        runinput.load("20261122-1")


def started(program: str, folder: Path) -> subprocess.Popen[bytes]:
    """A process with this program, which is given a run's folder."""
    argv = [sys.executable, "-c", program, str(folder)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_one_process_at_a_time_works_in_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runinput, "ENDING_SECONDS", 0.0)
    hold = (
        "import sys, pathlib; from harness import runinput\n"
        "with runinput.alone(pathlib.Path(sys.argv[1])):\n"
        " print('held', flush=True); sys.stdin.read()"
    )
    holder = started(hold, tmp_path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match="still at work"), runinput.alone(tmp_path):
        pass
    holder.kill()
    holder.communicate()
    with runinput.alone(tmp_path):
        pass


def test_a_run_is_at_work_until_its_cells_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real scheduler in a process that is killed; its cell outlives it until it is told."""
    monkeypatch.setattr(runinput, "ENDING_SECONDS", 0.0)
    hold = (
        "import pathlib, subprocess, sys; from types import SimpleNamespace as N\n"
        "from harness import proc, runinput, scheduler\n"
        "def spawn(argv, *, env, stdout, stderr, pass_fds):\n"
        " life = ['sh', '-c', 'echo cell; read x']\n"
        " return subprocess.Popen(life, stdin=0, pass_fds=pass_fds)\n"
        "proc.spawn, scheduler.write_atomically = spawn, lambda *_: None\n"
        "spec = N(folder=pathlib.Path(sys.argv[1], 'cell'), cell_seconds=60, cell=N(id='c'))\n"
        "spec.cell.host, spec.cell.kvm_mode = 'n1', 'vhe'\n"
        "spec.machine, spec.host = 'n1', N(kind='qemu')\n"
        "spec.model_copy = lambda update: spec\n"
        "with runinput.alone(pathlib.Path(sys.argv[1])) as lock:\n"
        " scheduler.run_cells([spec], jobs=1, finished=print, tick=id, say=print, pass_fds=(lock,))"
    )
    holder = started(hold, tmp_path)
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith(b"cell")
    holder.kill()
    holder.wait()
    with pytest.raises(UsageError, match="still at work"), runinput.alone(tmp_path):
        pass
    holder.stdin.close()
    monkeypatch.undo()
    holder.stdout.close()
    with runinput.alone(tmp_path):
        pass


def test_a_lock_that_is_given_back_soon_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as first:
        first.enter_context(runinput.alone(tmp_path))
        monkeypatch.setattr(time, "sleep", lambda _: first.close())
        with runinput.alone(tmp_path):
            pass


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a")
    two.write_text("b")
    first = runinput.digest([one, two])
    assert runinput.digest([two, one]) == first
    two.write_text("c")
    assert runinput.digest([one, two]) != first
    two.write_text("b")
    assert runinput.digest([one]) != first
    two.rename(tmp_path / "six.py")
    assert runinput.digest([one, tmp_path / "six.py"]) != first


def test_check_files_of_the_user_are_an_input(tmp_path: Path) -> None:
    stock = inventory.load()
    (tmp_path / "test_a.py").write_text("a")
    first = inputs.chosen(stock, None, [tmp_path], "8.0")
    (tmp_path / "test_a.py").write_text("b")
    second = inputs.chosen(stock, None, [tmp_path], "8.0")
    assert first["checks"] != second["checks"]
    assert first["inventory"] == second["inventory"]


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What the command says when it ends with a usage error."""
    with pytest.raises(SystemExit) as caught:
        main(["run", "--resume", *args])
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("other", [["--base-only"], ["-k", "x"], ["--seed", "2"]])
def test_options_that_would_make_it_another_run_are_refused(
    capsys: pytest.CaptureFixture[str], other: list[str]
) -> None:
    assert "leave out" in refused(capsys, "x", *other)


def test_a_run_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run" in refused(capsys, "20990101-000000-0000", "--jobs", "1")


def test_another_harness_does_not_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And touches nothing of what the run has found."""
    begun = runinput.begin(OPTIONS.dump_python(Options(), mode="json"))
    other = begun.model_copy(update={"inputs": {"harness": "0.0.9, 00"}})
    runinput.save(tmp_path, other)
    before = (tmp_path / runinput.NAME).read_bytes()
    assert "harness: 0.0.9, 00 then" in refused(capsys, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [runinput.NAME]
    assert (tmp_path / runinput.NAME).read_bytes() == before
