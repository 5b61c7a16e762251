# SPDX-License-Identifier: GPL-2.0-only
"""The command's exit code where it gets as far as no run, as `git bisect run` takes it."""

from __future__ import annotations

import argparse
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import argv, environment

from harness import cli
from harness.errors import EXIT_CANNOT_TELL, EXIT_ERROR
from harness.git_bisect import exit_code
from harness.paths import PROJECT

FULL = "/dev/full"


def test_git_bisect_understands_no_more_than_this() -> None:
    """git-bisect(1): 125 is for what cannot be tested, 128 and more end it, the rest is bad."""
    told = {code: exit_code(code) for code in (0, 1, 2, 3, 4, 130)}
    assert told == {0: 0, 1: 1, 2: 125, 3: 125, 4: 125, 130: 130}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("run --bisect --nonsense", 125),
        ("run --nonsense --bisect", 125),
        ("run --nonsense --each-patch", 125),
        ("--bisect run", 125),
        ("run --bisect=yes", 125),
        ("run --host n1 -- --bisect", 125),
        # No option, and what would be meant by it.
        ("run --bisec --nonsense", 125),
        ("run --bisec", 125),
        ("run --each", 125),
        ("run --nonsense", 2),
        ("run --base", 2),
    ],
)
def test_a_usage_error_is_no_bad_commit(
    words: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(cli, "_run", lambda *_: 0)
    with pytest.raises(SystemExit) as ended:
        cli.main(words.split())
    assert ended.value.code == code


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of all its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


def test_no_parser_takes_abbreviations() -> None:
    found = list(parsers(cli._parser()))
    assert {"kvm-harness run", "kvm-harness hosts check"} <= {parser.prog for parser in found}
    assert not [parser.prog for parser in found if parser.allow_abbrev]


def ended(words: str, tmp_path: Path, stdout: str, **extra: str) -> int:
    with Path(stdout).open("wb") as out:
        env = environment(tmp_path / "state", **extra)
        done = subprocess.run(argv(*words.split()), env=env, stdout=out, stderr=out, timeout=100)
    return done.returncode


@pytest.mark.parametrize(
    ("words", "code"),
    [("run --bisect", EXIT_CANNOT_TELL), ("run --each-patch", EXIT_CANNOT_TELL),
     ("run", EXIT_ERROR)],
)  # fmt: skip
def test_an_import_that_fails_is_no_verdict(words: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich/__init__.py").write_text("raise ImportError('half of it is missing')\n")
    said = tmp_path / "said"
    path = f"{tmp_path}:{PROJECT}"
    assert ended(words, tmp_path, str(said), PYTHONPATH=path) == code
    assert "half of it is missing" in said.read_text()


def test_the_command_is_started_there() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"kvm-harness": "harness.__main__:main"}


@pytest.mark.parametrize(
    ("words", "code"),
    [("run --bisect --series none", EXIT_CANNOT_TELL), ("run --series none", EXIT_ERROR),
     ("hosts", EXIT_ERROR)],
)  # fmt: skip
def test_what_cannot_be_printed_is_no_verdict(words: str, code: int, tmp_path: Path) -> None:
    """As where the output goes to a file on a disk that is full."""
    assert ended(words, tmp_path, FULL) == code
