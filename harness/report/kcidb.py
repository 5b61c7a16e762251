# SPDX-License-Identifier: GPL-2.0-only
"""A run as KCIDB's JSON, v5 (kernelci/kcidb-io): one checkout and one build for each kernel, and a
test for each check, each cell and the run itself.

unproven is MISS, the one word of the six that says that nothing is known of the code although the
test did not break. No field has a URL: a run knows none.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any
from urllib.parse import quote

from kcidb_io.schema import V5_3

from harness.errors import UsageError
from harness.printable import clip, plain_name, printable
from harness.report import evidence, facts, figures
from harness.report.counts import conclusion, count
from harness.report.evidence import Excerpt, Read
from harness.results import SERIES, Cell, Check, Figure, Kernel, KernelLabel, Outcome, Summary

ROOT = "kvm_harness"
FIGURE = "figure"
STATUS: Mapping[Outcome, str] = {
    "pass": "PASS",
    "fail": "FAIL",
    "error": "ERROR",
    "unproven": "MISS",
    "skip": "SKIP",
}
MAX_WORDS = 4000
MAX_LINE = 500
MAX_EXCERPT = 16384  # the schema's own bound

_Object = dict[str, Any]


def kcidb(run: Summary, name: str, read: Read, origin: str = facts.ORIGIN) -> str:
    """The whole run, checked with KCIDB's schema; `name` is that of the run's folder.

    The name makes ids unique within the origin. UsageError for an origin that KCIDB does not take.
    """
    if not re.fullmatch(r"[a-z0-9_]{1,64}", origin):
        raise UsageError(f"--origin {origin!r}: only a-z, 0-9 and _")
    value = _Report(run, f"{origin}:{plain_name(name)}", origin, read).whole()
    V5_3.validate(value)
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


class _Report:
    """A run, and what all of its objects share."""

    def __init__(self, run: Summary, prefix: str, origin: str, read: Read) -> None:
        self._run, self._prefix, self._origin, self._read = run, prefix, origin, read
        self._cells = {cell.id: cell for cell in run.cells}
        self._cpus = facts.cpus(run)
        labels: tuple[KernelLabel, ...] = ("base", "patched") if run.series else ("base",)
        used = {cell.kernel for cell in run.cells} | {kernel.label for kernel in run.kernels}
        self._labels = [one for one in ("base", "patched") if one in {*labels, *used}]

    def whole(self) -> _Object:
        tests = [self._of_run(), *map(self._cell, self._run.cells)]
        tests += map(self._check, self._run.checks)
        tests += [test for n, one in enumerate(self._run.figures) for test in self._figure(n, one)]
        return {
            "version": {"major": 5, "minor": 3},
            "checkouts": [self._checkout(label) for label in self._labels],
            "builds": list(self._builds()),
            "tests": tests,
        }

    def _object(self, *path: str) -> _Object:
        """What each object has: an id from the names that lead to it, and the origin."""
        quoted = (quote(part, safe="[]+", errors="surrogatepass") for part in path)
        return {"id": "/".join([self._prefix, *quoted]), "origin": self._origin}

    def _checkout(self, label: KernelLabel) -> _Object:
        run = self._run
        kernel = facts.kernel_of(run, label)
        value = self._object(label) | {
            "comment": _words(kernel.source if kernel else run.reason),
            "misc": {"series": _words(run.series), "series_digest": _words(run.series_digest)},
        }
        value |= {"valid": True} if kernel else {}
        if label == "base":
            value |= {"patchset_hash": "", "misc": {}}
        elif message_id := facts.message_id(run):
            value |= {"message_id": message_id}
        if (started := _time(run.started)) is not None:
            value |= {"start_time": started}
        return value

    def _builds(self) -> Iterator[_Object]:
        """A kernel that there is not, of a run that ended early, is a build that is missing."""
        for label in self._labels:
            made = {k.hosts: k for k in reversed(self._run.kernels) if k.label == label}
            yield from (self._build(label, kernel) for kernel in made.values() or (None,))

    def _build(self, label: KernelLabel, kernel: Kernel | None) -> _Object:
        value = self._object(label, *(kernel.hosts if kernel else ())) | {
            "checkout_id": self._object(label)["id"],
            "architecture": "arm64",
        }
        if kernel is None:
            return value | {"status": "MISS", "comment": _words(self._run.reason)}
        value |= {"compiler": _words(kernel.compiler)} if kernel.compiler else {}
        return value | {
            "status": "PASS",
            "config_name": "kvm-harness+debug" if self._run.debug else "kvm-harness",
            "duration": kernel.build_seconds,
            "misc": {
                "label": label,
                "version": _words(kernel.version),
                "build_id": _words(kernel.build_id),
                "config_sha256": _words(kernel.config_sha256),
                "cached": kernel.cached,
            },
        }

    def _test(
        self, label: KernelLabel, path: str, outcome: Outcome, *names: str, host: str = ""
    ) -> _Object:
        kernel = facts.kernel_of(self._run, label, host)
        build = self._object(label, *(kernel.hosts if kernel else ()))
        return self._object(label, *names) | {
            "build_id": build["id"],
            "path": path,
            "status": STATUS[outcome],
        }

    def _of_run(self) -> _Object:
        """The root of the tree; so that a run that ended early is not only what it had done."""
        run = self._run
        return self._test(self._labels[-1], ROOT, run.verdict, "run") | {
            "comment": _words(f"{conclusion(run)} ({count(run)})"),
            "duration": run.seconds,
            "misc": {
                "outcome": run.verdict,
                "reason": _words(run.reason),
                "harness": _words(run.harness),
                "seed": run.seed,
                "whole": run.whole,
                "notes": [_words(note) for note in run.notes],
            },
        }

    def _cell(self, cell: Cell) -> _Object:
        names = ("cell", cell.id)
        value = self._test(cell.kernel, _path(cell), cell.outcome, *names, host=cell.machine)
        value |= _excerpt(evidence.of_cell(cell, self._read) if cell.outcome != "pass" else None)
        return value | {
            "environment": self._environment(cell),
            "comment": _words(f"all checks of {cell.id}"),
            "duration": cell.seconds,
            "misc": {
                "outcome": cell.outcome,
                "reason": _words(cell.reason),
                "death": cell.death or "",
                "kernel_reports": [_words(splat.title) for splat in cell.splats],
            },
        }

    def _check(self, check: Check) -> _Object:
        cell = self._cells.get(check.cell)
        label = cell.kernel if cell else self._labels[-1]
        path = f"{_path(cell)}.{_node(check.name)}"
        names = ("check", check.cell, check.name)
        host = cell.machine if cell else ""
        value = self._test(label, path, check.outcome, *names, host=host)
        value |= {"environment": self._environment(cell)} if cell else {}
        if check.outcome not in ("pass", "skip"):
            value |= _excerpt(evidence.of_check(check, cell, self._read))
        return value | {
            "comment": _words(check.name),
            "duration": check.seconds,
            "misc": {
                "outcome": check.outcome,
                "expected": _words(check.expected),
                "observed": _words(check.observed),
                "reason": _words(check.reason),
                "evidence": [_words(path) for path in check.evidence],
                "also_on_base": check.also_on_base,
                "death": check.death or "",
            },
        }

    def _environment(self, cell: Cell) -> _Object:
        run = self._run
        kinds = [facts.cpu(kind) for kind in cell.af_cpus]
        how = f"emulated by {run.emulator or 'QEMU'}" if run.emulated else ""
        words = [cell.host, *kinds, *([how] if how else []), f"KVM mode {cell.kvm_mode}"]
        return {
            "comment": _words(", ".join(words)),
            "misc": {
                "host": _words(cell.host),
                "cpus": [
                    {"cpus": _words(k.cpus), "midr": _words(k.midr), "model": _words(k.model)}
                    for k in cell.af_cpus
                ],
                "emulated": run.emulated,
                "emulator": _words(run.emulator),
                "kvm_mode": cell.kvm_mode,
                "variant": _words(cell.variant),
                "af_expected": cell.af_mode,
                "af_observed": cell.af_observed or "",
                "build_id": _words(cell.build_id),
                "boot_id": _words(cell.boot_id),
            },
        }

    def _figure(self, number: int, figure: Figure) -> Iterator[_Object]:
        """A figure on either kernel; it says nothing of right or wrong, so it is DONE."""
        both: tuple[tuple[KernelLabel, tuple[float, ...]], ...] = (
            ("base", figure.base),
            ("patched", figure.patched),
        )
        for label, values in both:
            if not values or label not in self._labels:
                continue
            host = self._machine(figure, label)
            names = (FIGURE, str(number))
            yield self._test(label, _path_of(figure), "pass", *names, host=host) | {
                "status": "DONE",
                "environment": self._of_figure(figure),
                "comment": _words(f"{figure.what} ({figure.where}): median"),
                "number": {"value": median(values), "unit": _words(figure.unit)},
                "misc": {
                    "values": list(values),
                    "verdict": figure.verdict,
                    "change": figures.change(figure),
                    "reason": _words(figures.because(figure)),
                },
            }

    def _machine(self, figure: Figure, label: KernelLabel) -> str:
        """The machine that a figure's kernel was booted on; "" where all run the same kernel."""
        cells = (one for one in self._run.cells if one.host == figure.host and one.kernel == label)
        names = (figure.host, *(one.machine for one in cells))
        return next((one for one in names if facts.kernel_of(self._run, label, one)), "")

    def _of_figure(self, figure: Figure) -> _Object:
        run = self._run
        how = (f"emulated by {run.emulator or 'QEMU'}",) if run.emulated else ()
        words = (figure.host, *self._cpus[figure.host], *how, f"KVM mode {figure.kvm_mode}")
        return {
            "comment": _words(", ".join(words)),
            "misc": {
                "host": _words(figure.host),
                "emulated": run.emulated,
                "emulator": _words(run.emulator),
                "kvm_mode": figure.kvm_mode,
                "variant": _words(figure.variant),
                "af_expected": figure.af_mode,
            },
        }


