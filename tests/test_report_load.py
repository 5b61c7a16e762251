# SPDX-License-Identifier: GPL-2.0-only
"""summary.json from elsewhere: read strictly, but for keys that are not known."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report_runs import random_run

from harness.errors import UsageError
from harness.report import load as load_module
from harness.report.load import load
from harness.results import Summary

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
