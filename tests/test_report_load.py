# SPDX-License-Identifier: GPL-2.0-only
"""summary.json from elsewhere: read strictly, but for keys that are not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import a_cell, a_check
from report_runs import random_run

from harness.errors import UsageError
from harness.report import load as load_module
from harness.report.command import FORMATS, Request
from harness.report.load import MAX_NAME, load
from harness.results import Splat, Summary

RUN = next(run for seed in range(99) if (run := random_run(seed)).checks and run.figures)


def written(folder: Path, value: object) -> Path:
    (folder / "summary.json").write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def as_json(run: Summary) -> dict[str, Any]:
    value = json.loads(run.model_dump_json(by_alias=True))
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("seed", range(10))
def test_what_a_run_wrote_is_read_as_it_was(tmp_path: Path, seed: int) -> None:
    run = random_run(seed)
    assert load(written(tmp_path, as_json(run))) == run


def test_keys_of_a_later_version_are_passed_over(tmp_path: Path) -> None:
    value = as_json(RUN)
    for place in (value, value["checks"][0], value["figures"][0]):
        place["power"] = {"watts": [1, 2]}
    assert load(written(tmp_path, value)) == RUN


def test_keys_of_an_earlier_version_may_be_absent(tmp_path: Path) -> None:
    value = as_json(RUN)
    for key in ("figures", "message_id", "subject", "patches", "whole", "emulator"):
        del value[key]
    found = load(written(tmp_path, value))
    assert (found.figures, found.message_id, found.whole) == ((), "", False)


def _break(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    value = as_json(RUN)
    change(value)
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[1]", "not a JSON object"),
        ('{"a": 1}', "no schema"),
        ('{"schema": "1"}', "no schema"),
        ('{"schema": 2}', "schema 2 is of a later version"),
        ('{"schema": 1}', "harness: Field required"),
        ("[" * 100_000, "recursion"),
        (_break(lambda v: v.update(seed="1")), "seed: Input should be a valid integer"),
        (_break(lambda v: v.update(seed=1 << 70)), "beyond 64 bits"),
        (_break(lambda v: v.update(verdict="great")), "verdict: Input should be"),
        (_break(lambda v: v.update(seconds=float("inf"))), "a number that is none"),
        (_break(lambda v: v["figures"][0].update(base=[float("nan")])), "a number that is none"),
        (_break(lambda v: v["checks"][0].update(cell="gone")), "cell 'gone', which is not there"),
        (_break(lambda v: v["checks"].append(v["checks"][0])), "twice"),
        (_break(lambda v: v["cells"].append(v["cells"][0])), "a cell twice"),
        (_break(lambda v: v["cells"][0].update(id="series")), "one that is called 'series'"),
    ],
)
def test_a_broken_summary_is_named_with_the_reason(tmp_path: Path, value: object, why: str) -> None:
    with pytest.raises(UsageError, match=r"summary\.json: ") as found:
        load(written(tmp_path, value))
    assert why in str(found.value)


BOUNDED = RUN.model_copy(
    update={
        "cells": (a_cell(outcome="fail", splats=(Splat(kind="warn", title="t", key="k"),)),),
        "checks": (a_check("test_a", outcome="fail"), a_check("test_b", outcome="fail")),
    }
)
LONG: dict[str, Callable[[dict[str, Any], str], object]] = {
    "the id of a cell": lambda v, name: [
        v["cells"][0].update(id=name),
        *(check.update(cell=name) for check in v["checks"]),
    ],
    "a host of a kernel": lambda v, name: v["kernels"][0].update(hosts=[name]),
    "the host of a cell": lambda v, name: v["cells"][0].update(host=name),
    "the boot variant of a cell": lambda v, name: v["cells"][0].update(variant=name),
    "a place in a report of cell": lambda v, name: v["cells"][0]["splats"][0].update(site=name),
    "the name of a check": lambda v, name: v["checks"][0].update(name=name),
    "a place in a report of check": lambda v, name: v["checks"][0].update(
        splats=[{"kind": "warn", "title": "t", "key": "k", "where": [name]}]
    ),
    "the metric of a figure": lambda v, name: v["figures"][0].update(metric=name),
    "the host of a figure": lambda v, name: v["figures"][0].update(host=name),
    "the boot variant of a figure": lambda v, name: v["figures"][0].update(variant=name),
    "a path that cell": lambda v, name: v["cells"][0].update(splat_file=name),
    "a path that check": lambda v, name: v["checks"][0].update(evidence=[name]),
    "a path that figure": lambda v, name: v["figures"][0].update(evidence=[name]),
}


@pytest.mark.parametrize("what", LONG)
def test_a_name_has_a_bound(tmp_path: Path, what: str) -> None:
    """What reports take as it is; what they cut may be of any length."""
    value = as_json(BOUNDED)
    LONG[what](value, "x" * MAX_NAME)
    assert load(written(tmp_path, value))
    LONG[what](value, "x" * (2 << 20))
    with pytest.raises(UsageError, match=f"{what}.* has 2097152 characters, at most") as found:
        load(written(tmp_path, value))
    assert len(str(found.value)) < 1000


def test_the_paths_of_a_check_have_a_bound(tmp_path: Path) -> None:
    value = as_json(BOUNDED)
    for at, count in enumerate((load_module.MAX_PATHS, load_module.MAX_PATHS + 1)):
        value["checks"][at]["evidence"] = ["x"] * count
    with pytest.raises(UsageError, match=r"check test_b of .* names 16385 files, at most 16384"):
        load(written(tmp_path, value))


@pytest.mark.parametrize("form", FORMATS)
def test_names_within_the_bound_make_no_large_report(form: str, tmp_path: Path) -> None:
    value = as_json(BOUNDED)
    for change in LONG.values():
        change(value, "x" * MAX_NAME)
    run = load(written(tmp_path, value))
    assert len(FORMATS[form](Request(run, tmp_path, "origin", None))) < 100_000


def test_a_folder_without_a_summary(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"summary\.json: no such file"):
        load(tmp_path)


def test_a_summary_that_is_no_file_of_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    written(tmp_path, as_json(RUN))
    (run / "summary.json").symlink_to(tmp_path / "summary.json")
    with pytest.raises(UsageError, match="no such file"):
        load(run)


def test_a_summary_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "MAX_BYTES", 1 << 20)
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        load(written(tmp_path, " " * ((1 << 20) + 1)))