def _path(cell: Cell | None) -> str:
    """Where the checks of a cell stand: by KVM mode and boot variant, which a kernel is told."""
    if cell is None:
        return f"{ROOT}.{SERIES}"
    return f"{ROOT}.{_mode(cell)}"


def _path_of(figure: Figure) -> str:
    """As that of cells, and by host: a number of one host is no number of another."""
    where = f"{ROOT}.{_mode(figure)}.{FIGURE}.{_part(figure.host) or '_'}"
    return f"{where}.{_node(figure.metric)}"


def _mode(of: Cell | Figure) -> str:
    return f"{of.kvm_mode}{f'-{_part(of.variant)}' if of.variant else ''}"


def _node(name: str) -> str:
    """A name as part of a path: test_page_idle[thp] -> test_page_idle.thp."""
    return ".".join(_part(part) for part in re.split(r"[\[\]]", name) if part) or "_"


def _part(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)


def _words(text: str) -> str:
    return printable(clip(text, MAX_WORDS), "")


def _excerpt(found: Excerpt | None) -> _Object:
    if found is None:
        return {}
    lines = [printable(clip(line, MAX_LINE), "") for line in (found.path, *found.lines)]
    return {"log_excerpt": "\n".join(lines)[:MAX_EXCERPT]}


def _time(text: str) -> str | None:
    """The time as RFC 3339 has it, None if the text is none."""
    try:
        value = datetime.fromisoformat(text)
        return value.astimezone(UTC).isoformat(timespec="seconds") if value.tzinfo else None
    except (ValueError, OverflowError):
        return None
