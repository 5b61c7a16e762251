# SPDX-License-Identifier: GPL-2.0-only
"""What a cell measured, as a file of its evidence; and the metrics that there are."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

FILE = "values.json"
UNIT = "s"
PAGES = 4096
"""Tested pages of 4 KiB."""
RECLAIMED = PAGES // 4
WRITER_PAGES = 64
PASSES = 5
"""Of a check, behind one that warms up."""
SELFTEST = "access_tracking_perf_test"

METRICS: Mapping[str, str] = {
    "time-aging-page-idle": f"one pass of page_idle over {PAGES:,} young pages",
    "time-aging-walk": f"one generation more by MGLRU, of a guest with {PAGES:,} young pages",
    "time-read-aged": f"a vCPU reads {PAGES:,} aged pages, each once",
    "time-write-aged": f"a vCPU writes to {PAGES:,} aged pages, each once",
    "time-writer": f"MADV_DONTNEED on some of {WRITER_PAGES} pages that others age, the mean",
    "time-writer-slowest": "the same, the slowest of them",
    "time-reclaim": f"{RECLAIMED:,} of {PAGES:,} young pages are reclaimed by memory.reclaim",
    "time-reclaim-high": f"{RECLAIMED:,} of {PAGES:,} young pages are reclaimed by memory.high",
    "time-selftest-idle": f"{SELFTEST} marks its memory idle, twice",
    "time-selftest-write-idle": f"{SELFTEST}: vCPUs write to idle memory",
    "time-selftest-read-idle": f"{SELFTEST}: vCPUs read idle memory",
    "time-selftest-mglru": f"{SELFTEST} ages by MGLRU, five times",
    "time-selftest-mglru-write": f"{SELFTEST}: vCPUs write to memory that MGLRU aged",
    "time-selftest-mglru-read": f"{SELFTEST}: vCPUs read memory that MGLRU aged",
    "time-selftest-faults-pass": f"{SELFTEST} ages by MGLRU while vCPUs fault, one pass",
    "time-selftest-faults-vcpus": f"{SELFTEST}: vCPUs fault all memory in while MGLRU ages it",
}
"""Name -> what was measured; all are seconds, and less is better."""


class Values(BaseModel):
    """values.json of one check: by metric, the seconds of each pass but the first."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    passes: dict[str, tuple[FiniteFloat, ...]] = Field(max_length=len(METRICS))

    def medians(self) -> dict[str, float]:
        """One value for the boot, of each metric that there is and that was measured."""
        found = self.passes.items()
        return {name: median(times) for name, times in found if name in METRICS and times}
