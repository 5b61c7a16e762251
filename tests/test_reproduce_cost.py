# SPDX-License-Identifier: GPL-2.0-only
"""A broken promise on a cost, shown by a folder: its script makes the numbers that the harness
makes, of consoles that were saved, and is run by a real sh with a QEMU that only prints them."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from cost_consoles import (
    BASE,
    BUILD_ID,
    CONFIG_SHA256,
    LOCKLESS,
    LOCKLESS_BUILD_ID,
    NAMES,
    edited,
    saved,
)
from made_up import a_check, a_summary
from rich.console import Console

from harness.cost.framing import Gave
from harness.cost.metrics import METRICS, costs
from harness.cost.readings import parse
from harness.errors import InfraError, UsageError
from harness.hosts import counting
from harness.hosts.counting import Counting
from harness.progress import Progress
from harness.reproduce import command, cost
from harness.reproduce.cost import Broken, broken
from harness.results import SERIES, Check, Figure, Kernel, KernelLabel, Summary

CHECK = "cost[n1-vhe-cost-notifier]"
VARIANT = ("kvm-arm.x=1", "kvm_cost.sizes=1,2")


def figure(metric: str = "cost-notifier", **fields: object) -> Figure:
    value = {"base": costs(parse(BASE)), "patched": costs(parse(LOCKLESS))}
    given: dict[str, object] = {
        "metric": metric, "what": METRICS[metric].what, "unit": METRICS[metric].unit,
        "host": "n1", "kvm_mode": "vhe", "af_mode": "hardware", "verdict": "worse", "spread": 2.0,
        **{label: (float(one.values[metric]),) * 2 for label, one in value.items()},
    }  # fmt: skip
    return Figure.model_validate({**given, **fields})


def check(words: str = "not more than without the series", name: str = CHECK) -> Check:
    expected = f"cost-notifier (KVM's notifier: by page_idle): {words}"
    return a_check(name, cell=SERIES, outcome="fail", expected=expected)


def of(promise: str = "not-worse", metric: str = "cost-notifier", **fields: object) -> Broken:
    return Broken(check(), figure(metric, **fields), promise)


def machines(folder: Path) -> dict[KernelLabel, Counting]:
    program = folder / "cost-init"
    return {
        "base": Counting("neoverse-n1", folder / "Image.base", program, VARIANT[1:]),
        "patched": Counting("neoverse-n1", folder / "Image", program, VARIANT),
    }


def written(folder: Path, one: Broken) -> Path:
    folder.mkdir()
    both = machines(folder)
    (folder / "run.sh").write_text(cost.run_sh(one, both["patched"]))
    for label, end in cost.SUFFIXES.items():
        (folder / f"cmdline{end}").write_text(f"{cost.cmdline(both[label])}\n")
    return folder


def run(
    folder: Path, *args: str, consoles: Mapping[str, str] | None = None, status: int = 0
) -> subprocess.CompletedProcess[str]:
    """run.sh; QEMU prints what is given for a kernel, by the name of its file."""
    tools = folder.parent / "tools"
    tools.mkdir()
    for name, text in (consoles or {}).items():
        (tools / name).write_text(text)
    program = tools / "qemu-system-aarch64"
    program.write_text(
        f"#!/bin/sh\nprintf '%s\\n' \"$@\" >>{folder.parent}/argv\n"
        f"cut -d ' ' -f 5 /proc/$$/stat >{folder.parent}/group\n"
        "while [ $1 != -kernel ]; do shift; done\n"
        f"cat {tools}/$(basename $2)\nexit {status}\n"
    )
    program.chmod(0o755)
    return subprocess.run(
        ["sh", str(folder / "run.sh"), *args],
        capture_output=True,
        text=True,
        env={"PATH": f"{tools}:{os.environ['PATH']}", "TMPDIR": str(folder.parent)},
        timeout=60,
    )


@pytest.mark.parametrize(
    ("name", "metric"),
    [(name, metric) for name in NAMES for metric in costs(parse(saved(name))).values],
)
def test_the_script_makes_the_number_that_the_harness_makes(
    tmp_path: Path, name: str, metric: str
) -> None:
    folder = written(tmp_path / "it", of(metric=metric))
    (tmp_path / "log").write_text(saved(name))
    done = run(folder, "-l", str(tmp_path / "log"))
    assert done.returncode == 0, done.stderr
    value = costs(parse(saved(name))).values[metric]
    assert float(done.stdout) == pytest.approx(float(value), abs=1e-4)


def lost(text: str) -> str:
    """A console without one of its lines."""
    return "".join(line for line in text.splitlines(True) if "pass walk pages=256" not in line)


@pytest.mark.parametrize("text", ["", LOCKLESS[:30000], lost(LOCKLESS)])
def test_a_console_that_is_not_whole_is_no_number(tmp_path: Path, text: str) -> None:
    consoles = {"Image.base": BASE, "Image": text}
    done = run(written(tmp_path / "it", of()), consoles=consoles)
    assert done.returncode == 2
    assert "did not come to its end" in done.stderr


def test_a_console_whose_program_gave_up_is_no_number(tmp_path: Path) -> None:
    """guests/cost goes on with the next process, and says "end"; no line of the metric is lost."""
    last = "faults access pages=1024 pass=4 exits=1"
    gave_up = edited(LOCKLESS, last, "failed access pages=1024 status=0x86")
    with pytest.raises(Gave, match="failed access"):
        parse(gave_up)
    consoles = {"Image.base": BASE, "Image": gave_up}
    done = run(written(tmp_path / "it", of()), consoles=consoles)
    assert (done.returncode, done.stdout) == (2, "")
    assert "gave up" in done.stderr


@pytest.mark.parametrize(
    ("promise", "spread", "patched", "code"),
    [
        ("not-worse", 2.0, LOCKLESS, 0),
        ("not-worse", 40.0, LOCKLESS, 0),  # each layout beyond each of the base, by the margin
        ("not-worse", 2.0, BASE, 1),
        ("better", 2.0, LOCKLESS, 0),
        ("better", 2.0, BASE, 0),
    ],
)
def test_what_is_seen(tmp_path: Path, promise: str, spread: float, patched: str, code: int) -> None:
    folder = written(tmp_path / "it", of(promise, spread=spread))
    done = run(folder, consoles={"Image.base": BASE, "Image": patched})
    assert done.returncode == code, done.stdout + done.stderr
    assert "cost-notifier: 629.2079 without the series" in done.stdout


def test_a_promise_to_be_better_that_is_kept_is_not_seen(tmp_path: Path) -> None:
    folder = written(tmp_path / "it", of("better"))
    done = run(folder, consoles={"Image.base": LOCKLESS, "Image": BASE})
    assert done.returncode == 1


def test_each_kernel_gets_its_own_boot_arguments(tmp_path: Path) -> None:
    """The base kernel is booted without the variant that the patched one was counted in."""
    folder = written(tmp_path / "it", of())
    run(folder, consoles={"Image.base": BASE, "Image": LOCKLESS})
    said = (tmp_path / "argv").read_text().splitlines()
    kernels = [said[at + 1] for at, word in enumerate(said) if word == "-kernel"]
    cmdlines = [said[at + 1] for at, word in enumerate(said) if word == "-append"]
    assert kernels == ["Image.base", "Image"]
    assert [VARIANT[0] in line for line in cmdlines] == [False, True]
    assert "shift=0,sleep=off" in said
    assert not {"-netdev", "-device"} & set(said)


def test_what_ends_the_script_by_ctrl_c_ends_qemu(tmp_path: Path) -> None:
    """A terminal signals a process group."""
    run(written(tmp_path / "it", of()), consoles={"Image.base": BASE, "Image": LOCKLESS})
    assert int((tmp_path / "group").read_text()) == os.getpgrp()


def test_qemu_that_fails_is_no_verdict(tmp_path: Path) -> None:
    done = run(written(tmp_path / "it", of()), consoles={"Image.base": BASE}, status=1)
    assert done.returncode == 2
    assert "QEMU ended with 1" in done.stderr


# ---- which, and how they are made ------------------------------------------------------------


def kernel(label: str, build_id: str, config: str = CONFIG_SHA256) -> Kernel:
    return Kernel.model_validate(
        {
            "label": label, "source": "s", "version": "6.12.117", "build_id": build_id,
            "config_sha256": config, "cached": True, "build_seconds": 1.0,
        }
    )  # fmt: skip


def summary(*checks: Check) -> Summary:
    kernels = (kernel("base", BUILD_ID), kernel("patched", LOCKLESS_BUILD_ID))
    every = (figure(), figure("cost-walk", variant="sw-af"))
    return a_summary(
        series="harvest", verdict="fail", kernels=kernels, checks=checks, figures=every
    )


def test_promises_that_are_broken() -> None:
    better = check("less than without the series", "cost[n1-vhe-sw-af-cost-walk]")
    passed = check().model_copy(update={"outcome": "pass"})
    whole = check("each kernel counts", "cost[n1-vhe]")
    found = broken(summary(check(), better, whole), ())
    assert [(one.check.name, one.figure.metric, one.promise) for one in found] == [
        (CHECK, "cost-notifier", "not-worse"),
        (better.name, "cost-walk", "better"),
    ]
    assert [one.check for one in broken(summary(check(), better), (CHECK,))] == [check()]
    assert broken(summary(passed, whole), ()) == ()


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A run's folder in which a promise is broken; boots end with what was saved."""

    def made(result: Summary) -> Path:
        home = tmp_path / "a home"
        cache = {"base": home / "base", "patched": home / "patched"}
        folder = tmp_path / "run"
        for label, path in cache.items():
            path.mkdir(parents=True)
            (path / "Image").write_text(label)
            (path / "config").write_text("CONFIG_KVM=y")
            boot = folder / f"cost/n1-vhe/{label}-reference"
            boot.mkdir(parents=True)
            counted = Counting("neoverse-n1", path / "Image", home / "old", VARIANT)
            argv = counting.arguments(counted, boot / "initramfs.cpio", boot / "console.log")
            (boot / "qemu.txt").write_text(" ".join(argv) + "\n")
        (folder / "summary.json").write_text(result.model_dump_json(by_alias=True))
        program = home / "cost-init"
        program.write_text("ELF")

        def boot_all(
            boots: Sequence[tuple[Counting, Path]],
            *,
            at_once: int,
            seconds: float,
            finished: Callable[[int, str], None],
        ) -> None:
            for number, (boot, _) in enumerate(boots):
                assert (boot.cpu, boot.cmdline, boot.memory_mib) == ("neoverse-n1", VARIANT, 2048)
                finished(number, {"base": BASE, "patched": LOCKLESS}[boot.kernel.read_text()])

        # The saved consoles show the configuration that they were booted with.
        monkeypatch.setattr(cost, "_config", lambda machine, _: machine.kernel.with_name("config"))
        monkeypatch.setattr(cost, "cost_program", lambda _: program)
        monkeypatch.setattr(counting, "boot_all", boot_all)
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
        return folder

    return made


