# SPDX-License-Identifier: GPL-2.0-only
"""Each run has a folder of its own, where the user said."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.errors import InfraError
from harness.runfolder import link_evidence, make_run_folder, runs_home


def test_a_folder_for_each_run(tmp_path: Path) -> None:
    folders = {make_run_folder(tmp_path / "not yet" / "there") for _ in range(5)}
    assert len(folders) == 5
    for folder in folders:
        assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{4}", folder.name)
        assert (folder / "cells").is_dir()


def test_by_default_in_the_users_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert make_run_folder().parent == tmp_path / "kvm-harness/runs"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    # The XDG specification: a relative path is invalid and to be ignored.
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", value)
        assert runs_home() == tmp_path / "home/.local/state/kvm-harness/runs"


def test_a_place_where_no_folder_can_be_is_named(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    with pytest.raises(InfraError, match=f"cannot make the run folder {blocker}/.*ot a directory"):
        make_run_folder(blocker)


def test_evidence_of_a_run_is_in_the_folder_of_another_too(tmp_path: Path) -> None:
    base, other = make_run_folder(tmp_path), make_run_folder(tmp_path)
    (base / "summary.json").write_text("{}")
    place = base / "cells/n1-vhe-base/test_page_idle"
    place.mkdir(parents=True)
    (place / "trace.txt").write_text("a trace")
    (place / "link.txt").symlink_to("/etc/passwd")
    link_evidence(base, other)
    found = [path for path in other.rglob("*") if not path.is_dir()]
    assert found == [other / "cells/n1-vhe-base/test_page_idle/trace.txt"]
    assert found[0].samefile(place / "trace.txt")
