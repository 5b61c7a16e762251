# SPDX-License-Identifier: GPL-2.0-only
"""The workflow of GitHub Actions: its steps are run by bash as a runner does it, with programs that
write down what they were asked for, and what they were asked for is what there is."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import cli
from harness.hosts.command import check
from harness.timing.options import DEFAULT

ROOT = Path(__file__).parents[1]
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/kvm.yaml").read_text())
ACTION: dict[str, Any] = yaml.safe_load((ROOT / ".github/actions/report/action.yaml").read_text())
STEPS: dict[str, dict[str, Any]] = {
    f"{job} {at}": step
    for job, steps in {
        **{name: job["steps"] for name, job in WORKFLOW["jobs"].items()},
        "report": ACTION["runs"]["steps"],
    }.items()
    for at, step in enumerate(steps)
}
SCRIPTS = [name for name, step in STEPS.items() if "run" in step]
(MACHINE,) = (name for name in SCRIPTS if STEPS[name].get("name") == "Is there a machine?")
MEASURING = [name for name in SCRIPTS if STEPS[name].get("name") in ("Run", "Times")]
# What is set without a choice, and what a push, a person who asks for a run or the repository may.
SET = {"KVM_MODE": "vhe", "RUNS": "runs"}
ENVIRONMENTS: tuple[dict[str, str], ...] = (
    SET,
    {
        **SET,
        "SERIES": "a series; touch out",
        "MARK": "quick",
        "COST": "yes",
        "INVENTORY": "lab.yaml",
        "HOST": "altra",
    },
)
STUBS = ("apt-get", "make", ".venv/bin/kvm-harness")


@dataclass(frozen=True)
class Ran:
    """What a step did: its exit code and output, and each program's arguments."""

    code: int
    output: str
    asked: tuple[tuple[str, ...], ...]


def run(step: dict[str, Any], folder: Path, env: dict[str, str], code: int = 0) -> Ran:
    """A step's script as GitHub runs `shell: bash`; the programs end with `code`."""
    log = folder / "asked"
    for name in STUBS:
        program = folder / name if "/" in name else folder / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(
            f'#!/bin/bash\nprintf "%s\\0" {Path(name).name} "$@" >>{log}\n'
            f"echo >>{log}\nexit {code}\n"
        )
        program.chmod(0o755)
    for name in ("20260101-000000-aaaa", "20260102-000000-bbbb"):
        (folder / "runs" / name).mkdir(parents=True)
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
        cwd=folder,
        env={
            "PATH": f"{folder}/bin:{os.environ['PATH']}",
            "RUNNER_TEMP": str(folder),
            "GITHUB_STEP_SUMMARY": str(folder / "summary"),
            **env,
        },
        capture_output=True,
        text=True,
        timeout=30,
    )
    lines = log.read_text().split("\0\n")[:-1] if log.exists() else []
    return Ran(done.returncode, done.stdout, tuple(tuple(line.split("\0")) for line in lines))


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=["nothing set", "all set"])
@pytest.mark.parametrize("name", [name for name in SCRIPTS if name != MACHINE])
def test_what_the_steps_ask_for_is_there(name: str, env: dict[str, str], tmp_path: Path) -> None:
    ran = run(STEPS[name], tmp_path, env)
    assert ran.asked
    assert not (tmp_path / "out").exists()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for program, *args in ran.asked:
        if program == "make":
            assert args[0] in targets
            assert all(re.fullmatch(r"ARGS=.*", arg) for arg in args[1:])
        if program == "kvm-harness":
            options = cli._parser().parse_args(args)
            if args[0] in ("run", "time"):
                assert options.series == ([env["SERIES"]] if "SERIES" in env else [])


def test_tox_has_the_environments_that_are_named(tmp_path: Path) -> None:
    (step,) = (step for step in STEPS.values() if step.get("run", "").startswith("make test "))
    ((_, _, arguments),) = run(step, tmp_path, {}).asked
    names = arguments.removeprefix("ARGS=-e ").split(",")
    tox = (ROOT / "tox.ini").read_text()
    assert all(f"[testenv:{name}]" in tox for name in names)


@pytest.mark.parametrize("name", MEASURING)
@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_the_exit_code_of_a_run_is_that_of_its_step(name: str, code: int, tmp_path: Path) -> None:
    ran = run(STEPS[name], tmp_path, {}, code)
    assert ran.code == code
    first, *_, last = ran.output.splitlines()
    assert first == f"::stop-commands::{last.strip(':')}", "commands are obeyed again at its end"
    assert re.fullmatch(r"::[0-9a-f-]{36}::", last)


