# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import RUN_SECONDS, argv, environment

from harness.paths import PROJECT


@pytest.fixture(scope="session", autouse=True)
def _base_kernel(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Have the base kernel built before the first integration test, where a person can see it.

    Inside a test the output is captured, and ten minutes of silence look like a hang.
    """
    if any(item.get_closest_marker("integration") for item in request.session.items):
        capture = request.config.pluginmanager.getplugin("capturemanager")
        state: Path = tmp_path_factory.mktemp("base")
        with capture.global_and_fixture_disabled():
            print("\nThe base kernel first; in an empty cache this takes ten minutes or more.")
            subprocess.run(
                argv("run", "--base-only", "--host", "n1", "--mode", "vhe", "-k", "test_page_idle"),
                env=environment(state),
                cwd=PROJECT,
                check=True,
                timeout=RUN_SECONDS,
            )
    yield
