# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark: right ratios, a denominator that did the work, nothing left on disk."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from harness import bench, bench_build, bench_ssh, replay
from harness.bench import Bare
from harness.errors import DeadlineExceeded, InfraError
from harness.hosts import qemu
from harness.inventory import QemuHost
from harness.kernel import cache
from harness.paths import PROJECT, cache_home
from harness.replay import Outcome
from harness.results import Cell, Check, Summary

ALL = Outcome(same=3, replies=3, commands_failed=1, commands=5, files_failed=0, files=7)
BUILD = {"plain": 1000.0, "cold": 1100.0, "series": 219.0, "ccache": 110.0}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def summary(*ids: str) -> Summary:
    cells = tuple(
        Cell(
            id=name,
            host="n1",
            kernel="base",
            kvm_mode="vhe",
            af_mode="hardware",
            outcome="pass",
            boot_seconds=2,
            seconds=20,
        )
        for name in ids
    )
    checks = tuple(
        Check(cell=name, name="test_x", outcome="pass", expected="", observed="", seconds=15)
        for name in ids
    )
    return Summary(
        schema=1,
        harness="0",
        verdict="pass",
        series="",
        seed=1,
        started="",
        seconds=40,
        emulated=True,
        cells=cells,
        checks=checks,
    )


@pytest.mark.parametrize(("seconds", "words"), [(60.0, "2.00 (goal: at most 2, reached)")])
def test_the_figures_of_the_matrix(seconds: float, words: str) -> None:
    bare = (Bare(10.0, ALL), Bare(20.0, ALL))
    text = "\n".join(bench.describe(summary("a", "b"), seconds, {"cells": 45.0}, bare))
    assert f"ratio: {words}" in text
    assert " 75.0 %  cells" in text
    assert " 10.0 %  boot" in text
    assert "6 of 6 replies of guests as recorded; failed: 2 of 10 commands, 0 of 14 reads" in text
    missed = bench.describe(summary("a", "b"), seconds + 1, {}, bare)
    assert any("2.03 (goal: at most 2, MISSED)" in line for line in missed)


def test_the_figures_of_the_builds() -> None:
    text = "\n".join(bench_build.describe(BUILD, 3))
    assert "ratio to plain make: 1.10 (goal: at most 1.1, reached)" in text
    assert "(3 files): 219 s, 0.199 of a full build (goal: under 0.2, reached)" in text
    assert "110 s, 0.10 of cold" in text
    slow = "\n".join(bench_build.describe({**BUILD, "cold": 1101.0, "series": 221.0}, 3))
    assert slow.count("MISSED") == 2


@pytest.mark.parametrize(
    ("chosen", "done"),
    [
        ({}, ["matrix", "build", "ssh"]),
        ({"build": False, "ssh": False}, ["matrix"]),
        ({"matrix": False, "ssh": False}, ["build"]),
        ({"matrix": False, "build": False}, ["ssh"]),
    ],
)
def test_all_are_measured_unless_some_are_chosen(
    chosen: dict[str, bool], done: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def matrix(console: Console) -> int:
        seen.append("matrix")
        return 4

    monkeypatch.setattr(bench, "bench_matrix", matrix)
    monkeypatch.setattr(bench_build, "bench", lambda console: seen.append("build"))
    monkeypatch.setattr(bench_ssh, "bench", lambda console: seen.append("ssh"))
    code = bench.bench(Console(file=io.StringIO()), **chosen)
    assert seen == done
    assert code == (4 if "matrix" in done else 0)


def fake_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> tuple[object, Cell]:
    """A run with one cell, whose QEMU is a shell that writes a console and ends."""
    image = tmp_path / "image.cpio"
    image.write_bytes(b"")
    folder = tmp_path / "cells" / "a"
    folder.mkdir(parents=True)
    (folder / "commands.jsonl").write_text(json.dumps({"run": "true"}) + "\n")

    def arguments(*args: object) -> list[str]:
        return ["sh", "-c", f'printf "%s" "$0" > {args[-1]}', said]

    monkeypatch.setattr(qemu, "arguments", arguments)
    (cell,) = summary("a").cells
    spec = SimpleNamespace(
        cell=SimpleNamespace(id="a", host="n1", cmdline=()),
        host=QemuHost(kind="qemu", cpu="neoverse-n1", af="hardware", kvm_modes=("vhe",)),
        image=SimpleNamespace(initramfs=image),
        kernel=SimpleNamespace(image=tmp_path / "Image"),
        programs={},
        folder=folder,
    )
    return SimpleNamespace(specs=(spec,)), cell


def console(same: int, replies: int, files_failed: int = 0) -> str:
    return (
        "[    0.000000] Booting\r\n"
        f"{replay.SAYS} reply 2 begins with 'error', recorded was ok\r\n"
        f"{replay.SAYS} {same} of {replies} replies as recorded; failed: 0 of 1 commands, "
        f"{files_failed} of 9 reads and writes\r\n{replay.OVER}\r\n"
    )


def test_a_bare_run_that_did_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cell = fake_run(tmp_path, monkeypatch, console(5, 5))
    found = bench.bare_run(run, cell)  # type: ignore[arg-type]
    assert found.outcome == Outcome(5, 5, 0, 1, 0, 9)
    assert 0 < found.seconds < 20
    assert list(cache.folder("staging").iterdir()) == []


@pytest.mark.parametrize(
    "said", [console(4, 5), console(5, 5, 1), console(5, 5).replace(replay.OVER, ""), ""]
)
def test_a_bare_run_that_did_not_is_an_error(
    said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cell = fake_run(tmp_path, monkeypatch, said)
    with pytest.raises(InfraError, match="a: the bare QEMU run did"):
        bench.bare_run(run, cell)  # type: ignore[arg-type]
    assert list(cache.folder("staging").iterdir()) == []


def test_a_bare_run_has_a_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, cell = fake_run(tmp_path, monkeypatch, "")
    monkeypatch.setattr(qemu, "arguments", lambda *args: ["sleep", "60"])
    monkeypatch.setattr(bench, "BARE_SECONDS", 0.1)
    with pytest.raises(DeadlineExceeded, match="bare QEMU for a"):
        bench.bare_run(run, cell)  # type: ignore[arg-type]


def test_builds_have_a_cache_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_home()
    with bench_build._own_cache():
        inside = cache_home()
        assert inside.is_relative_to(before)
        assert inside != before
        # As an unpacked source is: without write permission.
        (inside / "x").mkdir(mode=0o500)
    assert cache_home() == before
    assert not inside.exists()
    monkeypatch.delenv("XDG_CACHE_HOME")
    with bench_build._own_cache():
        assert "XDG_CACHE_HOME" in os.environ
    assert "XDG_CACHE_HOME" not in os.environ


def test_what_a_killed_benchmark_left_is_swept_at_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = (
        "import time; from harness import bench_build; from harness.paths import cache_home\n"
        "with bench_build._own_cache():\n"
        "    (cache_home() / 'big').write_text('x'); print('there', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=PROJECT
    ) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"there\n"
        monkeypatch.setattr(bench_build, "bench", lambda console: None)
        staging = cache.folder("staging")

        def again() -> list[Path]:
            bench.bench(Console(file=io.StringIO()), matrix=False, ssh=False)
            return list(staging.rglob("big"))

        assert len(again()) == 1, "it is in use still"
        killed.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while again() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(staging.iterdir()) == []