def reproduce(run: Path) -> tuple[Path, ...]:
    return command.reproduce(command.Request(str(run)), Progress(Console(file=io.StringIO())))


def test_a_folder_for_a_broken_promise(ran: Callable[..., Path]) -> None:
    (folder,) = reproduce(ran(summary(check())))
    assert folder.name == "series--cost_n1-vhe-cost-notifier"
    assert folder.with_name(f"{folder.name}.tar.gz").is_file()
    names = {"README", "run.sh", "Image", "Image.base", "config", "config.base", "cost-init"}
    names |= {"initramfs.cpio", "expected.txt", "observed.txt", "cmdline", "cmdline.base"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "Image").read_text() == "patched"
    assert (folder / "Image.base").read_text() == "base"
    words = "console=ttyAMA0 earlycon panic=-1"
    # Each was counted in this variant (ran() writes it down of both).
    assert (folder / "cmdline").read_text() == f"{words} {' '.join(VARIANT)}\n"
    assert (folder / "cmdline.base").read_text() == f"{words} {' '.join(VARIANT)}\n"
    assert (folder / "observed.txt").read_text() == "base: 629.2079\npatched: 664.2079\n"
    readme = (folder / "README").read_text()
    assert readme.count("\n") == 5
    assert f"Broken: {CHECK} fails (Linux 6.12.117 with harvest" in readme
    assert "629.21 without the series and 664.21 with it" in readme
    assert "the failure is seen." in readme
    text = (folder / "run.sh").read_text()
    assert str(folder.parents[2]) not in text, "nothing of this machine"


