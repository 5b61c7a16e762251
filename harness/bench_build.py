# SPDX-License-Identifier: GPL-2.0-only
"""What a build through the harness costs: against plain `make`, and a small series against a whole.

All of it in a cache folder of its own, so that nothing is taken from earlier builds; the last full
build, with a warm compiler cache, shows what ccache brings.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from harness import inventory, proc
from harness.deadline import Deadline
from harness.kernel import cache
from harness.kernel import series as series_module
from harness.kernel import source as source_module
from harness.kernel.apply import PatchedTree, apply
from harness.kernel.build import build
from harness.kernel.built import Kernel
from harness.kernel.flavor import PLAIN
from harness.kernel.source import Source
from harness.paths import cache_home
from harness.prepare import BUILD_SECONDS, SOURCE_SECONDS
from harness.programs import compiler
from harness.progress import Progress

MAKE_GOAL = 1.1
SERIES_GOAL = 0.2


def bench(console: Console) -> None:
    """Measure and print; needs about 6 GiB of disk and half an hour."""
    progress = Progress(console)
    stock = inventory.load()
    source = source_module.resolve(stock.defaults.source, Deadline(SOURCE_SECONDS))
    seconds: dict[str, float] = {}
    with _own_cache():
        with progress.stage("plain make"):
            seconds["plain"] = _plain_make(source)
        with progress.stage("base kernel, cold"):
            base = _build(source, None, seconds, "cold")
        with progress.stage("one-file series, from a copy of the base's build folder"):
            series = series_module.load(stock.defaults.series)
            patched = apply(series, source, Deadline(SOURCE_SECONDS))
            _build(patched, base, seconds, "series")
        cache.remove(cache.folder("builds"))
        with progress.stage("base kernel again, with ccache warm"):
            _build(source, None, seconds, "ccache")
    for line in describe(seconds, len(series.touched)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def describe(seconds: dict[str, float], files: int) -> list[str]:
    """The ratios in words."""
    plain, cold, series = seconds["plain"], seconds["cold"], seconds["series"]
    return [
        "",
        f"plain make: {plain:.0f} s; through the harness, cold, ccache filled on the way: "
        f"{cold:.0f} s",
        f"ratio to plain make: {cold / plain:.2f} (goal: at most {MAKE_GOAL}, "
        f"{_reached(cold / plain <= MAKE_GOAL)})",
        f"the default series ({files} files): {series:.0f} s, {series / cold:.3f} of a full build "
        f"(goal: under {SERIES_GOAL}, {_reached(series / cold < SERIES_GOAL)})",
        f"full build with ccache warm: {seconds['ccache']:.0f} s, "
        f"{seconds['ccache'] / cold:.2f} of cold",
    ]


def _reached(yes: bool) -> str:
    return "reached" if yes else "MISSED"


@contextmanager
def _own_cache() -> Iterator[None]:
    """An empty cache within the real one, gone at the end; after a SIGKILL, with the next sweep."""
    before = os.environ.get("XDG_CACHE_HOME")
    with cache.staging("bench", "build") as folder:
        os.environ["XDG_CACHE_HOME"] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ["XDG_CACHE_HOME"]
            else:
                os.environ["XDG_CACHE_HOME"] = before


def _build(
    tree: Source | PatchedTree, base: Kernel | None, seconds: dict[str, float], name: str
) -> Kernel:
    start = time.monotonic()
    kernel = build(
        tree,
        fragments=PLAIN.fragments,
        base=base,
        deadline=Deadline(BUILD_SECONDS),
        progress=lambda at: None,
    )
    seconds[name] = time.monotonic() - start
    return kernel


def _plain_make(source: Source) -> float:
    """Seconds of `make allnoconfig Image` on the same source, as a person would type it."""
    folder = cache_home() / "plain"
    folder.mkdir()
    fragment = folder / "all.config"
    fragment.write_text("".join(path.read_text() for path in PLAIN.fragments))
    command = ["make", "-C", str(source.dir), f"O={folder}", "ARCH=arm64"]
    command += [f"CROSS_COMPILE={compiler().removesuffix('gcc')}", f"-j{os.cpu_count()}"]
    environment = {**os.environ, "KCONFIG_ALLCONFIG": str(fragment)}
    start = time.monotonic()
    for target in ("allnoconfig", "Image"):
        proc.run(
            [*command, target],
            deadline=Deadline(BUILD_SECONDS),
            what=f"make {target}",
            contained=True,
            env=environment,
        )
    return time.monotonic() - start
