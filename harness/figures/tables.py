# SPDX-License-Identifier: GPL-2.0-only
"""What a simulation found (harness/figures/simulate.py), for a person to read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table

from harness.errors import EXIT_FAIL, EXIT_PASS
from harness.figures import simulate
from harness.figures.measured import LEVEL, MARGIN, POWER
from harness.figures.simulate import Rate, Row, Setting
from harness.progress import Progress


def show(setting: Setting, console: Console) -> int:
    """Simulate and print all of it; EXIT_FAIL if a rate is above what is promised."""
    progress = Progress(console)
    parts = {
        "One figure to a run": simulate.alone,
        f"{simulate.FAMILY} figures to a run": simulate.together,
        f"The measurement itself makes {simulate.BIAS:.0%}": simulate.biased,
    }
    found: list[Row] = []
    for title, part in parts.items():
        with progress.stage(title.lower()):
            rows = list(_watched(part(setting), progress))
        rows += simulate.pooled(rows)
        console.print(_table(title, rows))
        for line in _chance(rows):
            console.print(line, soft_wrap=True)
        found += rows
    for line in _legend(setting):
        console.print(line, soft_wrap=True)
    bad = [line for row in found for line in _above(row)]
    for line in bad:
        console.print(f"above what is promised: {line}", soft_wrap=True)
    console.print("above what is promised: " + (f"{len(bad)} rates" if bad else "none"))
    return EXIT_FAIL if bad else EXIT_PASS


def _watched(rows: Iterator[Row], progress: Progress) -> Iterator[Row]:
    for row in rows:
        progress.now(f"{row.design}, {row.noise}, {row.values} values")
        yield row


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row.rates))
    table.add_column("design")
    table.add_column("noise")
    for name in ("n", *names):
        table.add_column(name, justify="right")
    for row in rows:
        cells = (_percent(row.rates[name]) if name in row.rates else "-" for name in names)
        table.add_row(row.design, row.noise, str(row.values), *cells)
    return table


def _percent(rate: Rate) -> str:
    return f"{rate.count / rate.trials:.1%}" + ("!" if rate.exceeded else "")


def _chance(rows: Sequence[Row]) -> Iterator[str]:
    """How many wrong ones chance explains in a table, and what it takes to be found."""
    promised = {rate.trials: None for row in rows for rate in row.rates.values() if rate.promised}
    for trials in promised:
        allowed = simulate.allowed_of(trials, LEVEL)
        yield (
            f"chance: up to {allowed} of {trials} ({allowed / trials:.1%}); only a rate of "
            f"{simulate.found_of(trials, LEVEL):.1%} is found with a chance of {simulate.SURE:.0%}"
        )


def _above(row: Row) -> Iterator[str]:
    for name, rate in row.rates.items():
        if rate.exceeded:
            where = f"{row.design}, {row.noise}, {row.values} values, {name}"
            yield f"{where}: {rate.count} of {rate.trials}, at most {rate.allowed} are chance"


def _legend(setting: Setting) -> Iterator[str]:
    yield ""
    yield f"n: rounds, or values of each sample. {setting.trials} trials each, seed {setting.seed}."
    yield "false: runs that call anything without an effect better or worse, with no margin;"
    yield f"  of half: with an effect of {simulate.REAL:.0%} in the other half of the figures;"
    yield "  turned: where the measurement moves the patched kernel as far, but the other way."
    yield f"missed: intervals without the true effect (here {simulate.COVERED:.0%})."
    yield f"false same: runs that call an effect as large as the margin, {MARGIN:.0%}, the same."
    yield "same: an effect of 0 that is called the same. 1% to 10%: that effect is shown."
    yield f"smallest: the effect that `smallest` names is shown (meant is {POWER:.0%})."
    yield (
        f"Promised is {LEVEL:.0%} at most of false, false same and missed (6.2% of missed for 5 "
        f"rounds); of each row, and of {simulate.POOLED}, the rows of one design and n together. "
        f"`chance` is how many of so many trials that explains. That any of all "
        f"{simulate.PROMISES} rates exceeds what chance explains then has a chance of "
        f"{simulate.DOUBT:.1%} at most, by the binomial distribution."
    )