@pytest.mark.parametrize("code", [0, 3])
def test_the_newest_run_is_reported_and_no_report_loses_another(code: int, tmp_path: Path) -> None:
    ran = run(STEPS["report 0"], tmp_path, SET, code)
    assert {args[2] for args in ran.asked} == {"runs/20260102-000000-bbbb/"}
    assert [args[4] for args in ran.asked] == ["github", "markdown", "html"]
    assert (tmp_path / "summary").is_file()
    assert ran.code == code


def test_evidence_is_kept_whatever_failed() -> None:
    reports = [step for step in STEPS.values() if step.get("uses") == "./.github/actions/report"]
    folders = [step["with"].get("runs", "runs") for step in reports]
    assert folders == ["runs", "runs", "times"]
    for step, folder in zip(reports, folders, strict=True):
        assert step["if"] == f"always() && hashFiles('{folder}/**') != ''"
    assert len({step["with"]["name"] for step in reports}) == len(reports)
    assert ACTION["inputs"]["runs"]["default"] == "runs"
    (kept,) = (step for step in STEPS.values() if "upload-artifact" in step.get("uses", ""))
    assert (kept["if"], kept["with"]["path"]) == ("always()", "${{ inputs.runs }}/")


def options_of(step: dict[str, Any], folder: Path, env: dict[str, str]) -> argparse.Namespace:
    (args,) = (args for program, *args in run(step, folder, env).asked if program == "kvm-harness")
    return cli._parser().parse_args(args)


@pytest.mark.parametrize("gone", ["INVENTORY", "HOST"])
def test_without_a_real_machine_the_job_for_one_fails_and_says_so(
    gone: str, tmp_path: Path
) -> None:
    env = {name: value for name, value in ENVIRONMENTS[1].items() if name != gone}
    ran = run(STEPS[MACHINE], tmp_path, env)
    assert ran.code == 1
    assert re.fullmatch(r"::error title=[^:]+::.*KVM_HARNESS_INVENTORY.*\n", ran.output)


def test_with_a_real_machine_the_job_for_one_goes_on(tmp_path: Path) -> None:
    first, *_ = WORKFLOW["jobs"]["metal"]["steps"]
    assert first is STEPS[MACHINE]
    ran = run(first, tmp_path, ENVIRONMENTS[1])
    assert (ran.code, ran.output, ran.asked) == (0, "", ())


def test_no_emulated_host_stands_for_a_real_machine(tmp_path: Path) -> None:
    steps = {step.get("name"): step for step in WORKFLOW["jobs"]["metal"]["steps"]}
    for name in ("Run", "Times"):
        options = options_of(steps[name], tmp_path / name, ENVIRONMENTS[1])
        assert (options.inventory, options.host) == (Path("lab.yaml"), ["altra"])
    # `hosts check` refuses a host of another kind than ssh, and with --hardware one that says that
    # it is emulated (test_hosts_command.py).
    fit = options_of(steps["Is it fit?"], tmp_path / "fit", ENVIRONMENTS[1])
    assert (fit.command, fit.host, fit.inventory) == (check, "altra", Path("lab.yaml"))
    assert fit.hardware
    assert run(steps["Is it fit?"], tmp_path / "unfit", ENVIRONMENTS[1], 3).code == 3


def test_times_are_measured_by_night_and_by_hand_on_a_machine_that_is_fit(tmp_path: Path) -> None:
    steps = WORKFLOW["jobs"]["metal"]["steps"]
    (times,) = (step for step in steps if step.get("name") == "Times")
    assert times["if"].strip("${} ").split(" && ") == [
        "!cancelled()",
        "steps.fit.outcome == 'success'",
        "github.event_name != 'push'",
    ]
    assert "fit" in {step.get("id") for step in steps[: steps.index(times)]}
    options = options_of(times, tmp_path, SET)
    assert (options.mode, options.output, options.rounds) == (["vhe"], Path("times"), DEFAULT)


@pytest.mark.parametrize("env", ENVIRONMENTS, ids=["nothing set", "all set"])
def test_costs_are_counted_where_hosts_are_emulated(env: dict[str, str], tmp_path: Path) -> None:
    (step,) = (one for one in WORKFLOW["jobs"]["emulated"]["steps"] if one.get("name") == "Run")
    assert options_of(step, tmp_path, env).cost == ("COST" in env)
    pushed = "github.event_name != 'push' && github.event_name != 'pull_request'"
    assert WORKFLOW["env"]["COST"] == f"${{{{ {pushed} && 'yes' || '' }}}}"


