# SPDX-License-Identifier: GPL-2.0-only
"""What the command line makes of costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import TypeAdapter

from harness import cli
from harness.cost.options import CostOptions
from harness.options import Options


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(args)
    assert ended.value.code in (2, 125)
    return capsys.readouterr().err


def test_run_counts_if_it_is_asked_to() -> None:
    assert cli._options(cli._parse(["run", "--cost"])).cost == CostOptions()
    assert cli._options(cli._parse(["run"])).cost is None
    assert cli._options(cli._parse(["repeat"])).cost is None


@pytest.mark.parametrize("layouts", ["0", "5", "x"])
def test_layouts_that_there_are(layouts: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--layouts" in refused(["cost", "--layouts", layouts], capsys)


def test_a_debug_kernel_is_not_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert "plain kernels" in refused(["run", "--cost", "--debug"], capsys)


def test_not_patch_by_patch(capsys: pytest.CaptureFixture[str]) -> None:
    assert "single run" in refused(["run", "--cost", "--each-patch"], capsys)


def test_no_mutant_is_selected(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    args = ["cost", "--mutants", "-k", "nonsense", "--output", str(tmp_path)]
    assert "selects no mutant" in refused(args, capsys)


@pytest.mark.parametrize(
    "option",
    [
        ("--series", "x"), ("--mbox", "x"), ("--base-only",), ("--allow-other-base",),
        ("--host", "a57"), ("--mode", "nvhe"), ("--junitxml", "x"),
    ],
)  # fmt: skip
def test_no_option_is_ignored_beside_mutants(
    option: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One who asks for mutants on a57 shall not get n1."""
    words = refused(["cost", "--mutants", "--output", str(tmp_path), *option], capsys)
    assert f"--mutants goes without {option[0]}:" in words
    assert not list(tmp_path.iterdir())


def test_names_of_mutants_are_not_chosen_without_mutants(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "-k chooses mutants" in refused(["cost", "-k", "walk"], capsys)


def test_options_survive_in_run_json() -> None:
    adapter = TypeAdapter(Options)
    options = Options(cost=CostOptions(True, 2, 3, True))
    assert adapter.validate_python(adapter.dump_python(options, mode="json")) == options
    assert options.costs_only
    assert options.narrowed
    assert "only costs: no check ran" in options.narrowing(())
    assert not Options(cost=CostOptions()).narrowed
