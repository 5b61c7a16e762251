# SPDX-License-Identifier: GPL-2.0-only
"""The record of a run in which the access faults of our own guest, and those of the guest of the
kernel's access_tracking_perf_test, stand side by side; and the table of docs/checks.md, made of it.

    kvm-harness run --series lockless-aging --selftests -k "test_page_idle or access_tracking"
    python tests/access_faults.py RUN

writes both anew. A record holds what checks observed word for word, so nothing is read twice.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.paths import PROJECT
from harness.report.load import load
from harness.results import Summary

OWN = "test_page_idle"
SELFTEST = "test_selftest[access_tracking_perf_test]"
RECORD = PROJECT / "docs/selftests/access-faults.json"
PAGE = PROJECT / "docs/checks.md"
HEAD = (
    f"| cell | AF must be set by | `{OWN}`: access faults, pages touched when old "
    "| `access_tracking_perf_test`: access faults, accesses to old pages |"
)
_OWN = re.compile(r"access faults for (\d+) of (\d+) touched pages")
_SELFTEST = re.compile(r"(\d+) access faults for (\d+) accesses to old pages")


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Seen(_Model):
    """One check in a cell, as summary.json has it."""

    outcome: str
    observed: str


class Place(_Model):
    """One cell; `checks` has both by their names."""

    cell: str
    host: str
    kvm_mode: str
    kernel: str
    build_id: str
    af_mode: str
    checks: dict[str, Seen]


class Record(_Model):
    """What is kept of a run."""

    harness: str
    """Its version, and the digest of its program and checks."""
    source: str
    version: str
    emulator: str
    series: str
    seed: int
    only: tuple[str, ...]
    started: str
    seconds: float
    cells: tuple[Place, ...]


def record(run: Summary) -> Record:
    """What is kept of a run that had both checks in each of its cells."""
    found = {(check.cell, check.name): check for check in run.checks}

    def seen(cell: str, name: str) -> Seen:
        check = found[cell, name]
        return Seen(outcome=check.outcome, observed=check.observed)

    base = next(kernel for kernel in run.kernels if kernel.label == "base")
    return Record(
        harness=f"{run.harness}, {run.harness_digest}",
        source=base.source,
        version=base.version,
        emulator=run.emulator,
        series=run.series,
        seed=run.seed,
        only=run.only,
        started=run.started,
        seconds=run.seconds,
        cells=tuple(
            Place(
                cell=cell.id,
                host=cell.host,
                kvm_mode=cell.kvm_mode,
                kernel=cell.kernel,
                build_id=cell.build_id,
                af_mode=cell.af_mode,
                checks={name: seen(cell.id, name) for name in (OWN, SELFTEST)},
            )
            for cell in run.cells
        ),
    )


def faults(place: Place) -> dict[str, tuple[int, int]]:
    """By the name of the check: the access faults, and how often an old page was accessed."""
    ways = {OWN: _OWN, SELFTEST: _SELFTEST}
    found = {}
    for name, pattern in ways.items():
        (told,) = pattern.findall(place.checks[name].observed)
        found[name] = (int(told[0]), int(told[1]))
    return found


def table(kept: Record) -> str:
    """The table of docs/checks.md."""
    rows = [HEAD, "|---|---|---|---|"]
    for place in kept.cells:
        kernel = kept.series if place.kernel == "patched" else place.kernel
        cells = [f"{place.host} {place.kvm_mode}, {kernel}", place.af_mode]
        cells += [f"{some:,} of {all_:,}" for some, all_ in faults(place).values()]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def words(kept: Record) -> str:
    """What stands above the table of where it is from."""
    return f"Linux {kept.version}, {kept.emulator}, seed {kept.seed}, kvm-harness {kept.harness}"


def page_with(text: str, kept: Record) -> str:
    """The page with this table and these words in the place of those that it has."""
    before, rest = text.split(HEAD)
    _, after = rest.split("\n\n", 1)
    found = re.compile(r"Linux [\d.]+, QEMU [\d.]+, seed \d+, kvm-harness [\d.]+, \w+")
    before, count = found.subn(words(kept), before)
    assert count == 1
    return f"{before}{table(kept)}\n{after}"


def read() -> Record:
    """The record that is kept."""
    return Record.model_validate_json(RECORD.read_text())


def main(run: str) -> None:
    """Keep the record of this run, and bring the page in line with it."""
    kept = record(load(Path(run)))
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(kept.model_dump_json(indent=2) + "\n")
    PAGE.write_text(page_with(PAGE.read_text(), kept))


if __name__ == "__main__":
    main(sys.argv[1])