def test_a_push_cancels_nothing_but_the_push_before_it() -> None:
    assert "concurrency" not in WORKFLOW, "it would be of all jobs"
    emulated, metal = (WORKFLOW["jobs"][name]["concurrency"] for name in ("emulated", "metal"))
    assert "github.event_name" in emulated["group"] and "github.ref" in emulated["group"]
    assert "matrix.runner" in emulated["group"], "else one runner's job would cancel the other's"
    assert "schedule" not in emulated["cancel-in-progress"]
    assert metal["cancel-in-progress"] is False
    assert "github.event_name" in metal["group"]


def test_nothing_may_be_written_and_nothing_foreign_is_run() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert all("permissions" not in job for job in WORKFLOW["jobs"].values())
    used = {step["uses"] for step in STEPS.values() if "uses" in step}
    ours = {"./.github/actions/report"}
    github = r"actions/(checkout|cache/(restore|save)|upload-artifact)@v\d+"
    assert all(re.fullmatch(github, name) for name in used - ours)
    assert (ROOT / ".github/actions/report/action.yaml").is_file()


def test_no_text_of_a_stranger_is_put_into_a_script() -> None:
    """An expression becomes a part of the script before bash reads it; a variable does not."""
    assert all("${{" not in step["run"] for step in STEPS.values() if "run" in step)


def test_pull_requests_stay_off_machines_of_the_lab() -> None:
    for job in WORKFLOW["jobs"].values():
        assert isinstance(job["timeout-minutes"], int)
        if "self-hosted" in job["runs-on"]:
            assert "github.event_name != 'pull_request'" in job["if"]
    # PyYAML reads the key `on` as true, as YAML 1.1 has it.
    assert "pull_request_target" not in WORKFLOW[True]


def test_the_cache_is_keyed_by_what_it_is_made_from() -> None:
    caches = [step["with"] for step in STEPS.values() if _uses(step, "actions/cache/restore@")]
    jobs = [job for job in WORKFLOW["jobs"].values() if "container" in job]
    assert len(caches) == len(jobs) == 2
    (cache,) = {tuple(sorted(cache.items())) for cache in caches}
    assert_keyed(dict(cache), {job["container"]["image"] for job in jobs})


def _uses(step: dict[str, Any], name: str) -> bool:
    return str(step.get("uses", "")).startswith(name)


@pytest.mark.parametrize("job", [name for name, job in WORKFLOW["jobs"].items() if name != "metal"])
def test_base_kernels_are_kept_also_by_a_job_that_fails(job: str) -> None:
    steps = WORKFLOW["jobs"][job]["steps"]
    (restore,) = (step for step in steps if _uses(step, "actions/cache/restore@"))
    (save,) = (step for step in steps if _uses(step, "actions/cache/save@"))
    conditions = save["if"].split(" && ")
    assert conditions[:2] == ["always()", "steps.cache.outputs.cache-hit != 'true'"]
    # A key is never written twice, so it must not be that of a job that has built nothing.
    assert "/cells/**') != ''" in conditions[2]
    assert restore["id"] == "cache"
    assert save["with"]["key"] == "${{ steps.cache.outputs.cache-primary-key }}"
    assert save["with"]["path"] == restore["with"]["path"]
    built = [at for at, step in enumerate(steps) if step.get("name") in ("Run", "Faults")]
    assert steps.index(save) == built[0] + 1


def assert_keyed(cache: dict[str, str], images: set[str]) -> None:
    assert cache["path"] == "~/.cache/kvm-harness"
    named = re.findall(r"'([^']+)'", cache["key"])
    assert set(named) == {"requirements.lock", "kernel-configs/**", "guests/**", "inventory.yaml"}
    for pattern in named:
        assert any(ROOT.glob(pattern.replace("/**", "/*"))), pattern
    (image,) = images
    assert f"-{image.replace(':', '')}-" in cache["key"]
    # A key is saved once, by the job that comes first: another job's has other kernels in it.
    assert "-${{ github.job }}-" in cache["key"]
    assert cache["key"].startswith(cache["restore-keys"])
    assert "github.job" not in cache["restore-keys"], "what any job has saved serves as well"
