# SPDX-License-Identifier: GPL-2.0-only
"""What the series and the contracts were written for, and what they are read with."""

from __future__ import annotations

from harness.contract import Contract
from harness.contract_load import base_for
from harness.contract_load import load as load_contract
from harness.kernel.series import Series
from harness.kernel.source import Source
from harness.results import SeriesBase


def contract_notes(source: Source, series: Series | None, contract: Contract) -> list[str]:
    """What of the contracts was not written for this kernel.

    The series' own is merged with the base that it is going to be read with, so what is wrong with
    that shows before anything is built.
    """
    base = base_for(source.version)
    read = {" of the base kernel": load_contract(None, base)}
    if series is not None and series.contract is not None:
        read[""] = load_contract(series.contract, base)
    notes = [
        f"the contract{whose} was written for Linux {one.kernel}, not for {source.version}"
        for whose, one in read.items()
        if not one.applies_to(source.version)
    ]
    return notes + ([f"the series was posted against {contract.base}"] if contract.base else [])


def series_base(series: Series, contract: Contract, doubt: str | None) -> SeriesBase:
    """What is known of the base that the series is for; `doubt` is what check_base() said."""
    if doubt:
        return "doubtful"
    if series.base_commit:
        return "same"
    return "doubtful" if contract.base else "unnamed"
