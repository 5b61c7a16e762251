# SPDX-License-Identifier: GPL-2.0-only
"""What a check says for itself: expected, observed, and the files that show it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.inventory import AfMode
from harness.observe.splats import Finding
from harness.results import CpuAf


class Claim:
    """One check's statement. `folder` holds its evidence; it is made when first written to."""

    def __init__(self, folder: Path, expected: str) -> None:
        self._folder = folder
        self.expected = expected
        """What must be seen in this cell and why; the check replaces it by something exact."""
        self.observed = ""
        self.unjudged: tuple[str, ...] = ()
        """Parts of what is expected that cannot be judged here, and why."""
        self.splats: tuple[Finding, ...] = ()
        """The kernel's reports that the check fails by: those of the base kernel are told apart."""
        self.af_observed: AfMode | None = None
        """Who set the access flag of the tested pages, if this check can tell."""
        self.af_cpus: tuple[CpuAf, ...] = ()
        """The same for each kind of CPU, from the check that looks at each."""
        self.fast_path: bool | None = None
        """Whether the series' fast path was seen to be entered, if this check can tell."""

    def expect(self, text: str) -> None:
        """State what is expected and why."""
        self.expected = text

    def observe(self, text: str) -> None:
        """State what was seen; later calls add to it."""
        self.observed = f"{self.observed}; {text}" if self.observed else text

    def not_judged(self, text: str) -> None:
        """State that a part of what is expected cannot be judged here, and why.

        The check goes on, for the rest may fail; if nothing does, it is unproven.
        """
        self.observe(f"not judged: {text}")
        self.unjudged = (*self.unjudged, text)

    def path(self, name: str) -> Path:
        """Where a file of evidence goes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / name

    def save(self, name: str, text: str) -> None:
        """Keep a text as evidence."""
        self.path(name).write_text(text)

    def save_all(self, texts: Mapping[str, str]) -> None:
        """Keep several texts as evidence, by their file names."""
        for name, text in texts.items():
            self.save(name, text)

    def evidence(self) -> tuple[Path, ...]:
        """Every file that was kept."""
        return tuple(sorted(self._folder.iterdir())) if self._folder.is_dir() else ()