def test_a_kernel_that_is_gone_or_another(ran: Callable[..., Path], tmp_path: Path) -> None:
    folder = ran(summary(check()))
    (tmp_path / "a home/patched/Image").unlink()
    with pytest.raises(InfraError, match="in the cache no more"):
        reproduce(folder)
    (tmp_path / "a home/patched/Image").write_text("base")
    with pytest.raises(InfraError, match="built was"):
        reproduce(folder)


def test_a_run_of_another_harness(ran: Callable[..., Path], tmp_path: Path) -> None:
    folder = ran(summary(check()))
    (folder / "cost/n1-vhe/base-reference/qemu.txt").write_text("qemu-system-aarch64 -x\n")
    with pytest.raises(UsageError, match="another version"):
        reproduce(folder)


def test_a_metric_that_this_harness_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "cost_program", lambda _: pytest.fail("it is told before any work"))
    unknown = figure().model_copy(update={"metric": "cost-old"})
    with pytest.raises(UsageError, match="cost-old is a metric of another version"):
        cost.make(tmp_path, summary(), Broken(check(), unknown, "not-worse"), tmp_path)


def test_the_configuration_is_that_of_the_kernel(tmp_path: Path) -> None:
    image = tmp_path / "Image"
    (tmp_path / "config").write_text("x")
    machine = Counting("a57", image, image, ())
    good = hashlib.sha256(b"x").hexdigest()
    assert cost._config(machine, kernel("base", BUILD_ID, good)) == tmp_path / "config"
    with pytest.raises(InfraError, match="not the configuration"):
        cost._config(machine, kernel("base", BUILD_ID))


def test_a_cell_that_is_named_is_no_promise(ran: Callable[..., Path]) -> None:
    folder = ran(summary(check()))
    with pytest.raises(UsageError, match="nothing in that run failed"):
        command.reproduce(
            command.Request(str(folder), cells=("n1-vhe-patched",)), Progress(Console(quiet=True))
        )
